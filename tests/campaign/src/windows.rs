//! The moments that faults are meant for: how each is brought about, noticed, and judged afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use archipelago_common::{
    BlobRef, Name, SiteId, TaskId, Version, limits, reference_dir::ReferenceDir, task::PublishMode,
};
use archipelago_processes::{Running, program};
use tokio::task::JoinHandle;

use crate::{
    board::SiteView,
    event::{Step, now_us},
    fault::{Fault, Window},
    network::{Way, Whom},
    payload::{self, below},
    stage::Stage,
    workload::{Load, OWN_CONDITION},
};

/// A window that was opened, and what is to be cleared up after it.
pub struct Armed {
    pub(crate) window: Window,
    /// The site that the window is about.
    pub(crate) site: Option<SiteId>,
    /// The leader that the window is about, if asking for it at the moment of the blow would take too long.
    pub(crate) leader: Option<u64>,
    task: Option<TaskId>,
    /// Completes with the moment at which the task was closed.
    closing: Option<JoinHandle<Result<u64>>>,
    publication: Option<Publication>,
    is_open: bool,
}

/// A reference with a base of many chunks, and who has fetched it.
pub struct Atlas {
    name: Name,
    version: Version,
    fetched: BTreeSet<SiteId>,
}

struct Publication {
    name: Name,
    dir: PathBuf,
    version: Version,
    /// Its number in the operator's history.
    asked: u64,
    running: Running,
}

impl Armed {
    fn new(window: Window) -> Self {
        let (site, leader, task, closing, publication) = (None, None, None, None, None);
        Self { window, site, leader, task, closing, publication, is_open: true }
    }

    /// What can only be seen before the blow.
    pub(crate) fn look_before_the_blow(&mut self) -> Result<()> {
        if let Some(publication) = &mut self.publication {
            self.is_open &= publication.running.ended()?.is_none();
        }
        Ok(())
    }

    pub(crate) fn kill_publisher(&mut self) -> Result<()> {
        self.publication.as_mut().context("a publisher is killed while one runs")?.running.kill()
    }
}

impl Stage {
    /// Brings about what the fault is meant to hit, and returns in the middle of it.
    pub(crate) async fn open_window(&mut self, fault: Fault) -> Result<Armed> {
        let mut armed = Armed::new(fault.window);
        match fault.window {
            Window::Any => self.pause(Duration::from_millis(300)).await,
            Window::Upload => self.open_upload(&mut armed).await?,
            Window::Download => self.open_download(&mut armed).await?,
            Window::Submit => {
                armed.leader = self.consortium.leader();
                let seen = self.fleet.board().wait(PATIENCE, |sites| submitting_at(sites, now_us()).map(drop)).await;
                armed.is_open = seen.is_some();
                self.pause(COMMIT).await;
            }
            Window::Reply => self.open_reply(&mut armed).await?,
            Window::Merge => {
                let sites = self.fleet.sites();
                let task = self.workload.order(PublishMode::AtClose, &sites, Load::default()).await?;
                armed.is_open = self.workload.settled(task, SETTLED).await;
                armed.leader = self.consortium.leader();
                let operator = self.operator.clone();
                armed.closing = Some(tokio::spawn(async move { operator.close(task).await }));
                self.pause(self.workload.usual_closing()).await;
            }
            Window::Publish => self.open_publish(&mut armed).await?,
        }
        Ok(armed)
    }

    /// Whether the blow at `at_us` came in the window; then waits until what it interrupted is done after all.
    pub(crate) async fn close_window(&mut self, armed: &mut Armed, at_us: u64) -> Result<bool> {
        let mut hit = armed.is_open;
        if let Some(closing) = armed.closing.take() {
            hit &= closing.await?? > at_us;
        }
        if let Some(publication) = armed.publication.take() {
            self.finish_publication(publication).await?;
        }
        if let Some(task) = armed.task {
            ensure!(self.workload.settled(task, SETTLED).await, "task {task} was not carried out after the fault");
            self.operator.close(task).await?;
        }
        let last = |sites: &BTreeMap<SiteId, SiteView>| {
            let site = armed.site.as_ref().and_then(|site| sites.get(site));
            site.and_then(|view| view.step_before(at_us)).map(|event| event.step.clone())
        };
        Ok(hit
            && self.fleet.board().look(|sites| match armed.window {
                Window::Any | Window::Merge | Window::Publish => true,
                Window::Upload => matches!(last(sites), Some(Step::Uploading(t)) if t.blob.size > limits::CHUNK_BYTES),
                Window::Download => matches!(last(sites), Some(Step::Downloading(_))),
                Window::Submit => submitting_at(sites, at_us).is_some(),
                Window::Reply => matches!(last(sites), Some(Step::Submitting { .. })),
            }))
    }

    async fn open_upload(&mut self, armed: &mut Armed) -> Result<()> {
        let site = self.any_site();
        let size = CHUNK * (6 + below(&mut self.rng, 7)) + 1 + below(&mut self.rng, CHUNK);
        let load = Load { embeddings: Some(size), ..Load::default() };
        let task = self.workload.order(PublishMode::Each, std::slice::from_ref(&site), load).await?;
        let moving = |sites: &BTreeMap<SiteId, SiteView>| {
            sites[&site].steps.iter().find_map(|event| match event.step {
                Step::Uploading(transfer) if transfer.blob.size == size => Some(transfer.blob),
                _ => None,
            })
        };
        let moving = self.fleet.board().wait(PATIENCE, moving).await;
        let goal = size / 10 + below(&mut self.rng, size / 2);
        armed.is_open = match moving {
            // What the site has handed over may be on its way still; what counts is what has arrived.
            Some(blob) => self.wait_for_arrival(blob, goal).await,
            None => false,
        };
        (armed.site, armed.task) = (Some(site), Some(task));
        Ok(())
    }

    async fn open_download(&mut self, armed: &mut Armed) -> Result<()> {
        let sites = self.fleet.sites();
        let is_used_up = self.atlas.as_ref().is_none_or(|atlas| atlas.fetched.len() == sites.len());
        if is_used_up {
            let publication = self.publish()?;
            self.finish_publication(publication).await?;
        }
        let atlas = self.atlas.as_mut().context("a reference was published")?;
        let left: Vec<_> = sites.into_iter().filter(|site| !atlas.fetched.contains(site)).collect();
        let site = left[below(&mut self.rng, left.len() as u64) as usize].clone();
        atlas.fetched.insert(site.clone());
        let (name, version, size) = (atlas.name.clone(), atlas.version.id(), atlas.version.base.size);
        let workload = self.workload.clone();
        let (sites, load) = (std::slice::from_ref(&site), Load::default());
        let task = workload.order_on((name, version), PublishMode::Each, sites, load).await?;
        let goal = below(&mut self.rng, size / 2);
        let is_under_way = |sites: &BTreeMap<SiteId, SiteView>| {
            let far = |step: &Step| matches!(step, Step::Downloading(t) if t.done >= goal);
            sites[&site].steps.iter().any(|event| far(&event.step)).then_some(())
        };
        armed.is_open = self.fleet.board().wait(PATIENCE, is_under_way).await.is_some();
        (armed.site, armed.task) = (Some(site), Some(task));
        Ok(())
    }

    /// Holds back the leader's answers to the sites, and waits until it has accepted a submission.
    async fn open_reply(&mut self, armed: &mut Armed) -> Result<()> {
        let site = self.any_site();
        let load = Load { wait_ms: HELD_MS, ..Load::default() };
        let task = self.workload.order(PublishMode::Each, std::slice::from_ref(&site), load).await?;
        let is_about_to = |sites: &BTreeMap<SiteId, SiteView>| {
            let is_it = |step: &Step| matches!(step, Step::Uploaded { task: uploaded } if *uploaded == task);
            sites[&site].steps.iter().any(|event| is_it(&event.step)).then_some(())
        };
        let is_held = self.fleet.board().wait(PATIENCE, is_about_to).await.is_some();
        (armed.site, armed.task) = (Some(site), Some(task));
        let leader = self.consortium.leader().context("the coordinators have a leader between faults")?;
        let accepted = |stage: &Self| stage.consortium.metric(leader, "archipelago_submissions_accepted_total");
        let before = accepted(self).context("the leader shows its metrics")?;
        self.network.cut_node(leader, Whom::Sites, Way::Out)?;
        let begun = Instant::now();
        while accepted(self).is_none_or(|now| now <= before) && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        armed.is_open = is_held && begun.elapsed() < PATIENCE;
        armed.leader = Some(leader);
        Ok(())
    }

    /// Starts the operator's command and waits until its base is on its way, or there.
    async fn open_publish(&mut self, armed: &mut Armed) -> Result<()> {
        let publication = self.publish()?;
        let blob = publication.version.base;
        let goal = if below(&mut self.rng, 2) == 0 { blob.size / 4 } else { blob.size };
        armed.publication = Some(publication);
        armed.is_open = self.wait_for_arrival(blob, goal).await;
        self.pause(COMMIT).await;
        Ok(())
    }

    /// Waits until so much of a blob has arrived at some coordinator.
    async fn wait_for_arrival(&self, blob: BlobRef, goal: u64) -> bool {
        let begun = Instant::now();
        while self.consortium.nodes().all(|node| self.arrived(node, blob) < goal) {
            if begun.elapsed() > PATIENCE {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Bytes of a blob that a node has.
    fn arrived(&self, node: u64, blob: BlobRef) -> u64 {
        let digest = blob.digest.to_string();
        let whole = self.consortium.node_dir(node).join("data/blobs/whole").join(&digest[..2]).join(&digest);
        if whole.exists() {
            return blob.size;
        }
        let record = std::fs::metadata(self.record_path(node, blob)).map_or(0, |metadata| metadata.len());
        crate::resent::recorded_bytes(blob, record)
    }

    fn publish(&mut self) -> Result<Publication> {
        self.n_publications += 1;
        let name = Name::parse("reference", &format!("atlas-{}", self.n_publications))?;
        let dir = self.consortium.dir().join("anna").join(name.as_str());
        let size = CHUNK * (6 + below(&mut self.rng, 5)) + below(&mut self.rng, CHUNK);
        let base = payload::base(self.seed, name.as_str(), size);
        let columns = payload::columns(&mut payload::rng(self.seed, name.as_str()));
        let written = ReferenceDir::write(&dir, &base, &BTreeMap::from([(OWN_CONDITION.parse()?, columns)]))?;
        let version = written.version().clone();
        let asked = self.operator.publishing(&name, &version)?;
        let running = self.start_publisher(&name, &dir)?;
        Ok(Publication { name, version, asked, dir, running })
    }

    fn start_publisher(&self, name: &Name, dir: &std::path::Path) -> Result<Running> {
        let config = self.consortium.dir().join("anna/operator.toml");
        let words = ["reference".as_ref(), "publish".as_ref(), name.as_str().as_ref(), dir.as_os_str()];
        let words = [&words[..], &["--config".as_ref(), config.as_os_str()]].concat();
        let log = self.consortium.dir().join("anna/publish.txt");
        Running::start("the publisher", &program("archipelago-coordinator")?, &words, &log)
    }

    /// Waits for the command, runs it again if it was killed or failed, and knows in the end that the reference is there.
    async fn finish_publication(&mut self, mut publication: Publication) -> Result<()> {
        for _ in 0..PUBLISH_TRIES {
            let begun = Instant::now();
            let status = loop {
                match publication.running.ended()? {
                    Some(status) => break status,
                    None if begun.elapsed() > PUBLISH_PATIENCE => bail!("`reference publish` hangs"),
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            let Publication { name, version, dir, .. } = &publication;
            // A second run is refused if the first got through and could not tell.
            let there = self.operator.reference(name).await?;
            if there.as_ref().is_some_and(|record| record.versions.contains_key(&version.id())) {
                self.operator.published(publication.asked, name, version)?;
                std::fs::remove_dir_all(dir)?;
                let (name, version) = (name.clone(), version.clone());
                self.atlas = Some(Atlas { name, version, fetched: BTreeSet::new() });
                return Ok(());
            }
            ensure!(!status.success(), "`reference publish {name}` was acknowledged and the reference is not there");
            publication.running = self.start_publisher(name, dir)?;
        }
        bail!("`reference publish {}` did not succeed in {PUBLISH_TRIES} runs", publication.name)
    }
}

/// A site that had sent a submission and had no answer yet at a moment.
pub(crate) fn submitting_at(sites: &BTreeMap<SiteId, SiteView>, at_us: u64) -> Option<&SiteId> {
    let is_submitting =
        |view: &SiteView| matches!(view.step_before(at_us).map(|event| &event.step), Some(Step::Submitting { .. }));
    sites.iter().find(|(_, view)| is_submitting(view)).map(|(site, _)| site)
}

const CHUNK: u64 = limits::CHUNK_BYTES;
/// How long a window may take to open; a fault that misses it still happens, and is counted as a miss.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a commit takes on most disks: blows come within this time after a request was sent.
const COMMIT: Duration = Duration::from_millis(12);
/// How long a site holds a submission back, so that its answer can be cut off first.
const HELD_MS: u64 = 250;
/// How long work that was interrupted may take in all.
const SETTLED: Duration = Duration::from_secs(60);
const PUBLISH_TRIES: u32 = 5;
const PUBLISH_PATIENCE: Duration = Duration::from_secs(120);
