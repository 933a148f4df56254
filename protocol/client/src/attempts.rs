//! What uploads and downloads share: one attempt after another, as long as there is progress and patience.

use std::time::Duration;

use archipelago_common::Principal;
use archipelago_protocol::message::Refusal;
use archipelago_transport::{Connection, Error as TransportError};
use tokio::time::Instant;

use crate::{
    Client, Patience,
    driver::Command,
    error::{ClientError, Result},
};

/// Repeats a transfer until it is done: pauses between attempts, goes on for as long as there is progress and patience.
pub(crate) struct Attempts<'a> {
    client: &'a Client,
    last_progress: Instant,
    n_failed: u32,
}

/// How one attempt at a transfer ended, if not well.
pub(crate) enum Failed {
    /// Another may do better.
    Transport(TransportError),
    /// The coordinator says so.
    Refused(Refusal),
    /// Every other would end the same way.
    Finally(ClientError),
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client, last_progress: Instant::now(), n_failed: 0 }
    }

    /// There was progress: patience begins anew.
    pub(crate) fn progress(&mut self) {
        self.last_progress = Instant::now();
        self.n_failed = 0;
    }

    /// Waits before the next attempt, or says why there is none. `asked` is whom the last one asked.
    pub(crate) async fn failed(&mut self, asked: &Connection, failed: Failed) -> Result<()> {
        let mut pause = PAUSE * (1 << self.n_failed.min(MOST_DOUBLINGS));
        self.n_failed += 1;
        match failed {
            Failed::Finally(error) => return Err(error),
            Failed::Refused(Refusal::NotLeader { leader }) => {
                if let Principal::Coordinator(from) = asked.peer().principal {
                    self.client.command(Command::LeaderHint(from, leader)).await?;
                }
            }
            Failed::Refused(Refusal::Busy { retry_after_ms }) => {
                pause = pause.max(Duration::from_millis(retry_after_ms).min(LONGEST_BUSY));
            }
            Failed::Refused(refusal) => return Err(ClientError::Refused(refusal)),
            Failed::Transport(error) => tracing::info!(%error, "transfer interrupted"),
        }
        if let Patience::Within(limit) = self.client.patience
            && self.last_progress.elapsed() + pause > limit
        {
            return Err(self.client.timed_out(limit));
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        Ok(())
    }
}

impl From<TransportError> for Failed {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

/// What a coordinator should not send is that coordinator's fault: another attempt may do better.
pub(crate) fn bad_peer(error: &archipelago_protocol::Error) -> Failed {
    TransportError::BadPeer { detail: error.to_string() }.into()
}

pub(crate) fn stalled() -> TransportError {
    TransportError::Lost { detail: "the transfer stalled".to_owned() }
}

/// How long a chunk may take: 1 MiB in a minute is 17 kB/s.
pub(crate) const STALL: Duration = Duration::from_secs(60);
/// Pause before a transfer's second attempt; doubles with every failure in a row.
const PAUSE: Duration = Duration::from_millis(50);
/// 50 ms × 2⁶ is 3.2 s.
const MOST_DOUBLINGS: u32 = 6;
/// Longest pause that a coordinator can impose.
const LONGEST_BUSY: Duration = Duration::from_secs(60);
