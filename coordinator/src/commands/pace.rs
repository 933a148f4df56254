//! How long a site needs still for a task.

use archipelago_client::Client;
use archipelago_common::{SiteId, TaskId, act::Act, record::AssignmentHead};

use super::invite::coordinators_time;

/// When sites took which tasks, as the record of acts says, and what time it is.
#[derive(Default)]
pub(crate) struct Pace {
    acts: Vec<Act>,
    now_ms: u64,
}

impl Pace {
    /// Of everybody; of nobody where this certificate may not see what others did.
    pub(crate) async fn ask(client: &Client) -> Self {
        match (client.acts(0).await, coordinators_time(client).await) {
            (Ok(acts), Ok(now_ms)) => Self { acts, now_ms },
            _ => Self::default(),
        }
    }

    /// Seconds that a site needs still, if it goes on as it did since it took the task.
    pub(crate) fn remaining_s(&self, site: &SiteId, task: TaskId, work: &AssignmentHead) -> Option<u64> {
        remaining_s(&self.acts, self.now_ms, (site, task), work)
    }
}

/// The same from acts that are known.
pub(crate) fn remaining_s(
    acts: &[Act],
    now_ms: u64,
    (site, task): (&SiteId, TaskId),
    work: &AssignmentHead,
) -> Option<u64> {
    let progress = work.progress.filter(|progress| progress.epochs_done > 0)?;
    let (who, about) = (format!("site/{site}"), format!("task {task}"));
    let is_claim = |act: &&Act| act.what == "claim" && act.who == who && act.about == about;
    let since_ms = acts.iter().rev().find(is_claim)?.at_ms;
    let each_s = now_ms.saturating_sub(since_ms) as f64 / 1_000.0 / progress.epochs_done as f64;
    Some((each_s * progress.epochs_planned.saturating_sub(progress.epochs_done) as f64) as u64)
}

/// A time left, for people.
pub(crate) fn left(seconds: u64) -> String {
    match seconds {
        0..=89 => format!("{seconds} s"),
        90..=5_399 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{:.1} h", seconds as f64 / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use archipelago_common::{
        Digest,
        record::{Progress, Stage},
    };

    use super::*;

    #[test]
    fn what_is_left_goes_by_what_was_done_since_the_last_claim() {
        let digest = Digest::of(b"");
        let act = |seq, at_ms, who: &str| Act {
            seq,
            at_ms,
            who: who.to_owned(),
            key: None,
            what: "claim".to_owned(),
            about: "task 3".to_owned(),
            outcome: "epoch 1".to_owned(),
            command: digest,
            anchor: None,
            previous: digest,
        };
        let acts = vec![act(1, 0, "site/north"), act(2, 60_000, "site/north"), act(3, 90_000, "site/south")];
        let pace = Pace { acts, now_ms: 100_000 };
        let progress = |epochs_done| Some(Progress { epochs_done, epochs_planned: 30, loss: None });
        let work = |progress| AssignmentHead { epoch: 2, stage: Stage::Assigned, lease_until_ms: 0, progress };
        let (north, other) = ("north".parse().unwrap(), "west".parse().unwrap());
        assert_eq!(pace.remaining_s(&north, TaskId(3), &work(progress(10))), Some(80));
        assert_eq!(pace.remaining_s(&north, TaskId(3), &work(progress(0))), None);
        assert_eq!(pace.remaining_s(&north, TaskId(3), &work(None)), None);
        assert_eq!(pace.remaining_s(&north, TaskId(4), &work(progress(10))), None);
        assert_eq!(pace.remaining_s(&other, TaskId(3), &work(progress(10))), None);
        assert_eq!([left(80), left(90), left(7_200)], ["80 s", "2 min", "2.0 h"]);
    }
}
