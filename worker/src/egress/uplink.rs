//! The connection to the coordinators, behind the gate.
//!
//! The client is private to this file. What a site says goes through the methods below: questions that carry nothing
//! of the data, reasons from a closed list, hashes of the audit log's entries, and [`Released`] values.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use archipelago_client::{Client, ClientConfig, ClientError, Contacts, Notices, Source};
use archipelago_common::{
    act::{Act, Anchored},
    blob::BlobRef,
    condition::{Columns, ConditionKey},
    enrolment::EnrolmentRecord,
    hash::Digest,
    id::{Name, SiteId, TaskId, VersionId},
    part::Member,
    record::{Progress, ReferenceHead, Submission, SubmittedCondition, TaskHead},
    signature::{Signature, Subject},
    task::ConditionMetrics,
};
use archipelago_protocol::message::{Refusal, Reply, Request, Which};

use super::{Embeddings, Released};
use crate::{
    error::{Error, Result},
    session::Reason,
};

/// A site's line to the coordinators.
#[derive(Clone)]
pub struct Uplink {
    client: Client,
}

/// A lease on a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The task.
    pub task: TaskId,
    /// The assignment's epoch; goes into everything said about it.
    pub epoch: u64,
}

/// A condition that may leave, part by part.
#[derive(Debug)]
pub struct ReleasedCondition {
    /// Its columns.
    pub columns: Released<Columns>,
    /// Its embeddings, where policy and task agree on them.
    pub embeddings: Option<Released<Embeddings>>,
    /// Its figures, where the policy lets them out.
    pub metrics: Option<Released<ConditionMetrics>>,
}

impl Uplink {
    /// Starts a session that comes back for ever.
    ///
    /// # Errors  [`Error::Client`] without any coordinator
    pub async fn connect(config: ClientConfig) -> Result<Self> {
        Ok(Self { client: Client::connect(config).await? })
    }

    /// What the coordinators say unasked.
    pub fn notices(&self) -> Notices {
        self.client.notices()
    }

    /// How things stand with the coordinators.
    pub fn contact(&self) -> Contacts {
        self.client.contact()
    }

    /// The tasks that this site may take or has taken.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn tasks(&self) -> Result<Vec<TaskHead>> {
        Ok(self.client.tasks(Which::All).await?)
    }

    /// What a reference is.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn reference(&self, name: &Name) -> Result<ReferenceHead> {
        Ok(self.client.reference(name).await?)
    }

    /// The conditions of one owner that are in a version.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn merged(&self, reference: &Name, version: VersionId, owner: &SiteId) -> Result<BTreeSet<ConditionKey>> {
        Ok(self.client.conditions(reference, version, Some(owner)).await?.into_keys().collect())
    }

    /// What a version holds, as the coordinators say.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn conditions(&self, reference: &Name, version: VersionId) -> Result<BTreeMap<ConditionKey, BlobRef>> {
        Ok(self.client.conditions(reference, version, None).await?)
    }

    /// Who vouches for a reference or a task, as it comes.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn signature(&self, of: Subject) -> Result<Option<Signature>> {
        Ok(self.client.signature(of).await?)
    }

    /// Asks to have another key of the site's certified. What leaves is its public half, the site's name and a signature of that.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn renew_certificate(&self, request: String, signature: Signature) -> Result<EnrolmentRecord> {
        let signature = Box::new(signature);
        match self.ask(Request::RenewCertificate { request, signature }).await? {
            Reply::Enrolment(record) => Ok(*record),
            other => Err(unexpected(&other)),
        }
    }

    /// What came of the site's last request for a certificate, if there is one.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn enrolment(&self) -> Result<Option<EnrolmentRecord>> {
        match self.ask(Request::ShowEnrolment).await {
            Ok(Reply::Enrolment(record)) => Ok(Some(*record)),
            Ok(other) => Err(unexpected(&other)),
            Err(Error::Client(ClientError::Refused(Refusal::NotFound { .. }))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How far the site's own log is, as it said last; none where coordinators of an earlier version do not ask.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn anchored(&self) -> Result<Option<Anchored>> {
        match self.ask(Request::ShowAnchor).await {
            Ok(Reply::Anchored(anchored)) => Ok(Some(anchored)),
            Ok(other) => Err(unexpected(&other)),
            Err(Error::Client(ClientError::Refused(Refusal::Invalid { .. }))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says how far the site's own log is. What leaves is hashes of its entries.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn anchor(&self, after: Anchored, hashes: Vec<Digest>) -> Result<()> {
        match self.ask(Request::Anchor { after, hashes }).await {
            Ok(Reply::Released) => Ok(()),
            Ok(other) => Err(unexpected(&other)),
            // While coordinators are upgraded one after the other; the next release comes back to it.
            Err(Error::Client(ClientError::Refused(refusal @ Refusal::Invalid { .. }))) => {
                tracing::warn!(%refusal, "the audit log is not anchored yet");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What the coordinators have on record of this site.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn acts(&self) -> Result<Vec<Act>> {
        Ok(self.client.acts(0).await?)
    }

    /// Downloads a blob to a file, verified.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn fetch(&self, blob: BlobRef, path: &Path) -> Result<()> {
        Ok(self.client.get_blob(blob, path, |_| ()).await?)
    }

    /// Takes a task.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn claim(&self, task: TaskId) -> Result<Lease> {
        match self.ask(Request::Claim { task }).await? {
            Reply::Assigned { epoch, .. } => Ok(Lease { task, epoch }),
            other => Err(unexpected(&other)),
        }
    }

    /// Reports progress, which keeps the lease.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn renew(&self, lease: Lease, progress: Released<Progress>) -> Result<()> {
        let Lease { task, epoch } = lease;
        match self.ask(Request::Renew { task, epoch, progress: progress.value }).await? {
            Reply::Assigned { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns a task undone.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn give_up(&self, lease: Lease, reason: Reason) -> Result<()> {
        let Lease { task, epoch } = lease;
        match self.ask(Request::GiveUp { task, epoch, reason: reason.to_string() }).await? {
            Reply::Released => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Uploads what was released and hands it in. Returns when it is durable and accepted, with the version that holds
    /// it if there is one already.
    ///
    /// # Errors  [`Error::Client`]
    pub async fn submit(
        &self,
        lease: Lease,
        version: VersionId,
        conditions: &BTreeMap<ConditionKey, ReleasedCondition>,
        parts: &BTreeMap<ConditionKey, Released<Member>>,
    ) -> Result<Option<VersionId>> {
        let mut submitted = BTreeMap::new();
        for (key, condition) in conditions {
            self.put(&condition.columns).await?;
            if let Some(embeddings) = &condition.embeddings {
                self.put(embeddings).await?;
            }
            let columns = condition.columns.blob();
            let embeddings = condition.embeddings.as_ref().map(Released::blob);
            let metrics = condition.metrics.as_ref().map(|metrics| metrics.value.clone());
            submitted.insert(key.clone(), SubmittedCondition { columns, embeddings, metrics });
        }
        for (key, member) in parts {
            self.put(member).await?;
            let part = SubmittedCondition { columns: member.blob(), embeddings: None, metrics: None };
            submitted.insert(key.clone(), part);
        }
        let Lease { task, epoch } = lease;
        match self.ask(Request::Submit(Submission { task, epoch, version, conditions: submitted })).await? {
            Reply::Accepted { version } => Ok(version),
            other => Err(unexpected(&other)),
        }
    }

    async fn put<T>(&self, released: &Released<T>) -> Result<()> {
        Ok(self.client.put_blob(released.blob, Source::Bytes(&released.bytes), |_| ()).await?)
    }

    async fn ask(&self, request: Request) -> Result<Reply> {
        Ok(self.client.request(request).await?)
    }
}

fn unexpected(reply: &Reply) -> Error {
    // The variant's name only: an answer may be long.
    let text = format!("{reply:?}");
    Error::UnexpectedReply { found: text.split([' ', '(', '{']).next().unwrap_or_default().to_owned() }
}
