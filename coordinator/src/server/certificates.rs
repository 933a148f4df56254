//! Whose certificate ends when: the leader writes down with which one everybody comes, and every node says in time whose ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use archipelago_cluster::{Body, Cluster, Edition};
use archipelago_common::{Principal, enrolment::CertifiedKey, limits};
use archipelago_transport::Credentials;
use tokio::{sync::watch, time::Instant};

use super::Executor;
use crate::{clock, ops::metrics};

/// With which certificates peers have come that may be news to the others. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Guestbook {
    noted: Arc<Mutex<BTreeMap<Principal, CertifiedKey>>>,
    /// Tells that everybody is to show their certificate again.
    turned_out: Arc<watch::Sender<()>>,
}

impl Guestbook {
    /// Somebody has come. Where too many do at once, some are noted when they come again.
    pub(super) fn note(&self, who: &Principal, certified: CertifiedKey) {
        let mut noted = self.lock();
        if !matches!(who, Principal::Invited(_)) && (noted.len() < NOTED || noted.contains_key(who)) {
            noted.insert(who.clone(), certified);
        }
    }

    /// What was noted since the last time.
    fn take(&self) -> BTreeMap<Principal, CertifiedKey> {
        std::mem::take(&mut self.lock())
    }

    /// What tells that everybody is to show their certificate again.
    pub(super) fn turns_out(&self) -> watch::Receiver<()> {
        self.turned_out.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Principal, CertifiedKey>> {
        self.noted.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Keeps the book for as long as the node runs.
pub(super) async fn run(executor: Executor, credentials: Credentials) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Told::default();
    loop {
        looks.tick().await;
        let left_ms = credentials.certified().expires_ms.saturating_sub(clock::now_ms());
        metrics::OWN_CERTIFICATE_LEFT_SECONDS.set((left_ms / 1_000) as i64);
        executor.guestbook().note(&credentials.identity().principal, credentials.certified());
        if executor.raft().view().is_leader() {
            let is_news = write_down(&executor).await;
            told.tell(&executor, is_news).await;
        }
    }
}

/// When this node has another certificate, it shows it to the others; when it accepts other authorities, everybody shows theirs again.
pub(super) async fn follow(executor: Executor, credentials: Credentials) {
    let mut replacements = credentials.replacements();
    let mut authorities = credentials.authorities();
    loop {
        replacements.next().await;
        executor.replicas().links().reconnect().await;
        let now = credentials.authorities();
        if std::mem::replace(&mut authorities, now.clone()) != now {
            tracing::info!("other authorities are accepted: every connection is verified anew");
            executor.guestbook().turned_out.send_replace(());
        }
    }
}

/// Who comes goes to the leader, sooner or later: what another node has noted is of use if it comes to lead. Whether there was
/// anything to write down.
async fn write_down(executor: &Executor) -> bool {
    let noted = executor.guestbook().take();
    let look = move |cluster: &Cluster| {
        let is_time = cluster.edition() >= Edition::Seventh;
        let news = noted.into_iter().filter(|(who, certified)| is_time && cluster.is_news(who, *certified));
        news.collect::<Vec<_>>()
    };
    let Ok(news) = executor.raft().peek(look).await else { return false };
    let node = executor.raft().view().node;
    for (who, certified) in &news {
        let body = Body::NoteCertificate { who: who.clone(), certified: *certified };
        if let Err(error) = executor.execute_own(node, body).await {
            tracing::debug!(%who, %error, "a certificate's end is not written down");
            executor.guestbook().note(who, *certified);
        }
    }
    !news.is_empty()
}

/// Whose end was said today, and when it was last looked.
#[derive(Default)]
struct Told {
    since: Option<Instant>,
    looked: Option<Instant>,
    of: BTreeSet<Principal>,
}

impl Told {
    /// Says once a day whose certificate ends within [`limits::CERTIFICATE_WARNING_MS`]: now and then, and at once of who has come.
    async fn tell(&mut self, executor: &Executor, is_news: bool) {
        let is_old = |at: Option<Instant>, age| at.is_none_or(|at: Instant| at.elapsed() >= age);
        if !is_news && !is_old(self.looked, LOOK_AT_ENDS) {
            return;
        }
        if is_old(self.since, DAY) {
            *self = Self { since: Some(Instant::now()), ..Self::default() };
        }
        self.looked = Some(Instant::now());
        let now_ms = executor.now_ms().unwrap_or_else(clock::now_ms);
        let soon_ms = now_ms.saturating_add(limits::CERTIFICATE_WARNING_MS);
        let look = move |cluster: &Cluster| cluster.ends().filter(|(_, end_ms)| *end_ms <= soon_ms).collect::<Vec<_>>();
        for (who, end_ms) in executor.raft().peek(look).await.unwrap_or_default() {
            if !self.of.insert(who.clone()) {
                continue;
            }
            match end_ms.checked_sub(now_ms) {
                Some(left_ms) => tracing::warn!(%who, days_left = left_ms / DAY_MS, "a certificate ends soon"),
                None => tracing::warn!(%who, "a certificate has ended"),
            }
        }
    }
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_AT_ENDS: Duration = Duration::from_secs(60);
/// Peers that are noted between two looks.
const NOTED: usize = 4_096;
const DAY: Duration = Duration::from_secs(86_400);
const DAY_MS: u64 = 86_400_000;
