//! The worker's life with the coordinators: look for tasks, do them one at a time, come back after every break.

mod admission;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use archipelago_client::{ClientConfig, ClientError, Notices, Patience};
use archipelago_common::{
    id::TaskId,
    principal::Principal,
    record::{Stage, TaskHead, TaskState},
};
use archipelago_models::Device;
use archipelago_protocol::message::{Notice, Refusal};
use archipelago_transport::Credentials;
use tokio::{sync::watch, task::JoinSet};

use self::admission::{Consent, is_told};
use crate::{
    audit::AuditLog,
    bounds::Bound,
    checkpoint::{Checkpoints, EPOCHS_PER_CHECKPOINT},
    config::SiteConfig,
    consent::{Because, Decisions},
    data::SiteData,
    egress::{Gate, Lease, Uplink},
    error::{Error, Result},
    faults::{Aside, Reach},
    holding::{self, Holding},
    ledger::Ledger,
    naming::Names,
    ops::{Metrics, TaskEnd},
    output,
    renewal::{self, Renewal},
    secret::SiteSecret,
    surgery_task::SurgeryTask,
    task_summary::TaskSummary,
    vouched::{KnownFile, Vouched},
};

/// What a coordinator is told when a site returns a task. A closed list: no path, name of a cell or value can be in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// The data and the panel share no gene.
    NoCommonGenes,
    /// The site's data cannot be used at the moment.
    DataUnusable,
    /// Every batch is part of the reference already, too small for the task, or kept by the site's policy.
    NothingMayLeave,
    /// The reference's files do not verify or cannot be read.
    ReferenceUnusable,
    /// The model or its options do not allow exact surgery here.
    SurgeryImpossible,
    /// Training did not converge to finite numbers.
    Diverged,
    /// The coordinator refused the submission.
    SubmissionRefused,
    /// Something at the site failed that has nothing to do with the task.
    LocalFault,
    /// The site's policy does not allow such a task.
    Declined(Bound),
    /// A person at the site said no.
    NotWanted(Because),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCommonGenes => "the site's data and the reference's panel share no gene",
            Self::DataUnusable => "the site's data cannot be used",
            Self::NothingMayLeave => "no batch of the site is new to the reference, large enough and allowed to leave",
            Self::ReferenceUnusable => "the reference cannot be read or does not verify",
            Self::SurgeryImpossible => "this reference does not allow surgery at the site",
            Self::Diverged => "training diverged",
            Self::SubmissionRefused => "the submission was refused",
            Self::LocalFault => "a fault at the site",
            Self::Declined(bound) => return write!(f, "declined by the site: {bound}"),
            Self::NotWanted(because) => return write!(f, "declined by a person at the site: {because}"),
        })
    }
}

impl Reason {
    /// The reason that tells a coordinator about an error as much as it may know.
    pub fn of(error: &Error) -> Self {
        use archipelago_anndata::Error as Anndata;
        use archipelago_models::Error as Models;
        match error {
            Error::Cells { source: Anndata::NoCommonGenes { .. }, .. } => Self::NoCommonGenes,
            Error::Cells { source: Anndata::Scratch { .. }, .. } => Self::LocalFault,
            Error::Anndata(Anndata::Scratch { .. } | Anndata::Io { .. }) => Self::LocalFault,
            Error::Cells { .. }
            | Error::Anndata(_)
            | Error::UnknownBatch { .. }
            | Error::MissingValues { .. }
            | Error::WrongValues { .. }
            | Error::WrongPlace { .. }
            | Error::FieldNotGiven { .. }
            | Error::Models(Models::MissingField { .. }) => Self::DataUnusable,
            Error::Withheld { .. } => Self::NothingMayLeave,
            Error::Declined { bound, .. } => Self::Declined(*bound),
            Error::MayNotRead { .. } => Self::Declined(Bound::Reading),
            Error::NotWanted { because } => Self::NotWanted(*because),
            Error::Reference { .. } | Error::OtherCard { .. } | Error::Client(ClientError::Transfer { .. }) => {
                Self::ReferenceUnusable
            }
            Error::Diverged { .. } | Error::Models(Models::Diverged { .. }) => Self::Diverged,
            Error::Models(_) => Self::SurgeryImpossible,
            Error::Client(ClientError::Refused(_)) => Self::SubmissionRefused,
            _ => Self::LocalFault,
        }
    }
}

/// When `serve` ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// Never.
    Stopped,
    /// When a task was submitted and accepted, or there is none left that can be done here.
    FirstAccepted,
}

/// A site at work.
pub struct Site {
    pub(crate) config: SiteConfig,
    /// Its data sets.
    pub(crate) holdings: Vec<Holding>,
    pub(crate) gate: Gate,
    pub(crate) uplink: Uplink,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) device: Device,
    stop: watch::Receiver<bool>,
    credentials: Credentials,
    // What goes on beside the work: keeps the certificate from ending, and watches contact and log. Ends with the site.
    _beside: JoinSet<()>,
    pub(crate) decisions: Decisions,
    known: KnownFile,
    // Tasks that wait for a person's consent, and when that was last said.
    awaiting: BTreeMap<TaskId, Instant>,
    // Tasks returned or passed over since the worker started; a restart looks at them again.
    aside: Aside,
    // What was wrong with the last task since then that cannot be done here.
    failed: Option<Error>,
}

impl Site {
    /// Checks everything that can be checked alone (credentials, policy, data, audit log), then begins to call.
    ///
    /// # Errors  what is wrong with the configuration, the data or the state directory
    pub async fn open(
        config: SiteConfig,
        device: Device,
        metrics: Arc<Metrics>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self> {
        let files = config.credential_files();
        renewal::settle(&files)?;
        let credentials = files.load()?;
        let certified = &credentials.identity().principal;
        if *certified != Principal::Site(config.site.clone()) {
            return Err(Error::WrongIdentity { expected: config.site.clone(), found: certified.to_string() });
        }
        archipelago_common::fs::create_private_dir(&config.state_dir)?;
        archipelago_common::fs::create_dir(&config.out_dir)?;
        archipelago_common::fs::create_dir(&config.scratch)?;
        let secret = SiteSecret::of_site(&config.state_dir)?;
        let holdings = Holding::all(&config)?;
        let policies = holding::policies(&config, &holdings)?;
        for holding in &holdings {
            // What cannot be written is known before the first task, not after its last epoch.
            SiteData::open(holding.spec.clone())?.check_writable()?;
        }
        if holdings.iter().any(|holding| holding.naming.names() == Names::Opaque) {
            tracing::info!("batches leave under ids; `archipelago-worker names` shows which is which");
        }
        let logs = (AuditLog::open(&config.audit_path())?, Ledger::open(&config.ledger_path())?);
        let coordinators = config.nodes().expect("a configuration that was read names its coordinators");
        let software = concat!("archipelago-worker ", env!("CARGO_PKG_VERSION")).to_owned();
        tracing::info!(site = %config.site, n_coordinators = coordinators.len(), "calling the coordinators");
        let known = Some(config.state_dir.join("coordinators"));
        let network = config.network().expect("a configuration that was read says how they are reached");
        let client = ClientConfig {
            coordinators,
            credentials: credentials.clone(),
            software,
            patience: Patience::Forever,
            known,
            network,
        };
        metrics.watch_certificate(credentials.clone());
        let uplink = Uplink::connect(client).await?;
        let mut beside = JoinSet::new();
        beside.spawn(files.keep(credentials.clone()));
        let (contacts, shown) = (uplink.contact(), metrics.clone());
        beside.spawn(async move { shown.follow(contacts).await });
        let (audit, shown) = (config.audit_path(), metrics.clone());
        beside.spawn(async move { shown.watch_audit(audit).await });
        beside.spawn(Renewal::new(&config, credentials.clone()).keep(uplink.clone()));
        Ok(Self {
            gate: Gate::new(config.site.clone(), policies, secret, logs, metrics.clone()),
            uplink,
            _beside: beside,
            checkpoints: Checkpoints::open(&config.state_dir.join("checkpoints"), EPOCHS_PER_CHECKPOINT)?,
            decisions: Decisions::of_site(&config.state_dir),
            known: KnownFile::open(&config.state_dir)?,
            credentials,
            awaiting: BTreeMap::new(),
            config,
            holdings,
            metrics,
            device,
            stop,
            aside: Aside::default(),
            failed: None,
        })
    }

    /// Takes tasks until told to stop, or until one was accepted.
    ///
    /// # Errors  [`Error::Client`] if every coordinator shuts this site out; where one task was to be done, what was wrong with the last of
    /// all there are, such as [`Error::Declined`], and [`Error::AwaitsConsent`] where one waits for a person; else what goes wrong with
    /// a task is told to the coordinator and logged, and the work goes on
    pub async fn serve(&mut self, until: Until) -> Result<()> {
        let mut notices = self.uplink.notices();
        let mut stop = self.stop.clone();
        loop {
            let round = self.round(&mut notices, until);
            let accepted = tokio::select! {
                accepted = round => accepted?,
                _ = stop.wait_for(|stop| *stop) => {
                    tracing::info!("stopping; finished conditions are kept for the next start");
                    return Ok(());
                }
            };
            if accepted && until == Until::FirstAccepted {
                return Ok(());
            }
        }
    }

    /// Does the first task there is, or waits until there may be one. Says whether a task was accepted.
    async fn round(&mut self, notices: &mut Notices, until: Until) -> Result<bool> {
        // Before any of them is read, so that none is missed that comes meanwhile.
        let decided = self.decisions.snapshot();
        let tasks = match in_contact(&self.metrics, self.uplink.tasks()).await {
            Ok(tasks) => tasks,
            Err(error) => {
                bear(error, "the tasks cannot be listed")?;
                wait_for_news(notices, AFTER_FAULT).await;
                return Ok(false);
            }
        };
        for task in &tasks {
            match self.note_accepted(task) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => bear(error, "the summary of an accepted task cannot be written")?,
            }
        }
        let mut awaited = Vec::new();
        for task in tasks.iter().filter(|task| self.is_ours(task)).cloned().collect::<Vec<_>>() {
            let Some(reference) = self.can_serve(&task).await? else { continue };
            let Some(vouched) = self.vouch(&task, reference).await? else { continue };
            match self.consent(&task, &vouched.reference).await {
                Ok(Consent::Given) => return self.perform(&task, vouched).await,
                // Not aside: whoever changes their mind is heard.
                Ok(Consent::Refused(because)) if is_told(&task, &Error::NotWanted { because }) => {
                    self.failed = Some(Error::NotWanted { because });
                }
                Ok(Consent::Refused(because)) => {
                    return self.hand_back(&task, Error::NotWanted { because }).await.map(|()| false);
                }
                Ok(Consent::Awaited) => awaited.push(task.id),
                Err(error) => {
                    awaited.push(task.id);
                    bear(error, "it cannot be told whether a person consents to a task")?;
                }
            }
        }
        self.metrics.awaiting_consent.set(awaited.len() as i64);
        self.say_awaited(&awaited);
        if until == Until::FirstAccepted {
            if let Some(&task) = awaited.first() {
                return Err(Error::AwaitsConsent { task });
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
        }
        let now = Instant::now();
        let pause = self.aside.next(now).map_or(LOOK_AGAIN, |next| LOOK_AGAIN.min(next.saturating_duration_since(now)));
        tokio::select! {
            () = wait_for_news(notices, pause) => {}
            () = self.decisions.changed(&decided) => {}
        }
        Ok(false)
    }

    /// Puts a task aside as far as its fault reaches.
    fn put_aside(&mut self, task: TaskId, error: &Error) {
        match Reach::of(error) {
            Reach::Passing => {
                let pause = self.aside.put_for_a_while(task, Instant::now());
                tracing::info!(%task, pause_s = pause.as_secs(), "the task is looked at again after a while");
            }
            Reach::Task | Reach::Worker => self.aside.put(task),
        }
    }

    /// Whether the record says that a result was accepted of which this worker, killed meanwhile, never heard.
    fn note_accepted(&self, record: &TaskHead) -> Result<bool> {
        let Some(Stage::Accepted { version, .. }) = record.own.as_ref().map(|own| &own.stage) else {
            return Ok(false);
        };
        let mut is_news = false;
        for holding in &self.holdings {
            let dir = self.config.results_dir(record.id, &holding.dataset);
            is_news |= TaskSummary::mark_accepted(&dir, *version)?;
        }
        if is_news {
            tracing::info!(task = %record.id, "accepted before this start");
            self.metrics.count_task(TaskEnd::Accepted);
        }
        Ok(is_news)
    }

    fn is_ours(&self, record: &TaskHead) -> bool {
        let stage = record.own.as_ref().map(|own| &own.stage);
        record.state == TaskState::Open
            && record.task.allows(&self.config.site)
            && !matches!(stage, Some(Stage::Accepted { .. }))
            && !self.aside.has(record.id, Instant::now())
    }

    /// Does a task to its end, whatever that is. Says whether it was accepted.
    async fn perform(&mut self, record: &TaskHead, vouched: Vouched) -> Result<bool> {
        let task = record.id;
        if let Err(error) = self.known.note_used(record, &vouched) {
            self.put_aside(task, &error);
            return bear(error, "it cannot be kept what is used of a reference").map(|()| false);
        }
        let lease = match self.uplink.claim(task).await {
            Ok(lease) => lease,
            Err(Error::Client(ClientError::Refused(refusal))) => {
                tracing::info!(%task, %refusal, "the task could not be claimed");
                self.aside.put(task);
                return Ok(false);
            }
            Err(error) => {
                self.put_aside(task, &error);
                return bear(error, "a task cannot be claimed").map(|()| false);
            }
        };
        tracing::info!(%task, epoch = lease.epoch, reference = %record.task.reference, "claimed");
        let (done, lease) = {
            let mut work = SurgeryTask::new(self, record, vouched, lease);
            let done = work.run().await;
            (done, work.lease())
        };
        self.metrics.set_progress(None);
        match done {
            Ok(version) => {
                let version = version.map(|version| version.0.short());
                tracing::info!(%task, version, "accepted");
                self.metrics.count_task(TaskEnd::Accepted);
                Ok(true)
            }
            Err(error) => self.give_up(lease, error).await.map(|()| false),
        }
    }

    /// Returns a task that failed, unless it is over anyway or the coordinators shut this site out.
    async fn give_up(&mut self, lease: Lease, error: Error) -> Result<()> {
        let task = lease.task;
        if Reach::of(&error) == Reach::Worker {
            return Err(error);
        }
        if !matches!(error, Error::NotWanted { .. }) {
            self.put_aside(task, &error);
        }
        let end = match &error {
            Error::Client(ClientError::Refused(_)) => TaskEnd::Refused,
            _ => TaskEnd::GivenUp,
        };
        self.metrics.count_task(end);
        if let Error::Client(ClientError::Refused(Refusal::Stale { reason })) = &error {
            tracing::warn!(%task, reason, "the task ended before its result could be handed in");
            return Ok(());
        }
        let reason = Reason::of(&error);
        match &error {
            Error::NotWanted { .. } => tracing::info!(%task, %reason, "the task is returned"),
            _ => tracing::error!(%task, %reason, error = output::chain(&error), "the task is returned"),
        }
        // What was told of progress, and what a person decided, is in the log too.
        if let Err(error) = self.anchor().await {
            bear(error, "the coordinators were not told how far the audit log is")?;
        }
        let returned = self.uplink.give_up(lease, reason).await;
        if Reach::of(&error) == Reach::Task {
            self.failed = Some(error);
        }
        match returned {
            Err(Error::Client(ClientError::Refused(refusal))) => {
                tracing::info!(%task, %refusal, "the coordinator had taken it back already");
                Ok(())
            }
            Err(error) => bear(error, "a task cannot be returned; its lease will lapse"),
            Ok(()) => Ok(()),
        }
    }
}

/// Goes on after a fault that is somebody else's, or local and of one task. It is told here, at the site.
///
/// # Errors  the same where it reaches the worker itself
fn bear(error: Error, what: &'static str) -> Result<()> {
    if Reach::of(&error) == Reach::Worker {
        return Err(error);
    }
    tracing::warn!(error = output::chain(&error), "{what}");
    Ok(())
}

/// Waits for an answer, and tells `/readyz` how the wait goes.
pub(crate) async fn in_contact<T>(metrics: &Metrics, asked: impl Future<Output = Result<T>>) -> Result<T> {
    let mut asked = std::pin::pin!(asked);
    loop {
        tokio::select! {
            answer = &mut asked => {
                metrics.set_connected(answer.is_ok());
                return answer;
            }
            () = tokio::time::sleep(SILENCE) => metrics.set_connected(false),
        }
    }
}

async fn wait_for_news(notices: &mut Notices, at_most: Duration) {
    let news = async {
        while let Some(notice) = notices.next().await {
            if notice == Notice::TasksChanged {
                return;
            }
        }
    };
    // A notice may be lost with a session; looking again now and then costs one small question.
    let _ = tokio::time::timeout(at_most, news).await;
}

/// No answer for this long counts as no contact.
const SILENCE: Duration = Duration::from_secs(5);
/// How soon a worker asks again that got no answer.
const AFTER_FAULT: Duration = Duration::from_secs(5);
/// How often an idle worker asks for tasks unasked.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_tells_nothing_of_paths_cells_or_values() {
        let source =
            archipelago_anndata::Error::NotCounts { cell_row: 7, gene: "LYZ".to_owned(), value: -3.5, counted: vec![] };
        let error = Error::Cells { path: "/clinic/patients.h5ad".into(), source };
        assert_eq!(Reason::of(&error).to_string(), "the site's data cannot be used");
        let file = Error::File { action: "write", path: "/clinic/x".into(), source: std::io::Error::other("full") };
        assert_eq!(Reason::of(&file), Reason::LocalFault);
    }
}
