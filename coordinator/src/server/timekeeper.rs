//! The leader's time: it asks the others what their clocks show, counts from what a majority agrees on, and has a step that is
//! longer than a stamp may make put into the log.

use std::{collections::BTreeMap, time::Duration};

use archipelago_cluster::{Body, Cluster, Command, Edition, agreed_ms};
use archipelago_common::{NodeId, Principal, limits};
use archipelago_protocol::message::{PeerAsk, PeerReply};
use tokio::{task::JoinSet, time::Instant};

use super::Executor;
use crate::{clock, raft::task::View};

/// Keeps time for as long as the node runs.
pub async fn run(executor: Executor) {
    let mut view = executor.raft().watch();
    let mut last = (0, Instant::now());
    loop {
        let now = view.borrow_and_update().clone();
        let is_due = now.is_leader() && (last.0 != now.term || last.1.elapsed() >= AGAIN);
        if is_due && keep(&executor, &now).await {
            last = (now.term, Instant::now());
        }
        // Often at first, because nobody is served before; then now and then.
        let pause = if now.is_leader() && last.0 != now.term { SOON } else { AGAIN };
        match tokio::time::timeout(pause, view.changed()).await {
            Ok(Err(_)) => return,
            Ok(Ok(())) | Err(_) => tokio::time::sleep(SOON).await,
        }
    }
}

/// Agrees on the time once. Says whether it is known now.
async fn keep(executor: &Executor, view: &View) -> bool {
    let look = |cluster: &Cluster| (cluster.now_ms(), cluster.edition());
    let Ok((state_ms, edition)) = executor.raft().peek(look).await else { return false };
    let clock = executor.clock();
    if edition < Edition::Second {
        clock.change(|stamps, _| stamps.trust_own_clock(view.term));
        return true;
    }
    clock.change(|stamps, counted_ms| stamps.lead(view.term, state_ms, counted_ms));
    let asked_ms = clock.counted_ms();
    let clocks = ask(executor, view).await;
    let Some(agreed) = agreed_of(&clocks, view) else {
        tracing::warn!(?clocks, "the coordinators' clocks do not agree; time goes on from the last that was agreed");
        return clock.now_ms(view.term).is_some();
    };
    if clock.now_ms(view.term).is_some_and(|now_ms| now_ms > agreed.saturating_add(limits::STAMP_STEP_MS)) {
        // Time that stood still until clocks have caught up would be as bad as time that ran ahead.
        tracing::error!(agreed, "the consortium's time is ahead of its clocks; `clock set` sets it back");
        return true;
    }
    // Stamps move time by small steps only; and where nothing is asked for long, somebody has to make them.
    let is_long = state_ms == 0 || agreed > state_ms.saturating_add(limits::STAMP_STEP_MS / 4);
    if is_long {
        let (key, principal) = (rand::random(), Principal::Coordinator(view.node));
        let command = Command { key, principal, now_ms: state_ms, body: Body::AgreeOnTime { clocks } };
        match executor.raft().propose(&command).await {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => {
                tracing::error!(%refusal, "time does not move on");
                return clock.now_ms(view.term).is_some();
            }
            Err(_) => return false,
        }
    }
    clock.change(|stamps, _| stamps.agree(view.term, agreed, asked_ms));
    true
}

/// What the clocks of coordinators show; no more of them than it takes for a majority to agree.
async fn ask(executor: &Executor, view: &View) -> BTreeMap<NodeId, u64> {
    let mut asking = JoinSet::new();
    for link in executor.replicas().links().all() {
        asking.spawn(async move {
            let answer = tokio::time::timeout(ASK, link.ask(PeerAsk::Clock)).await;
            match answer {
                Ok(Ok(PeerReply::Clock { now_ms })) => Some((link.node(), now_ms)),
                _ => None,
            }
        });
    }
    let mut clocks = BTreeMap::from([(view.node, clock::now_ms())]);
    while agreed_of(&clocks, view).is_none()
        && let Some(answer) = asking.join_next().await
    {
        clocks.extend(answer.ok().flatten());
    }
    clocks
}

/// What a majority of the voters' clocks agree on.
fn agreed_of(clocks: &BTreeMap<NodeId, u64>, view: &View) -> Option<u64> {
    let voters = &view.configuration.voters;
    let of_voters = clocks.iter().filter(|(node, _)| voters.contains(node)).map(|(_, ms)| *ms);
    agreed_ms(of_voters, voters.len())
}

/// Pause between two agreements.
const AGAIN: Duration = Duration::from_secs(10);
/// Pause before the first agreement is tried again.
const SOON: Duration = Duration::from_millis(50);
/// Longest wait for one clock: beyond it, what it shows is old.
const ASK: Duration = Duration::from_secs(1);
