//! What a site tells the campaign, one JSON line each on its stdout, and what it is told on its stdin.

use std::time::{SystemTime, UNIX_EPOCH};

use archipelago_common::{BlobRef, TaskId};
use serde::{Deserialize, Serialize};

/// Work for a site: a task, and how many bytes of embeddings to send with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The task to claim.
    pub task: TaskId,
    /// Bytes of embeddings; none for a task that does not ask for them.
    pub embeddings: Option<u64>,
    /// How long to wait between the upload and the submission, for a fault that wants to be ready for it.
    pub wait_ms: u64,
    /// Whether to go on "training" until killed; renewals keep the lease meanwhile.
    pub holds: bool,
}

/// A step that a site has come to, and when.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Unix microseconds; all processes of a campaign share one clock.
    pub at_us: u64,
    /// The step.
    pub step: Step,
}

impl Event {
    /// This step, now.
    pub fn now(step: Step) -> Self {
        Self { at_us: now_us(), step }
    }
}

/// A step of a site's work.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The process waits for orders.
    Ready,
    /// The task is assigned to the site.
    Claimed {
        /// The task.
        task: TaskId,
        /// Its fencing epoch.
        epoch: u64,
    },
    /// Bytes of a large base have come.
    Downloading(Transfer),
    /// The base is there, verified.
    Downloaded {
        /// The task it is for.
        task: TaskId,
    },
    /// Bytes of a blob have been handed to the transport.
    Uploading(Transfer),
    /// Every blob of the submission is durable on a majority.
    Uploaded {
        /// The task it is for.
        task: TaskId,
    },
    /// The submission is on its way.
    Submitting {
        /// The task.
        task: TaskId,
    },
    /// The submission was accepted, and that is durably in the site's journal.
    Acknowledged {
        /// The task.
        task: TaskId,
    },
    /// The coordinators will not take the work; nothing was acknowledged.
    Refused {
        /// The task.
        task: TaskId,
        /// In their words.
        reason: String,
    },
    /// The site cannot go on, which is a defect of somebody's.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How far a transfer has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// The task that it is for.
    pub task: TaskId,
    /// What is moved.
    pub blob: BlobRef,
    /// Bytes that need not be moved again as far as the site knows.
    pub done: u64,
}

/// Unix microseconds.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
