//! Whether a reference and a task are what their publishers signed, whoever hands them on.
//!
//! Coordinators are not believed: not who published what, not which columns a version holds, not that it is the latest. What a
//! site has used is kept in its state, so that nothing older comes back. A version that grew is its signed base and columns by
//! digest: its id hashes them, and the signed task names that id.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use archipelago_client::ClientError;
use archipelago_common::{
    Error as CommonError, Role, Version,
    blob::BlobRef,
    condition::ConditionKey,
    fs,
    hash::Digest,
    id::{Name, TaskId, VersionId},
    limits,
    policy::Unsigned,
    record::{ReferenceHead, TaskHead},
    signature::{Signature, Statement, Subject},
};
use archipelago_protocol::message::Refusal;
use archipelago_transport::Credentials;
use serde::{Deserialize, Serialize};

use crate::{
    bounds::Bound,
    chain::now_ms,
    egress::Uplink,
    error::{Error, Result},
};

/// A reference and the version of a task, as their publishers vouch for them.
#[derive(Clone, Debug)]
pub struct Vouched {
    /// The reference.
    pub reference: ReferenceHead,
    /// What the task's version holds.
    pub held: BTreeMap<ConditionKey, BlobRef>,
    /// That the reference was published so, where it is signed.
    pub published: Option<Statement>,
    /// That the task was asked for, where it is signed.
    pub asked: Option<Statement>,
}

/// What this site has seen signed, and used.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Publishers who sign.
    signers: BTreeSet<Name>,
    /// The publication that was used last, by reference.
    references: BTreeMap<Name, Used>,
    /// The version of the latest task that was taken, by reference.
    versions: BTreeMap<Name, Used>,
    /// The numbers under which tasks were taken, by what was signed.
    taken: BTreeMap<Digest, TaskId>,
}

/// Something signed that was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Used {
    of: Digest,
    signed_ms: u64,
}

/// What is known, and its file.
#[derive(Debug)]
pub struct KnownFile {
    path: PathBuf,
    known: Known,
}

impl KnownFile {
    /// Reads what a site knows; nothing where it has used nothing yet.
    ///
    /// # Errors  [`Error::Common`] for a file that cannot be read: without it older versions could come back
    pub fn open(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join("signatures.json");
        let known = match path.exists() {
            false => Known::default(),
            true => serde_json::from_slice(&fs::read_bounded(&path, MAX_BYTES)?).map_err(|e| CommonError::Decode {
                what: "what was seen signed",
                detail: format!("`{}`: {e}", path.display()),
            })?,
        };
        Ok(Self { path, known })
    }

    /// What is known.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Keeps that somebody signs.
    ///
    /// # Errors  [`Error::Common`]
    pub fn note_signers(&mut self, task: &TaskHead, vouched: &Vouched) -> Result<()> {
        let mut known = self.known.clone();
        known.signers.extend(vouched.published.map(|_| vouched.reference.publisher.clone()));
        known.signers.extend(vouched.asked.map(|_| task.publisher.clone()));
        self.keep(known)
    }

    /// Keeps what is used from now on, before it is.
    ///
    /// # Errors  [`Error::Common`]
    pub fn note_used(&mut self, task: &TaskHead, vouched: &Vouched) -> Result<()> {
        let (mut known, name) = (self.known.clone(), &vouched.reference.name);
        if let Some(Statement { of, signed_ms, .. }) = vouched.published {
            known.references.insert(name.clone(), Used { of, signed_ms });
        }
        if let Some(statement) = vouched.asked {
            let used = Used { of: task.task.version.0, signed_ms: statement.signed_ms };
            let latest = known.versions.entry(name.clone()).or_insert(used);
            if latest.signed_ms <= used.signed_ms {
                *latest = used;
            }
            known.taken.insert(statement.digest(), task.id);
        }
        self.keep(known)
    }

    fn keep(&mut self, known: Known) -> Result<()> {
        if known != self.known {
            fs::write_atomic(&self.path, &serde_json::to_vec_pretty(&known).expect("names and digests are JSON"))?;
            self.known = known;
        }
        Ok(())
    }
}

/// Who asks whether something is vouched for, and by which rules.
pub struct Verifier<'a> {
    /// The line to the coordinators.
    pub uplink: &'a Uplink,
    /// Whose authority signers must be certified by.
    pub credentials: &'a Credentials,
    /// What was seen and used before.
    pub known: &'a Known,
    /// What is done with what nobody signed.
    pub unsigned: Unsigned,
}

impl Verifier<'_> {
    /// Fetches signatures and what the task's version holds, and verifies all of it.
    ///
    /// # Errors  [`Error::Declined`] saying what does not hold; [`Error::Client`]
    pub async fn vouch(&self, task: &TaskHead, reference: ReferenceHead) -> Result<Vouched> {
        let published = self.published(&reference).await?;
        let asked = self.asked(task, &reference).await?;
        let held = self.held(&reference, task.task.version).await?;
        if let Some((statement, first)) = &published {
            self.check_publishers(&reference, statement, first, &held)?;
        }
        Ok(Vouched { reference, held, published: published.map(|(statement, _)| statement), asked })
    }

    /// What the reference's publisher signed, with what its first version holds.
    async fn published(
        &self,
        reference: &ReferenceHead,
    ) -> Result<Option<(Statement, BTreeMap<ConditionKey, BlobRef>)>> {
        let ReferenceHead { name, publisher, .. } = reference;
        let what = format!("reference `{name}`");
        let Some(signature) = self.uplink.signature(Subject::Reference(name.clone())).await? else {
            return self.check_unsigned(&what, publisher).map(|()| None);
        };
        let first = VersionId(signature.of);
        let statement = Statement::of_reference(name, first, signature.signed_ms);
        self.check_signer(&what, publisher, &statement, &signature)?;
        let used = self.known.references.get(name).filter(|used| used.of != signature.of);
        if used.is_some_and(|used| used.signed_ms > signature.signed_ms) {
            return declined(format!("{what} was published so before one of this name that was used here"));
        }
        let held = self.held(reference, first).await?;
        Ok(Some((statement, held)))
    }

    /// What the task's publisher signed.
    async fn asked(&self, task: &TaskHead, reference: &ReferenceHead) -> Result<Option<Statement>> {
        let what = format!("task {}", task.id);
        let Some(signature) = self.uplink.signature(Subject::Task(task.id)).await? else {
            return self.check_unsigned(&what, &task.publisher).map(|()| None);
        };
        let statement = Statement::of_task(&task.task, signature.signed_ms)?;
        self.check_signer(&what, &task.publisher, &statement, &signature)?;
        if let Some(other) = self.known.taken.get(&statement.digest()).filter(|other| **other != task.id) {
            return declined(format!("{what} is task {other}, which was taken here, once more"));
        }
        let version = task.task.version;
        let used = self.known.versions.get(&reference.name).filter(|used| used.of != version.0);
        if used.is_some_and(|used| used.signed_ms > signature.signed_ms) {
            let version = version.0.short();
            return declined(format!("{what} maps onto version {version}, which is older than one that was used here"));
        }
        Ok(Some(statement))
    }

    /// What a version holds, once it hashes to the version's id over the reference's base.
    async fn held(&self, reference: &ReferenceHead, version: VersionId) -> Result<BTreeMap<ConditionKey, BlobRef>> {
        let (name, short) = (&reference.name, version.0.short());
        let held = match self.uplink.conditions(name, version).await {
            Err(Error::Client(ClientError::Refused(Refusal::NotFound { .. }))) => {
                return declined(format!("the coordinators have no version {short} of reference `{name}`"));
            }
            held => held?,
        };
        match Version::id_of(reference.base, &held) == version {
            true => Ok(held),
            false => declined(format!(
                "version {short} of reference `{name}` has another base, or other columns, than its id says"
            )),
        }
    }

    /// Whether the publisher's own columns of a version are those that were signed.
    fn check_publishers(
        &self,
        reference: &ReferenceHead,
        statement: &Statement,
        first: &BTreeMap<ConditionKey, BlobRef>,
        held: &BTreeMap<ConditionKey, BlobRef>,
    ) -> Result<()> {
        let publisher = &reference.publisher;
        let is_forged =
            |(key, blob): &(&ConditionKey, &BlobRef)| key.owner().name() == publisher && first.get(key) != Some(blob);
        match held.iter().find(is_forged) {
            None => Ok(()),
            Some((key, _)) => {
                let signed = statement.of.short();
                declined(format!("columns of `{key}` are not those of version {signed} that `{publisher}` signed"))
            }
        }
    }

    fn check_signer(&self, what: &str, publisher: &Name, statement: &Statement, signature: &Signature) -> Result<()> {
        let signer = match self.credentials.signer(statement, signature) {
            Ok(signer) => signer,
            Err(error) => return declined(format!("{what} is not what `{publisher}` signed: {error}")),
        };
        if signer.person() != Some(publisher) || !signer.may(Role::Publisher) {
            return declined(format!("{what} is signed by `{signer}`, and said to be published by `{publisher}`"));
        }
        if signature.signed_ms > now_ms().saturating_add(AHEAD_MS) {
            return declined(format!("{what} is signed for a time that has not come: compare clocks"));
        }
        Ok(())
    }

    fn check_unsigned(&self, what: &str, publisher: &Name) -> Result<()> {
        match self.unsigned {
            Unsigned::Accept => Ok(()),
            Unsigned::UntilSigned if !self.known.signers.contains(publisher) => Ok(()),
            Unsigned::UntilSigned => {
                declined(format!("{what} is not signed, and `{publisher}` signs what they publish"))
            }
            Unsigned::Refuse => declined(format!("{what} is not signed, and the policy takes nothing unsigned")),
        }
    }
}

fn declined<T>(detail: String) -> Result<T> {
    Err(Error::Declined { bound: Bound::Signature, detail })
}

/// How far a publisher's clock may be ahead: certificates are made for the last hour too.
const AHEAD_MS: u64 = 3_600_000;
/// A line for each task that was ever taken.
const MAX_BYTES: u64 = 1024 * limits::TASKS as u64;
