//! The work that goes on all the time: small references, tasks on them for every site, closed when done. Faults order
//! what they need besides.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex as StdMutex},
    time::Duration,
};

use anyhow::Result;
use archipelago_common::{
    BlobRef, ConditionKey, Name, SiteId, TaskId, Version, VersionId,
    policy::EmbeddingRelease,
    task::{PublishMode, SurgeryTask, TrainSpec},
};
use tokio::sync::{Mutex, watch};

use crate::{
    event::{Order, now_us},
    fleet::Fleet,
    operator::Operator,
    payload,
};

/// Gives out work. Clones are the same.
#[derive(Clone)]
pub struct Workload {
    operator: Operator,
    fleet: Fleet,
    seed: u64,
    shelf: Arc<Mutex<Shelf>>,
    /// How long the latest closings took, in microseconds.
    closings: Arc<StdMutex<VecDeque<u64>>>,
}

/// What a task asks of a site beside its columns.
#[derive(Clone, Copy, Default, Debug)]
pub struct Load {
    /// Bytes of embeddings.
    pub embeddings: Option<u64>,
    /// A wait between the upload and the submission.
    pub wait_ms: u64,
}

/// The reference that tasks are published on at the moment.
struct Shelf {
    base: BlobRef,
    columns: BTreeMap<ConditionKey, BlobRef>,
    /// One reference for tasks that publish each submission, one for those that publish at their close: what a client of
    /// the first kind sees follows from operations alone, and can be checked.
    current: BTreeMap<bool, Current>,
    n_references: u64,
}

struct Current {
    name: Name,
    version: VersionId,
    n_tasks: u64,
}

impl Workload {
    /// Uploads what every small reference shares.
    pub async fn prepare(operator: Operator, fleet: Fleet, seed: u64) -> Result<Self> {
        let base = operator.upload(&payload::base(seed, "small", 1_000).to_bytes()?).await?;
        let columns = operator.upload(&payload::columns(&mut payload::rng(seed, "first columns")).to_bytes()).await?;
        let columns = BTreeMap::from([(OWN_CONDITION.parse()?, columns)]);
        let shelf = Shelf { base, columns, current: BTreeMap::new(), n_references: 0 };
        Ok(Self { operator, fleet, seed, shelf: Arc::new(Mutex::new(shelf)), closings: Arc::default() })
    }

    /// Publishes a task on a small reference and orders these sites to carry it out.
    pub async fn order(&self, publish: PublishMode, sites: &[SiteId], load: Load) -> Result<TaskId> {
        let (reference, version) = self.shelf.lock().await.reference(publish, &self.operator).await?;
        self.order_on((reference, version), publish, sites, load).await
    }

    /// The same on a given reference.
    pub async fn order_on(
        &self,
        (reference, version): (Name, VersionId),
        publish: PublishMode,
        sites: &[SiteId],
        Load { embeddings, wait_ms }: Load,
    ) -> Result<TaskId> {
        let train = TrainSpec { epochs: Some(1), seed: self.seed, ..TrainSpec::default() };
        let asked = if embeddings.is_some() { EmbeddingRelease::Full } else { EmbeddingRelease::None };
        let task = SurgeryTask { publish, embeddings: asked, ..SurgeryTask::new(reference, version, train) };
        let id = self.operator.publish_task(task).await?;
        for site in sites {
            self.fleet.order(site, Order { task: id, embeddings, wait_ms, holds: false });
        }
        Ok(id)
    }

    /// Waits until none of these sites has the task before it any more; `false` after `patience`.
    pub async fn settled(&self, task: TaskId, patience: Duration) -> bool {
        let is_settled = |sites: &BTreeMap<SiteId, crate::board::SiteView>| {
            sites.values().all(|view| !view.open.contains_key(&task)).then_some(())
        };
        self.fleet.board().wait(patience, is_settled).await.is_some()
    }

    /// Publishes, orders and closes until told to stop.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<()> {
        let sites = self.fleet.sites();
        for round in 0_u64.. {
            if *stop.borrow() {
                break;
            }
            let publish = if round % 3 == 0 { PublishMode::Each } else { PublishMode::AtClose };
            let task = self.order(publish, &sites, Load::default()).await?;
            // A site that does not come is overtaken: it will be told that the task is closed.
            self.settled(task, SLOWEST).await;
            let begun_us = now_us();
            let closed_us = self.operator.close(task).await?;
            self.note_closing(closed_us.saturating_sub(begun_us));
            tokio::time::sleep(BREATH).await;
        }
        Ok(())
    }

    /// How long it usually takes to close a task and merge its submissions: the median of late.
    pub fn usual_closing(&self) -> Duration {
        let mut closings: Vec<_> = self.closings.lock().unwrap_or_else(|e| e.into_inner()).iter().copied().collect();
        closings.sort_unstable();
        Duration::from_micros(closings.get(closings.len() / 2).copied().unwrap_or(FIRST_CLOSING_US))
    }

    fn note_closing(&self, took_us: u64) {
        let mut closings = self.closings.lock().unwrap_or_else(|e| e.into_inner());
        closings.push_back(took_us);
        if closings.len() > CLOSINGS {
            closings.pop_front();
        }
    }
}

impl Shelf {
    async fn reference(&mut self, publish: PublishMode, operator: &Operator) -> Result<(Name, VersionId)> {
        let is_each = publish == PublishMode::Each;
        let current = self.current.get_mut(&is_each).filter(|current| current.n_tasks < TASKS_PER_REFERENCE);
        if let Some(current) = current {
            current.n_tasks += 1;
            return Ok((current.name.clone(), current.version));
        }
        self.n_references += 1;
        let name = Name::parse("reference", &format!("small-{}", self.n_references))?;
        let version = Version { base: self.base, columns: self.columns.clone() };
        operator.publish_reference(&name, &version).await?;
        let version = version.id();
        self.current.insert(is_each, Current { name: name.clone(), version, n_tasks: 1 });
        Ok((name, version))
    }
}

/// The condition that every reference comes with; its owner is the operator.
pub const OWN_CONDITION: &str = "anna/first/batch";
/// A version names every condition, so references with few tasks keep the replicated state small.
const TASKS_PER_REFERENCE: u64 = 12;
/// Longest wait for all sites to carry out a task.
const SLOWEST: Duration = Duration::from_secs(20);
/// Pause between two tasks, so that fsyncs of the disk are not all that is measured.
const BREATH: Duration = Duration::from_millis(50);
/// Closings that [`Workload::usual_closing`] is the median of; those that a fault held up are the fewer.
const CLOSINGS: usize = 15;
/// What it is taken for before there was one, in microseconds.
const FIRST_CLOSING_US: u64 = 5_000;
