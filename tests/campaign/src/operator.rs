//! The operator as a client of the product's library: publishes, closes, looks, and writes down what was acknowledged.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use archipelago_client::{Client, ClientConfig, ClientError, Patience, Source};
use archipelago_common::{
    BlobRef, Name, NodeId, SiteId, TaskId, Version,
    enrolment::CertifiedKey,
    record::{ReferenceRecord, SiteRecord, StatusRecord, TaskRecord},
    task::SurgeryTask,
};
use archipelago_histories::{Answer, Call};
use archipelago_protocol::message::{Refusal, Reply, Request};
use archipelago_transport::{Credentials, net::Network};

use crate::{
    event::now_us,
    journal::{Journal, OperatorEntry},
    recorder::Recorder,
};

/// An operator with a session of its own. Clones share it.
#[derive(Clone)]
pub struct Operator {
    client: Client,
    journal: Arc<Mutex<Journal<OperatorEntry>>>,
    recorder: Recorder,
}

impl Operator {
    /// Connects as whoever has the credentials in `dir`.
    pub async fn connect(dir: &Path, coordinators: &BTreeMap<u64, String>, journal: &str) -> Result<Self> {
        let file = |name: &str| dir.join(name);
        let credentials = Credentials::load(&file("ca.pem"), &file("cert.pem"), &file("key.pem"))?;
        let coordinators =
            coordinators.iter().filter_map(|(node, address)| Some((NodeId::new(*node)?, address.clone()))).collect();
        let software = "campaign".to_owned();
        let network = Network::configured(None, None).map_err(anyhow::Error::msg)?;
        let config = ClientConfig {
            coordinators,
            credentials,
            software,
            patience: Patience::Within(PATIENCE),
            known: None,
            network,
        };
        let (journal, _) = Journal::open(&dir.join(journal))?;
        let (client, recorder) = (Client::connect(config).await?, Recorder::open(dir)?);
        Ok(Self { client, journal: Arc::new(Mutex::new(journal)), recorder })
    }

    /// Uploads a blob.
    pub async fn upload(&self, bytes: &[u8]) -> Result<BlobRef> {
        let blob = BlobRef::of(bytes);
        self.client.put_blob(blob, Source::Bytes(bytes), |_| ()).await?;
        Ok(blob)
    }

    /// Enrols a site.
    pub async fn add_site(&self, site: &str) -> Result<()> {
        self.client.request(Request::AddSite { site: site.parse()? }).await?;
        Ok(())
    }

    /// A small write that changes nothing: enrols a site that is enrolled. It passes through the log all the same.
    pub async fn write(&self) -> Result<()> {
        self.add_site(PROBE).await.context("the probe's write")?;
        self.note(&OperatorEntry::Probe)
    }

    /// Publishes a reference whose blobs are there.
    pub async fn publish_reference(&self, name: &Name, version: &Version) -> Result<()> {
        let request = Request::PublishReference { name: name.clone(), version: version.clone() };
        let call = Call::Publish { reference: name.clone(), version: version.clone() };
        let published = self.recorder.ask(call, self.client.request(request), |_| Some(Answer::Done)).await?;
        published.context("publishing a reference")?;
        self.note(&OperatorEntry::Reference { name: name.clone(), version: version.id() })
    }

    /// Notes a reference that a process of the product is about to publish; the number of that.
    pub fn publishing(&self, name: &Name, version: &Version) -> Result<u64> {
        self.recorder.asked(Call::Publish { reference: name.clone(), version: version.clone() })
    }

    /// Notes that it has.
    pub fn published(&self, asked: u64, name: &Name, version: &Version) -> Result<()> {
        self.recorder.answered(asked, Answer::Done)?;
        self.note(&OperatorEntry::Reference { name: name.clone(), version: version.id() })
    }

    /// Publishes a task.
    pub async fn publish_task(&self, task: SurgeryTask) -> Result<TaskId> {
        match self.client.request(Request::PublishTask(Box::new(task))).await.context("publishing a task")? {
            Reply::Task(record) => {
                self.note(&OperatorEntry::Task(record.id))?;
                Ok(record.id)
            }
            reply => bail!("a task was published as {reply:?}"),
        }
    }

    /// Closes a task; returns when that was acknowledged, in Unix microseconds.
    pub async fn close(&self, task: TaskId) -> Result<u64> {
        self.client.request(Request::CloseTask { task }).await.with_context(|| format!("closing task {task}"))?;
        let at_us = now_us();
        self.note(&OperatorEntry::Closed(task))?;
        Ok(at_us)
    }

    /// One task.
    pub async fn task(&self, task: TaskId) -> Result<TaskRecord> {
        Ok(self.client.task(task).await?)
    }

    /// One reference, if it is there.
    pub async fn reference(&self, name: &Name) -> Result<Option<ReferenceRecord>> {
        match self.client.history(name).await {
            Ok(history) => Ok(Some(history.record())),
            Err(ClientError::Refused(Refusal::NotFound { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The state as the node of the session sees it.
    pub async fn status(&self) -> Result<StatusRecord> {
        match self.client.request(Request::Status).await? {
            Reply::Status(status) => Ok(status),
            reply => bail!("the status was shown as {reply:?}"),
        }
    }

    /// Asks for anything.
    pub async fn ask(&self, request: Request) -> Result<Reply> {
        Ok(self.client.request(request).await?)
    }

    /// All sites.
    pub async fn sites(&self) -> Result<Vec<SiteRecord>> {
        Ok(self.client.sites().await?)
    }

    /// The keys of those that came by an invitation.
    pub async fn keys(&self) -> Result<BTreeMap<SiteId, CertifiedKey>> {
        Ok(self.client.keys().await?)
    }

    /// Writes down what was acknowledged.
    pub fn note(&self, entry: &OperatorEntry) -> Result<()> {
        self.journal.lock().unwrap_or_else(|e| e.into_inner()).append(entry)
    }
}

/// The name under which the probe writes.
pub const PROBE: &str = "probe";
/// A cluster that is silent for this long has failed, whatever was done to it.
const PATIENCE: Duration = Duration::from_secs(60);
