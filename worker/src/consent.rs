//! What people at the site say of tasks: yes, or no and why.
//!
//! A decision is a small file of its own in the state directory, written whole or not at all. It names the digest of what the
//! person was shown ([`crate::offer`]): when anything of that changes, nothing was decided.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use archipelago_common::{Error as CommonError, fs, hash::Digest, id::TaskId};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{chain::now_ms, error::Result};

/// Why a person declines a task: a closed list, because the word goes to the coordinators.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// What the cells may be used for does not cover it.
    Purpose,
    /// The site does not work with whoever published it.
    Publisher,
    /// More would leave than the site wants to give.
    Release,
    /// These cells are not meant for it.
    Cells,
    /// Not at this time.
    Later,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Purpose => "what its cells may be used for does not cover the task",
            Self::Publisher => "it does not work with the task's publisher",
            Self::Release => "more would leave than it wants to give",
            Self::Cells => "its cells are not meant for the task",
            Self::Later => "not at this time",
        })
    }
}

/// What a person says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The task may be done.
    Approved,
    /// It may not.
    Declined(Because),
}

/// What a person said, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The task.
    pub task: TaskId,
    /// Digest of what was shown.
    pub offer: Digest,
    /// The answer.
    pub answer: Answer,
    /// The site's clock, Unix milliseconds.
    pub at_ms: u64,
}

/// The directory of decisions.
#[derive(Clone, Debug)]
pub struct Decisions {
    dir: PathBuf,
}

/// Which decisions there were, and when each was written.
pub type Snapshot = BTreeMap<PathBuf, Option<SystemTime>>;

impl Decisions {
    /// Those in a site's state directory.
    pub fn of_site(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("decisions") }
    }

    /// What was decided last about a task, whatever it was shown as.
    ///
    /// # Errors  [`crate::Error::Common`] for a file that cannot be read
    pub fn about(&self, task: TaskId) -> Result<Option<Decision>> {
        let path = self.path(task);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = fs::read_bounded(&path, MAX_BYTES)?;
        let decode = |detail: String| CommonError::Decode { what: "decision about a task", detail };
        let decision: Decision =
            serde_json::from_slice(&bytes).map_err(|e| decode(format!("`{}`: {e}", path.display())))?;
        match decision.task == task {
            true => Ok(Some(decision)),
            false => Err(decode(format!("`{}` is about task {}", path.display(), decision.task)).into()),
        }
    }

    /// Keeps a decision, in the place of an earlier one about the task. When this returns it is on disk.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub fn decide(&self, task: TaskId, offer: Digest, answer: Answer) -> Result<Decision> {
        let decision = Decision { task, offer, answer, at_ms: now_ms() };
        fs::create_private_dir(&self.dir)?;
        let mut bytes = serde_json::to_vec(&decision).expect("a decision is JSON");
        bytes.push(b'\n');
        fs::write_atomic(&self.path(task), &bytes)?;
        Ok(decision)
    }

    /// Which decisions there are now.
    pub fn snapshot(&self) -> Snapshot {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.map(|entry| (entry.path(), entry.metadata().and_then(|found| found.modified()).ok())).collect()
    }

    /// Waits until there are others than these.
    pub async fn changed(&self, since: &Snapshot) {
        while self.snapshot() == *since {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until somebody declines a task about which this was the last word.
    pub async fn declined(&self, task: TaskId, before: Option<Decision>) -> Because {
        loop {
            tokio::time::sleep(LOOK).await;
            // A file that cannot be read decides nothing.
            let Some(now) = self.about(task).ok().flatten().filter(|now| Some(*now) != before) else { continue };
            if let Answer::Declined(because) = now.answer {
                return because;
            }
        }
    }

    fn path(&self, task: TaskId) -> PathBuf {
        self.dir.join(format!("task-{task}.json"))
    }
}

/// A decision is some hundred bytes.
const MAX_BYTES: u64 = 1 << 16;
/// How soon a worker that waits sees a decision: people are slower.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_decision_is_kept_replaced_and_seen() {
        let dir = tempfile::tempdir().unwrap();
        let decisions = Decisions::of_site(dir.path());
        let (shown, task) = (Digest::of(b"shown"), TaskId(3));
        assert_eq!(decisions.about(task).unwrap(), None);
        let before = decisions.snapshot();
        let declined = decisions.decide(task, shown, Answer::Declined(Because::Purpose)).unwrap();
        assert_ne!(decisions.snapshot(), before);
        assert_eq!(Decisions::of_site(dir.path()).about(task).unwrap(), Some(declined), "over a restart");
        let approved = decisions.decide(task, shown, Answer::Approved).unwrap();
        assert_eq!(decisions.about(task).unwrap(), Some(approved));
        assert_eq!(decisions.about(TaskId(4)).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_no_decision_or_about_another_task_decides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let decisions = Decisions::of_site(dir.path());
        decisions.decide(TaskId(3), Digest::of(b"shown"), Answer::Approved).unwrap();
        std::fs::copy(decisions.path(TaskId(3)), decisions.path(TaskId(4))).unwrap();
        assert!(decisions.about(TaskId(4)).unwrap_err().to_string().contains("is about task 3"));
        std::fs::write(decisions.path(TaskId(3)), b"{}").unwrap();
        assert!(decisions.about(TaskId(3)).unwrap_err().to_string().contains("decision about a task"));
    }

    #[test]
    fn the_words_that_go_to_coordinators_differ_and_hold_no_number() {
        let texts: BTreeSet<String> = Because::value_variants().iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), Because::value_variants().len());
        assert!(texts.iter().all(|text| !text.contains(|letter: char| letter.is_ascii_digit())));
    }
}
