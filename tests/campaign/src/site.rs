//! A site as a process: takes orders, claims tasks, fetches the base, uploads columns and embeddings, submits, and writes
//! down what was acknowledged before it says so. It is what a worker is between its trainings.

use std::{collections::BTreeSet, io::BufRead as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use archipelago_client::{Client, ClientConfig, ClientError, Patience, Source};
use archipelago_common::{
    BlobRef, Digest, TaskId, limits,
    record::{AssignmentState, Progress, ReferenceHead, Submission, SubmittedCondition, TaskRecord},
};
use archipelago_histories::{Answer, Call, Seen};
use archipelago_protocol::message::{Refusal, Reply, Request};
use archipelago_transport::{Credentials, net::Network};
use tokio::sync::mpsc;

use crate::{
    args::SiteArgs,
    event::{Event, Order, Step, Transfer},
    journal::{Journal, SiteEntry},
    payload,
    recorder::Recorder,
    stage::base_path,
};

/// Works until stdin ends.
pub fn run(args: &SiteArgs) -> Result<()> {
    let (sender, orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(order) if sender.send(order).is_ok() => {}
                _ => return,
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worked = runtime.block_on(async { Site::start(args).await?.work(orders).await });
    if let Err(error) = &worked {
        tell(Step::Failed { reason: format!("{error:#}") });
    }
    worked
}

struct Site {
    args: SiteArgs,
    client: Client,
    journal: Journal<SiteEntry>,
    recorder: Recorder,
    acknowledged: BTreeSet<TaskId>,
    fetched: BTreeSet<Digest>,
}

/// What became of an attempt to claim.
enum Claim {
    Epoch(u64),
    Refused(Refusal),
}

impl Site {
    async fn start(args: &SiteArgs) -> Result<Self> {
        let file = |name: &str| args.dir.join(name);
        let credentials = Credentials::load(&file("ca.pem"), &file("cert.pem"), &file("key.pem"))?;
        let client = Client::connect(ClientConfig {
            coordinators: args.coordinators.clone(),
            credentials,
            software: "campaign".to_owned(),
            patience: Patience::Forever,
            known: None,
            network: Network::configured(None, None).map_err(anyhow::Error::msg)?,
        });
        let (journal, entries) = Journal::open(&journal_path(&args.dir))?;
        let acknowledged = entries.iter().filter_map(|entry| match entry {
            SiteEntry::Acknowledged { submission, .. } => Some(submission.task),
            SiteEntry::Sending(_) => None,
        });
        let acknowledged = acknowledged.collect();
        let (args, recorder, fetched) = (args.clone(), Recorder::open(&args.dir)?, BTreeSet::new());
        Ok(Self { args, client: client.await?, journal, recorder, acknowledged, fetched })
    }

    async fn work(mut self, mut orders: mpsc::UnboundedReceiver<Order>) -> Result<()> {
        tell(Step::Ready);
        while let Some(order) = orders.recv().await {
            if !self.acknowledged.contains(&order.task) {
                self.carry_out(order).await.with_context(|| format!("task {}", order.task))?;
            } else {
                // Killed after the journal and before the word.
                tell(Step::Acknowledged { task: order.task });
            }
        }
        Ok(())
    }

    /// Claims, fetches, uploads, submits; again from the start if the lease was lost on the way.
    async fn carry_out(&mut self, Order { task, embeddings, wait_ms, holds }: Order) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let epoch = match self.claim(task).await? {
                Claim::Epoch(epoch) => epoch,
                Claim::Refused(refusal) => {
                    tell(Step::Refused { task, reason: refusal.to_string() });
                    return Ok(());
                }
            };
            tell(Step::Claimed { task, epoch });
            let record = self.show(task).await?;
            self.fetch_base(&record).await?;
            let done = Progress { epochs_done: 1, epochs_planned: 1, loss: None };
            match self.client.request(Request::Renew { task, epoch, progress: done }).await {
                // Stale and conflict are judged by what the submission is told.
                Ok(_) | Err(ClientError::Refused(Refusal::Stale { .. } | Refusal::Conflict { .. })) => {}
                Err(error) => return Err(error.into()),
            }
            if holds {
                self.hold(task, epoch).await?;
            }
            let submission = self.upload(&record, epoch, embeddings).await?;
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            self.journal.append(&SiteEntry::Sending(submission.clone()))?;
            tell(Step::Submitting { task });
            match self.submit(&record, &submission).await? {
                Ok(Reply::Accepted { version }) => {
                    self.journal.append(&SiteEntry::Acknowledged { submission, version })?;
                    self.acknowledged.insert(task);
                    tell(Step::Acknowledged { task });
                    return Ok(());
                }
                Ok(reply) => bail!("a submission was answered with {reply:?}"),
                // The lease is lost, or blobs are: both are made good by doing it again.
                Err(ClientError::Refused(Refusal::Stale { .. } | Refusal::MissingBlobs { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("the submission was not accepted in {ATTEMPTS} attempts")
    }

    async fn submit(&self, record: &TaskRecord, submission: &Submission) -> Result<Result<Reply, ClientError>> {
        let call = Call::Submit {
            reference: record.task.reference.clone(),
            task: submission.task,
            site: self.args.site.clone(),
            epoch: submission.epoch,
            columns: submission.conditions.iter().map(|(key, given)| (key.clone(), given.columns)).collect(),
        };
        let asked = self.client.request(Request::Submit(submission.clone()));
        let accepted = |reply: &Reply| match reply {
            Reply::Accepted { version } => Some(Answer::Accepted { version: *version }),
            _ => None,
        };
        self.recorder.ask(call, asked, accepted).await
    }

    async fn claim(&self, task: TaskId) -> Result<Claim> {
        let (call, asked) = (Call::Claim { task, site: self.args.site.clone() }, Request::Claim { task });
        let assigned = |reply: &Reply| match reply {
            Reply::Assigned { epoch, .. } => Some(Answer::Assigned { epoch: *epoch }),
            _ => None,
        };
        match self.recorder.ask(call, self.client.request(asked), assigned).await? {
            Ok(Reply::Assigned { epoch, .. }) => Ok(Claim::Epoch(epoch)),
            Ok(reply) => bail!("a claim was answered with {reply:?}"),
            Err(ClientError::Refused(refusal @ Refusal::Conflict { .. })) => {
                // Accepted before a kill that the answer did not survive; the same submission gets the same answer.
                let record = self.show(task).await?;
                let own = record.assignments.get(&self.args.site);
                Ok(match own.map(|own| (&own.state, own.epoch)) {
                    Some((AssignmentState::Accepted { .. }, epoch)) => Claim::Epoch(epoch),
                    _ => Claim::Refused(refusal),
                })
            }
            Err(ClientError::Refused(refusal @ Refusal::Stale { .. })) => Ok(Claim::Refused(refusal)),
            Err(error) => Err(error.into()),
        }
    }

    /// Trains, as it were, until the process is killed.
    async fn hold(&self, task: TaskId, epoch: u64) -> Result<()> {
        for epochs_done in 0.. {
            let progress = Progress { epochs_done, epochs_planned: u64::MAX, loss: None };
            self.client.request(Request::Renew { task, epoch, progress }).await?;
            tokio::time::sleep(EPOCH).await;
        }
        Ok(())
    }

    async fn show(&self, task: TaskId) -> Result<TaskRecord> {
        let call = Call::ShowTask { task, site: self.args.site.clone() };
        let seen = |record: &TaskRecord| {
            let Some(own) = record.assignments.get(&self.args.site) else { return Some(Answer::Unassigned) };
            let seen = match own.state {
                AssignmentState::Assigned => Seen::Assigned,
                AssignmentState::Lapsed => Seen::Lapsed,
                AssignmentState::GivenUp { .. } => Seen::GivenUp,
                AssignmentState::Accepted { .. } => Seen::Accepted,
            };
            Some(Answer::Assignment { epoch: own.epoch, seen })
        };
        Ok(self.recorder.ask(call, self.client.task(task), seen).await??)
    }

    /// Fetches a base of many chunks once; small ones are there for the other parts of the campaign.
    async fn fetch_base(&mut self, record: &TaskRecord) -> Result<()> {
        let (reference, task) = (&record.task.reference, record.id);
        let call = Call::ShowReference { reference: reference.clone() };
        let current = |head: &ReferenceHead| Some(Answer::Reference { current: head.current });
        let blob = self.recorder.ask(call, self.client.reference(reference), current).await??.base;
        if blob.size <= limits::CHUNK_BYTES || !self.fetched.insert(blob.digest) {
            return Ok(());
        }
        let path = base_path(&self.args.dir, blob, "");
        let mut tries = 0;
        // A new leader may have to fetch the base from a node that is on its way back.
        while let Err(error) = self.client.get_blob(blob, &path, |done| tell_get(task, blob, done)).await {
            tries += 1;
            if tries == FETCH_TRIES || !matches!(error, ClientError::Refused(Refusal::NotFound { .. })) {
                return Err(error.into());
            }
            tokio::time::sleep(FETCH_PAUSE).await;
        }
        tell(Step::Downloaded { task });
        Ok(std::fs::remove_file(&path)?)
    }

    async fn upload(&self, record: &TaskRecord, epoch: u64, embeddings: Option<u64>) -> Result<Submission> {
        let (task, site) = (record.id, &self.args.site);
        let embeddings = match embeddings {
            None => None,
            Some(size) => {
                let bytes = payload::bytes(self.args.seed, &format!("embeddings {site} {task}"), size);
                Some(self.put(task, &bytes).await?)
            }
        };
        let mut conditions = std::collections::BTreeMap::new();
        for (key, bytes) in payload::files(self.args.seed, site, task) {
            let columns = self.put(task, &bytes).await?;
            // A part has none.
            let embeddings = embeddings.filter(|_| !key.is_part());
            conditions.insert(key, SubmittedCondition { columns, embeddings, metrics: None });
        }
        tell(Step::Uploaded { task });
        Ok(Submission { task, epoch, version: record.task.version, conditions })
    }

    async fn put(&self, task: TaskId, bytes: &[u8]) -> Result<BlobRef> {
        let blob = BlobRef::of(bytes);
        let progress = |done| tell(Step::Uploading(Transfer { task, blob, done }));
        self.client.put_blob(blob, Source::Bytes(bytes), progress).await?;
        Ok(blob)
    }
}

/// Where a site keeps its journal.
pub fn journal_path(dir: &std::path::Path) -> PathBuf {
    dir.join("journal.jsonl")
}

fn tell_get(task: TaskId, blob: BlobRef, done: u64) {
    tell(Step::Downloading(Transfer { task, blob, done }));
}

#[expect(clippy::print_stdout, reason = "stdout is how a site talks to the campaign")]
fn tell(step: Step) {
    // A step is plain data; it always has a JSON form.
    if let Ok(line) = serde_json::to_string(&Event::now(step)) {
        println!("{line}");
    }
}

/// Claims of one task before something must be wrong.
const ATTEMPTS: u32 = 20;
/// Attempts at a base that no reachable coordinator has.
const FETCH_TRIES: u32 = 40;
/// Time between two signs of progress.
const EPOCH: Duration = Duration::from_secs(1);
const FETCH_PAUSE: Duration = Duration::from_millis(500);
