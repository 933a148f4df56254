//! The requests of a session that wait for their answers: when each is sent, and sent again.

use archipelago_common::limits;

use super::{Output, SiteSession, State};
use crate::message::Refusal;

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending {
    /// As it is sent.
    pub(super) frame: Vec<u8>,
    /// The protocol version that has a word for it.
    pub(super) since: u16,
    /// Whether it was sent.
    pub(super) progress: Sending,
}

/// Whether a request was sent on the connection there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sending {
    /// To be sent, not before then.
    Due { at_ms: u64 },
    /// Sent on this connection, then.
    Sent { at_ms: u64 },
}

impl SiteSession {
    /// What was sent on a connection that is gone is sent again on the next; what waits because of `Busy` goes on waiting.
    pub(super) fn make_all_due(&mut self, now_ms: u64) {
        for request in self.requests.values_mut() {
            if matches!(request.progress, Sending::Sent { .. }) {
                request.progress = Sending::Due { at_ms: now_ms };
            }
        }
    }

    pub(super) fn send_due(&mut self, now_ms: u64) {
        let State::Ready { protocol, .. } = self.state else { return };
        self.refuse_unknown(protocol);
        let n_room = limits::REQUESTS_IN_FLIGHT.saturating_sub(self.n_sent());
        let due = self
            .requests
            .values_mut()
            .filter(|request| matches!(request.progress, Sending::Due { at_ms } if at_ms <= now_ms));
        for request in due.take(n_room) {
            request.progress = Sending::Sent { at_ms: now_ms };
            self.outputs.push_back(Output::Send(request.frame.clone()));
        }
    }

    /// Answers for a coordinator of an earlier version what it has no word for: it would take it for garbage.
    fn refuse_unknown(&mut self, protocol: u16) {
        let unknown: Vec<_> = self.requests.iter().filter(|(_, r)| r.since > protocol).map(|(id, _)| *id).collect();
        for id in unknown {
            self.requests.remove(&id);
            let reason = format!(
                "coordinator {} speaks protocol version {protocol}, which has no such request; upgrade it first",
                self.node
            );
            self.outputs.push_back(Output::Answer { id, result: Err(Refusal::Invalid { reason }) });
        }
    }

    fn sent_ms(&self) -> impl Iterator<Item = u64> {
        self.requests.values().filter_map(|request| match request.progress {
            Sending::Sent { at_ms } => Some(at_ms),
            Sending::Due { .. } => None,
        })
    }

    pub(super) fn n_sent(&self) -> usize {
        self.sent_ms().count()
    }

    /// When a coordinator that owes an answer is to be asked whether it is alive.
    pub(super) fn ping_due(&self, heard_ms: u64) -> Option<u64> {
        self.sent_ms().min().map(|at_ms| at_ms.max(heard_ms) + self.config.ping_after_ms)
    }

    /// When a coordinator that owes an answer or a pong is given up.
    pub(super) fn silence_ends(&self, pong_until_ms: Option<u64>) -> Option<u64> {
        let answer = self.sent_ms().min().map(|at_ms| at_ms + self.config.request_timeout_ms);
        answer.into_iter().chain(pong_until_ms).min()
    }
}
