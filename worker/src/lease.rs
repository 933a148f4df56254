//! Keeping a task while work on it goes on.

use std::time::Duration;

use archipelago_client::ClientError;
use archipelago_common::{
    limits,
    record::{Progress, TaskHead},
};
use archipelago_protocol::message::Refusal;
use tokio::{
    sync::watch,
    time::{Instant, interval_at},
};

use crate::{
    egress::Lease,
    error::Error,
    session::{Site, in_contact},
};

/// Keeps the lease until dropped: at the first word of progress, then at a steady pace. Returns only when the task is lost.
pub(crate) async fn keep(
    site: &mut Site,
    record: &TaskHead,
    lease: &mut Lease,
    mut progress: watch::Receiver<Progress>,
) -> Error {
    let pace = RENEWAL.min(Duration::from_millis(record.task.lease_ms / 3));
    let mut ticks = interval_at(Instant::now() + pace, pace);
    let mut is_first_epoch = progress.borrow().epochs_done == 0;
    loop {
        tokio::select! {
            _ = progress.wait_for(|p| p.epochs_done > 0), if is_first_epoch => is_first_epoch = false,
            _ = ticks.tick() => {}
        }
        let now = *progress.borrow();
        site.metrics.set_progress(Some(now));
        let released = match site.gate.release_progress(record.id, now) {
            Ok(released) => released,
            Err(error) => return error,
        };
        match in_contact(&site.metrics, site.uplink.renew(*lease, released)).await {
            Ok(()) => {}
            Err(Error::Client(ClientError::Refused(Refusal::Stale { reason }))) => {
                tracing::warn!(task = %record.id, reason, "the lease is gone; claiming again");
                match site.uplink.claim(record.id).await {
                    Ok(again) => *lease = again,
                    Err(error) => return error,
                }
            }
            Err(error) => return error,
        }
    }
}

/// The coordinators replicate at most one renewal per ten seconds.
const RENEWAL: Duration = Duration::from_millis(limits::RENEWAL_INTERVAL_MS);
