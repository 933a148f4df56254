//! `tasks`: what is asked of this site, what would leave, and where each task stands here.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use archipelago_client::{ClientConfig, Patience};
use archipelago_common::{
    act::Act,
    hash::Digest,
    id::{Name, SiteId, TaskId, VersionId},
    policy::{Approval, EmbeddingRelease},
    record::{Progress, ReferenceHead, Stage, TaskHead, TaskState},
};
use archipelago_transport::Credentials;
use clap::Args;
use serde::Serialize;

use super::audit::date;
use crate::{
    audit::Kind,
    config::SiteConfig,
    consent::{Answer, Because, Decision, Decisions},
    egress::Uplink,
    error::{Error, Result},
    holding::{self, Holding},
    ledger::{InEpsilon, Spent},
    naming::NameTable,
    offer::{Leaving, Offer, OfferedCells, OfferedData},
    output::Output,
    privacy::Loss,
    vouched::{KnownFile, Verifier, Vouched},
};

/// Show the tasks that are open for this site: who asks, what would leave of which cells, and where each stands here.
///
/// With `approve = "ask"` under `[tasks]` of the policy a task waits until somebody says `approve` or `decline`. What was decided
/// holds for exactly what is shown here, by the digest of its offer.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker tasks --config site.toml\n  \
    archipelago-worker approve 3 --config site.toml")]
pub struct TasksArgs {
    #[command(flatten)]
    site: SiteArgs,
}

/// Which site, and how long its coordinators are waited for.
#[derive(Args, Debug)]
pub struct SiteArgs {
    /// The site's configuration.
    #[arg(long, value_name = "FILE", env = "ARCHIPELAGO_SITE")]
    config: PathBuf,
    /// How long coordinators are waited for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

/// Where a task stands at this site.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Standing {
    /// Nobody has decided, and the policy asks.
    WaitsForConsent,
    /// Something else was shown when it was decided; it waits again where the policy asks.
    Changed,
    /// Somebody said yes; the worker takes it next.
    Approved,
    /// The policy asks nobody; the worker takes it next.
    Ready,
    /// Somebody said no.
    Declined {
        /// Why.
        because: Because,
    },
    /// The policy does not let the worker do it.
    PassedOver {
        /// Why.
        reason: String,
    },
    /// At work.
    Running {
        /// How far, as the coordinators were told.
        progress: Option<Progress>,
    },
    /// Accepted.
    Done {
        /// The version that holds it, once there is one.
        version: Option<VersionId>,
    },
    /// The worker gave it back, and looks at it again when it is started again.
    Returned {
        /// What the coordinators were told.
        reason: String,
    },
    /// It takes no submissions any more.
    Closed,
}

/// A task as this site sees it.
#[derive(Serialize)]
pub struct Seen {
    standing: Standing,
    /// When the publishers signed, Unix milliseconds; verified.
    signed: Signed,
    /// Digest of the offer: what a decision is about.
    digest: Digest,
    #[serde(flatten)]
    offer: Offer,
    /// What its columns would come to in differential privacy, with what has left before. Not part of the offer: other tasks change it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    privacy: Vec<InEpsilon>,
    /// What the keys of its cells stand for, where that is not what they say.
    #[serde(skip_serializing_if = "NameTable::is_empty")]
    names: NameTable,
}

/// When publishers signed a reference and a task, where they did.
#[derive(Clone, Copy, Default, Serialize)]
struct Signed {
    reference_ms: Option<u64>,
    task_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Report(Vec<Seen>);

/// Runs the command.
///
/// # Errors  a configuration, policy or cells that cannot be used; coordinators that cannot be reached
pub fn run(args: &TasksArgs, output: &Output) -> Result<()> {
    args.site.with(async |desk| {
        output.show(&Report(desk.all().await?));
        Ok(())
    })
}

/// Where a person at the site looks at tasks and decides.
pub(super) struct Desk {
    config: SiteConfig,
    holdings: Vec<Holding>,
    uplink: Uplink,
    credentials: Credentials,
    known: KnownFile,
    decisions: Decisions,
}

impl SiteArgs {
    /// The site of this configuration.
    pub(super) fn of(config: &Path) -> Self {
        Self { config: config.into(), timeout: 30 }
    }

    /// Does something at the site's desk.
    ///
    /// # Errors  a configuration that cannot be used, coordinators that cannot be reached, and what the work fails with
    pub(super) fn with<T>(&self, work: impl AsyncFnOnce(Desk) -> Result<T>) -> Result<T> {
        let config = SiteConfig::read(&self.config)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Runtime { source })?;
        runtime.block_on(async { work(Desk::open(config, Duration::from_secs(self.timeout)).await?).await })
    }
}

impl Desk {
    async fn open(config: SiteConfig, timeout: Duration) -> Result<Self> {
        let holdings = Holding::all(&config)?;
        let credentials = Credentials::load(&config.ca, &config.certificate, &config.key)?;
        let client = ClientConfig {
            coordinators: config.nodes().expect("a configuration that was read names its coordinators"),
            credentials: credentials.clone(),
            software: concat!("archipelago-worker tasks ", env!("CARGO_PKG_VERSION")).to_owned(),
            patience: Patience::Within(timeout),
            known: None,
            network: config.network().expect("a configuration that was read says how they are reached"),
        };
        let decisions = Decisions::of_site(&config.state_dir);
        let known = KnownFile::open(&config.state_dir)?;
        Ok(Self { uplink: Uplink::connect(client).await?, credentials, known, config, holdings, decisions })
    }

    /// The site, and what the coordinators have on record of it.
    pub(super) async fn acts(&self) -> Result<(SiteId, Vec<Act>)> {
        Ok((self.config.site.clone(), self.uplink.acts().await?))
    }

    /// Every task that this site may take or has taken.
    async fn all(&self) -> Result<Vec<Seen>> {
        let (mut seen, mut references) = (Vec::new(), BTreeMap::<Name, ReferenceHead>::new());
        for record in self.uplink.tasks().await? {
            let name = &record.task.reference;
            if !references.contains_key(name) {
                references.insert(name.clone(), self.uplink.reference(name).await?);
            }
            seen.push(self.look(&record, &references[name]).await?);
        }
        Ok(seen)
    }

    /// One open task, as it is now. `shown` is the offer that a person has seen, where it is named.
    pub(super) async fn one(&self, task: TaskId, shown: Option<Digest>) -> Result<Seen> {
        let found = self.uplink.tasks().await?.into_iter().find(|record| record.id == task);
        let record = found.filter(|record| record.state == TaskState::Open && record.task.allows(&self.config.site));
        let record = record.ok_or(Error::NoTask { task })?;
        let reference = self.uplink.reference(&record.task.reference).await?;
        let seen = self.look(&record, &reference).await?;
        match shown.filter(|shown| *shown != seen.digest) {
            Some(shown) => Err(Error::OfferChanged { task, shown, found: seen.digest }),
            None => Ok(seen),
        }
    }

    /// Keeps what a person says of what was shown.
    ///
    /// # Errors  [`Error::CannotApprove`] where the worker would not do it all the same
    pub(super) fn decide(&self, mut seen: Seen, answer: Answer) -> Result<Seen> {
        if let (Answer::Approved, Standing::PassedOver { reason }) = (answer, &seen.standing) {
            return Err(Error::CannotApprove { task: seen.offer.task, reason: reason.clone() });
        }
        self.decisions.decide(seen.offer.task, seen.digest, answer)?;
        seen.standing = match answer {
            Answer::Approved => Standing::Approved,
            Answer::Declined(because) => Standing::Declined { because },
        };
        Ok(seen)
    }

    async fn look(&self, record: &TaskHead, reference: &ReferenceHead) -> Result<Seen> {
        let taking_part = holding::taking_part(&self.holdings, reference, record);
        let mut obstacle = taking_part.as_ref().err().map(|obstacle| (*obstacle).to_owned());
        // Where none has a part, what would leave if they had.
        let holdings = taking_part.unwrap_or_else(|_| self.holdings.iter().collect());
        let offer = Offer::new(holdings.iter().copied(), record, reference)?;
        let digest = offer.digest();
        let decision = self.decisions.about(record.id)?;
        let (uplink, credentials, known) = (&self.uplink, &self.credentials, self.known.known());
        let verifier = Verifier { uplink, credentials, known, unsigned: holding::unsigned(&holdings) };
        let signed = match verifier.vouch(record, reference.clone()).await {
            Ok(Vouched { published, asked, .. }) => Signed {
                reference_ms: published.map(|statement| statement.signed_ms),
                task_ms: asked.map(|statement| statement.signed_ms),
            },
            Err(Error::Declined { detail, .. }) => {
                obstacle = obstacle.or(Some(detail));
                Signed::default()
            }
            Err(error) => return Err(error),
        };
        let standing = standing(record, obstacle, decision, digest, holding::approval(&holdings));
        let names = NameTable::read(&NameTable::path(&self.config.state_dir))?;
        let names = names.of(offer.cells().map(|cells| &cells.condition));
        let privacy = self.in_epsilon(record.id, &offer, reference)?;
        Ok(Seen { standing, signed, digest, offer, privacy, names })
    }

    /// What the columns of each data set would come to with this task's, where its policy gives them noise. Cells that left under another
    /// data set's name are counted when the task is begun.
    fn in_epsilon(&self, task: TaskId, offer: &Offer, reference: &ReferenceHead) -> Result<Vec<InEpsilon>> {
        let (layout, path) = (reference.summary.layout(), self.config.ledger_path());
        let spent = if path.exists() { Spent::begun(&path)? } else { Spent::default() };
        let is_new = |cells: &&OfferedCells| !spent.has(Kind::Columns, task, &cells.condition);
        let of_data = |data: &OfferedData| {
            let policy = &self.holdings.iter().find(|holding| holding.dataset == data.dataset)?.policy;
            let losses = data.cells.iter().filter(is_new);
            let losses = losses.map(|cells| Loss::of(policy, layout.axis(cells.condition.section())?));
            let with = spent.composed(&data.dataset, &[]).and(losses.collect::<Option<Vec<Loss>>>()?.into_iter());
            Some(InEpsilon::new(data.dataset.clone(), with, &policy.budget))
        };
        Ok(offer.data.iter().filter(|data| data.leaves.columns).filter_map(of_data).collect())
    }
}

fn standing(
    record: &TaskHead,
    obstacle: Option<String>,
    decision: Option<Decision>,
    offer: Digest,
    approve: Approval,
) -> Standing {
    let stage = record.own.as_ref().map(|own| &own.stage);
    if let Some(Stage::Accepted { version, .. }) = stage {
        return Standing::Done { version: *version };
    }
    if record.state != TaskState::Open {
        return Standing::Closed;
    }
    if let Some(reason) = obstacle {
        return Standing::PassedOver { reason };
    }
    let is_running = matches!(stage, Some(Stage::Assigned));
    match (decision, approve) {
        (Some(Decision { offer: of, answer: Answer::Declined(because), .. }), _) if of == offer => {
            return Standing::Declined { because };
        }
        (Some(decision), _) if decision.offer != offer && !is_running => return Standing::Changed,
        (None, Approval::Ask) if !is_running => return Standing::WaitsForConsent,
        _ => {}
    }
    match (stage, decision) {
        (Some(Stage::Assigned), _) => Standing::Running { progress: record.own.as_ref().and_then(|own| own.progress) },
        (Some(Stage::GivenUp { reason }), _) => Standing::Returned { reason: reason.clone() },
        (_, Some(_)) => Standing::Approved,
        (_, None) => Standing::Ready,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no task is open for this site");
        }
        self.0.iter().try_for_each(|seen| write!(f, "{seen}"))
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Offer { task, publisher, reference, asked, data } = &self.offer;
        writeln!(f, "task {task}  {}", self.standing)?;
        writeln!(
            f,
            "  asked by   {publisher}, to map onto `{}` ({} on {} genes) version {}, published by {}",
            reference.name,
            reference.model,
            reference.n_genes,
            asked.version.0.short(),
            reference.publisher
        )?;
        let signed = |signed_ms: Option<u64>| {
            signed_ms.map_or("not signed".to_owned(), |at_ms| format!("signed {}", date(at_ms)))
        };
        let Signed { reference_ms, task_ms } = self.signed;
        writeln!(f, "  signed     the task is {}, the reference {}", signed(task_ms), signed(reference_ms))?;
        writeln!(f, "  goes to    everybody in the consortium who may fetch `{}`", reference.name)?;
        for OfferedData { leaves, cells, .. } in data {
            writeln!(f, "  leaves     {leaves}")?;
            for OfferedCells { condition, n_cells, numbers, numbers_per_cell, bytes } in cells {
                let columns = match numbers {
                    0 => String::new(),
                    _ => format!(": {numbers} numbers in {bytes} bytes, {numbers_per_cell:.2} for each cell"),
                };
                writeln!(f, "  of         {}, {n_cells} cells{columns}", self.names.shown(condition))?;
            }
        }
        for privacy in &self.privacy {
            writeln!(f, "  with this  {privacy}")?;
        }
        writeln!(f, "  offer      {}", self.digest)
    }
}

impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let embeddings = match self.embeddings {
            EmbeddingRelease::None => None,
            EmbeddingRelease::LabelMeans { .. } => Some("mean places of labels"),
            EmbeddingRelease::Full => Some("THE PLACE OF EVERY CELL"),
        };
        let kinds = [
            self.columns.then_some("trained columns"),
            embeddings,
            self.metrics.then_some("rounded figures"),
            self.parts.then_some("parts (pooled statistics)"),
        ];
        let kinds: Vec<&str> = kinds.into_iter().flatten().collect();
        f.write_str(&if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitsForConsent => f.write_str("waits for consent"),
            Self::Changed => f.write_str("is not what was decided about"),
            Self::Approved => f.write_str("approved"),
            Self::Ready => f.write_str("ready: the policy asks nobody"),
            Self::Declined { because } => write!(f, "declined: {because}"),
            Self::PassedOver { reason } => write!(f, "passed over: {reason}"),
            Self::Running { progress: Some(Progress { epochs_done, epochs_planned, .. }) } => {
                write!(f, "running, {epochs_done} of {epochs_planned} epochs")
            }
            Self::Running { progress: None } => f.write_str("running"),
            Self::Done { version: Some(version) } => write!(f, "done, in version {}", version.0.short()),
            Self::Done { version: None } => f.write_str("done"),
            Self::Returned { reason } => write!(f, "returned: {reason}"),
            Self::Closed => f.write_str("closed"),
        }
    }
}
