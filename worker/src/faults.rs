//! How far a fault reaches: one task, or the worker itself.
//!
//! A worker serves for months, and most of what goes wrong meanwhile is not its own: a coordinator's disk has a flipped bit, an
//! answer does not fit, a results directory is full. None of it ends the worker. A task is put aside with a reason and, where
//! the fault may pass, taken up again after a while that doubles.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use archipelago_anndata::Error as Anndata;
use archipelago_client::ClientError;
use archipelago_common::{BlobRef, id::TaskId};
use archipelago_protocol::message::Refusal;

use crate::{
    egress::Uplink,
    error::{Error, Result},
    output,
};

/// What a fault means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Every coordinator shuts this site out: waiting will not help.
    Worker,
    /// The task cannot be done as things are; a restart looks at it again.
    Task,
    /// The same may go well in a while.
    Passing,
}

impl Reach {
    /// That of an error.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Client(ClientError::Unreachable { .. } | ClientError::NoCoordinators | ClientError::Closed) => {
                Self::Worker
            }
            // What a coordinator did or could not do, what a disk here had no room for, what broke on the way.
            Error::Client(ClientError::Refused(Refusal::NotFound { .. } | Refusal::MissingBlobs { .. }))
            | Error::Client(
                ClientError::Transfer { .. }
                | ClientError::File(_)
                | ClientError::TimedOut { .. }
                | ClientError::UnexpectedReply { .. },
            )
            | Error::UnexpectedReply { .. }
            | Error::Reference { .. }
            | Error::File { .. }
            | Error::Common(archipelago_common::Error::File { .. })
            | Error::Anndata(Anndata::Io { .. } | Anndata::Scratch { .. })
            | Error::Cells { source: Anndata::Io { .. } | Anndata::Scratch { .. }, .. } => Self::Passing,
            _ => Self::Task,
        }
    }
}

/// Tasks that are not looked at, for good or for a while.
#[derive(Debug, Default)]
pub struct Aside(BTreeMap<TaskId, Put>);

#[derive(Debug)]
struct Put {
    n_times: u32,
    /// Until when; until a restart where nothing is said.
    until: Option<Instant>,
}

impl Aside {
    /// Puts a task aside until the worker is started again.
    pub fn put(&mut self, task: TaskId) {
        let n_times = self.n_times(task);
        self.0.insert(task, Put { n_times, until: None });
    }

    /// Puts a task aside for a while, the longer the more often; says how long.
    pub fn put_for_a_while(&mut self, task: TaskId, now: Instant) -> Duration {
        let n_times = self.n_times(task);
        let pause = (FIRST_PAUSE * (1 << n_times.min(MOST_DOUBLINGS))).min(LONGEST_PAUSE);
        self.0.insert(task, Put { n_times: n_times + 1, until: Some(now + pause) });
        pause
    }

    /// Whether a task is aside.
    pub fn has(&self, task: TaskId, now: Instant) -> bool {
        self.0.get(&task).is_some_and(|put| put.until.is_none_or(|until| now < until))
    }

    /// When the next task may be looked at again.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.0.values().filter_map(|put| put.until).filter(|until| *until > now).min()
    }

    fn n_times(&self, task: TaskId) -> u32 {
        self.0.get(&task).map_or(0, |put| put.n_times)
    }
}

/// Fetches a blob, again where what came is not it: a coordinator that is told so looks at its own copy.
///
/// # Errors  [`Error::Client`]
pub(crate) async fn fetch(uplink: &Uplink, blob: BlobRef, target: &Path) -> Result<()> {
    let mut pauses = FETCH_PAUSES.iter();
    loop {
        match uplink.fetch(blob, target).await {
            Err(error @ Error::Client(ClientError::Transfer { .. })) => {
                let Some(pause) = pauses.next() else { return Err(error) };
                tracing::warn!(%blob, error = output::chain(&error), "what came is not the reference; fetching it again");
                tokio::time::sleep(*pause).await;
            }
            done => return done,
        }
    }
}

/// What a panic said, for the site's log.
pub(crate) fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was cancelled".to_owned() };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_else(|| "no word".to_owned())
}

/// Pauses between attempts at a blob that comes spoilt.
const FETCH_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// A coordinator that was told of a spoilt blob mends it in seconds.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// A full disk is looked after within a working day.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
const MOST_DOUBLINGS: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_coordinators_that_shut_the_site_out_reach_the_worker() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let blob = archipelago_common::BlobRef::of(b"base");
        let shut_out = ClientError::Unreachable { tried: Default::default() };
        let too_large = Refusal::Invalid { reason: "the answer is larger than 4194304 bytes; ask for less".to_owned() };
        for (error, reach) in [
            (Error::Client(shut_out), Reach::Worker),
            (Error::Client(ClientError::Transfer { blob, detail: "its digest is another".to_owned() }), Reach::Passing),
            (Error::Client(ClientError::File("failed to write `/state/blobs/x`: no space".to_owned())), Reach::Passing),
            (Error::Client(ClientError::Refused(too_large)), Reach::Task),
            (Error::File { action: "append to", path: "/state/audit.jsonl".into(), source: full() }, Reach::Passing),
            (Error::Anndata(Anndata::Io { action: "write", path: "/out".into(), source: full() }), Reach::Passing),
            (Error::Anndata(Anndata::NoGenes), Reach::Task),
        ] {
            assert_eq!(Reach::of(&error), reach, "{error}");
        }
    }

    #[test]
    fn a_task_is_aside_longer_each_time_and_never_longer_than_an_hour() {
        let (mut aside, now, task) = (Aside::default(), Instant::now(), TaskId(3));
        assert!(!aside.has(task, now) && aside.next(now).is_none());
        let pauses: Vec<u64> = (0..14).map(|_| aside.put_for_a_while(task, now).as_secs()).collect();
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[13], 3600);
        let later = now + LONGEST_PAUSE;
        assert!(aside.has(task, now) && !aside.has(task, later));
        assert_eq!(aside.next(now), Some(later));
        aside.put(task);
        assert!(aside.has(task, later) && aside.next(now).is_none());
    }
}
