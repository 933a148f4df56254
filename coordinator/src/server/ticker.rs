//! Time for the state machine: the leader proposes a tick when a lease or a deadline is over, and only then.

use std::time::Duration;

use archipelago_cluster::Body;

use super::Executor;

/// Proposes ticks for as long as the node runs.
pub async fn run(executor: Executor) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let view = executor.raft().view();
        if !view.is_leader() {
            continue;
        }
        let due_ms = executor.raft().peek(|cluster| cluster.next_due_ms()).await.unwrap_or_default();
        let Some(now_ms) = executor.now_ms() else { continue };
        if due_ms.is_none_or(|due_ms| due_ms > now_ms) {
            continue;
        }
        if let Err(error) = executor.execute_own(view.node, Body::Tick).await {
            tracing::debug!(%error, "a tick was not taken");
        }
    }
}

/// How late a lease or deadline may be noticed.
const LOOK: Duration = Duration::from_millis(250);
