//! How soon a dead worker is noticed, and how soon its task may be claimed again, with the product's default settings.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use archipelago_common::{record::AssignmentState, task::PublishMode};

use crate::{event::Step, stage::Stage, summary::WorkerDeath, workload::Load};

/// Kills a site that works on a task and does not start it until both are known.
pub async fn measure(stage: &mut Stage) -> Result<WorkerDeath> {
    let leader = stage.healthy().await?;
    let site = stage.any_site();
    stage.fleet.hold(&site);
    let task = stage.workload.order(PublishMode::Each, std::slice::from_ref(&site), Load::default()).await?;
    let claimed = stage.fleet.board().wait(PATIENCE, |sites| {
        let is_it = |step: &Step| matches!(step, Step::Claimed { task: claimed, .. } if *claimed == task);
        sites[&site].steps.iter().any(|event| is_it(&event.step)).then_some(())
    });
    ensure!(claimed.await.is_some(), "the site that is to die has not claimed its task");
    let sessions = |stage: &Stage| stage.consortium.metric_sum(leader, "archipelago_sessions", "role=\"site\"");
    let before = sessions(stage);
    let begun = Instant::now();
    stage.fleet.kill(&site)?;
    let (mut noticed_s, mut offered_again_s) = (None, None);
    while noticed_s.is_none() || offered_again_s.is_none() {
        let elapsed = begun.elapsed();
        ensure!(elapsed < PATIENCE, "a dead worker was not noticed within {} s", PATIENCE.as_secs());
        if sessions(stage) < before {
            noticed_s.get_or_insert(elapsed.as_secs_f64());
        }
        let record = stage.operator.task(task).await?;
        if record.assignments.get(&site).is_some_and(|own| own.state == AssignmentState::Lapsed) {
            offered_again_s.get_or_insert(elapsed.as_secs_f64());
        }
        tokio::time::sleep(LOOK).await;
    }
    stage.fleet.start(&site)?;
    ensure!(stage.workload.settled(task, PATIENCE).await, "the site did not carry out its task after its return");
    stage.operator.close(task).await?;
    let seconds = |found: Option<f64>| found.unwrap_or_default();
    Ok(WorkerDeath { noticed_s: seconds(noticed_s), offered_again_s: seconds(offered_again_s) })
}

const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);
