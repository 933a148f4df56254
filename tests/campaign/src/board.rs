//! What the campaign knows of its sites: the steps they told of, the orders they have. Written by one thread per site,
//! waited on by everybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use archipelago_common::{SiteId, TaskId};
use tokio::sync::watch;

use crate::event::{Event, Order, Step};

/// Shared by clones.
#[derive(Clone, Debug)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sites: Mutex<BTreeMap<SiteId, SiteView>>,
    changed: watch::Sender<u64>,
}

/// One site as the campaign sees it.
#[derive(Clone, Debug, Default)]
pub struct SiteView {
    /// Every step since the last [`Board::forget_steps`], oldest first, over restarts of the process.
    pub steps: Vec<Event>,
    /// Orders that have no outcome yet.
    pub open: BTreeMap<TaskId, Order>,
    /// Tasks whose submission was acknowledged.
    pub acknowledged: BTreeSet<TaskId>,
    /// Tasks that were refused, with the reason.
    pub refused: BTreeMap<TaskId, String>,
    /// What the site could not go on for.
    pub failed: Option<String>,
    /// Whether the process has told that it is ready.
    pub is_ready: bool,
    /// When an outcome was last heard.
    pub heard: Option<Instant>,
}

impl SiteView {
    /// The last step before a moment.
    pub fn step_before(&self, at_us: u64) -> Option<&Event> {
        self.steps.iter().rev().find(|event| event.at_us <= at_us)
    }
}

impl Board {
    /// A board with these sites.
    pub fn new(sites: impl Iterator<Item = SiteId>) -> Self {
        let sites = sites.map(|site| (site, SiteView::default())).collect();
        Self(Arc::new(Inner { sites: Mutex::new(sites), changed: watch::Sender::new(0) }))
    }

    /// Looks at the sites.
    pub fn look<R>(&self, look: impl FnOnce(&BTreeMap<SiteId, SiteView>) -> R) -> R {
        look(&self.lock())
    }

    /// Waits until `look` sees something; `None` after `patience`.
    pub async fn wait<R>(
        &self,
        patience: Duration,
        mut look: impl FnMut(&BTreeMap<SiteId, SiteView>) -> Option<R>,
    ) -> Option<R> {
        let mut changed = self.0.changed.subscribe();
        let waited = async {
            loop {
                if let Some(seen) = self.look(&mut look) {
                    return seen;
                }
                // The board itself holds a sender.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(patience, waited).await.ok()
    }

    /// Notes an order.
    pub fn ordered(&self, site: &SiteId, order: Order) {
        self.change(site, |view| {
            view.open.insert(order.task, order);
        });
    }

    /// Notes that a site's process is new.
    pub fn restarted(&self, site: &SiteId) {
        self.change(site, |view| view.is_ready = false);
    }

    /// Notes a step.
    pub fn told(&self, site: &SiteId, event: Event) {
        self.change(site, |view| {
            match &event.step {
                Step::Ready => view.is_ready = true,
                Step::Acknowledged { task } => {
                    view.open.remove(task);
                    view.acknowledged.insert(*task);
                    view.heard = Some(Instant::now());
                }
                Step::Refused { task, reason } => {
                    view.open.remove(task);
                    view.refused.insert(*task, reason.clone());
                    view.heard = Some(Instant::now());
                }
                Step::Failed { reason } => view.failed = Some(reason.clone()),
                _ => {}
            }
            view.steps.push(event);
        });
    }

    /// Drops all steps but the last of each site: a new fault begins.
    pub fn forget_steps(&self) {
        for view in self.lock().values_mut() {
            let n_old = view.steps.len().saturating_sub(1);
            view.steps.drain(..n_old);
        }
    }

    /// Number of submissions that were acknowledged.
    pub fn n_acknowledged(&self) -> u64 {
        self.look(|sites| sites.values().map(|view| view.acknowledged.len() as u64).sum())
    }

    /// A site that cannot go on, and why.
    pub fn failed(&self) -> Option<(SiteId, String)> {
        self.look(|sites| sites.iter().find_map(|(site, view)| Some((site.clone(), view.failed.clone()?))))
    }

    fn change(&self, site: &SiteId, change: impl FnOnce(&mut SiteView)) {
        if let Some(view) = self.lock().get_mut(site) {
            change(view);
        }
        self.0.changed.send_modify(|n| *n += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SiteId, SiteView>> {
        self.0.sites.lock().unwrap_or_else(|e| e.into_inner())
    }
}
