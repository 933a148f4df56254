//! One control stream: [`CoordinatorSession`] between the stream and the executor.

use std::sync::Arc;

use archipelago_cluster::Effect;
use archipelago_common::{
    Principal, limits,
    member::{self, MemberRecord},
    text::printable,
};
use archipelago_protocol::{
    Asked, CoordinatorSession,
    message::{Hello, Refusal, Reply},
};
use archipelago_transport::{SendHalf, Stream, Way};
use tokio::sync::{broadcast, mpsc};

use super::{Executor, course::Asker};
use crate::{error::Result, ops::metrics, raft::task::View};

/// Runs a session until the peer leaves.
///
/// # Errors  [`crate::Error::Protocol`] for a peer that breaks the rules, [`crate::Error::Transport`]
pub(super) async fn run(stream: Stream, hello: Hello, (asker, way): (Asker, Way), executor: Executor) -> Result<()> {
    let who = asker.who.clone();
    let _counted = Counted::new(&who, way);
    let contact = executor.contacts().begin(&who);
    let (mut send, mut recv) = stream.split();
    let (raft, mut effects) = (executor.raft().clone(), executor.raft().effects());
    let mut view = raft.watch();
    let mut leader = raft.view().leader;
    let mut members = Arc::default();
    let mut session = CoordinatorSession::open((*who).clone(), &hello, raft.view().node, leader)?;
    let (answer, mut answers) = mpsc::channel::<(u64, Result<Reply, Refusal>)>(limits::REQUESTS_IN_FLIGHT);
    tracing::debug!(%who, software = printable(&hello.software, SOFTWARE_CHARS), "a session begins");
    tell_members(&mut session, &mut members, &raft.view());
    loop {
        flush(&mut session, &mut send, &who, &executor).await?;
        tokio::select! {
            frame = recv.recv_frame(limits::FRAME_BYTES) => {
                let Some(frame) = frame? else { return Ok(()) };
                contact.heard();
                let Some(Asked { id, key, body }) = session.handle_frame(&frame)? else { continue };
                if let Err(refusal) = executor.quotas().request(&who) {
                    session.handle_answer(id, Err(refusal));
                    continue;
                }
                let (executor, asker, answer, held) = (executor.clone(), asker.clone(), answer.clone(), recv.take_held());
                // Goes on if the peer leaves meanwhile: it will come back for the answer under the same key.
                tokio::spawn(async move {
                    let result = executor.execute(asker, key, body).await;
                    // The room of the request's frame is its own until it is answered.
                    drop(held);
                    // The session may have ended.
                    let _ = answer.send((id, result)).await;
                });
            }
            Some((id, result)) = answers.recv() => session.handle_answer(id, result),
            effect = effects.recv() => match effect {
                // Who missed some must look anew.
                Ok(Effect::AnnounceTasks) | Err(broadcast::error::RecvError::Lagged(_)) => session.handle_tasks_changed(),
                // The connection, which owns this session, sees to that.
                Ok(Effect::CutSessions { .. }) => {}
                Err(broadcast::error::RecvError::Closed) => session.handle_close("the coordinator stops"),
            },
            changed = view.changed() => {
                let now = view.borrow_and_update().clone();
                if changed.is_err() {
                    return Ok(());
                }
                tell_members(&mut session, &mut members, &now);
                if now.leader != leader {
                    leader = now.leader;
                    session.handle_leader_changed(leader);
                }
            }
        }
    }
}

/// Tells the peer where the coordinators are, at first and whenever it changes, before it is sent to one of them.
fn tell_members(session: &mut CoordinatorSession, told: &mut Arc<Vec<MemberRecord>>, view: &View) {
    if !Arc::ptr_eq(told, &view.members) {
        *told = view.members.clone();
        session.handle_members_changed(member::addresses(told.iter()));
    }
}

async fn flush(
    session: &mut CoordinatorSession,
    send: &mut SendHalf,
    who: &Principal,
    executor: &Executor,
) -> Result<()> {
    while let Some(frame) = session.poll_frame() {
        executor.quotas().answered(who, frame.len());
        send.send_frame(&frame).await?;
    }
    Ok(())
}

/// Characters of a peer's software that are shown.
const SOFTWARE_CHARS: usize = 100;

/// A session in the metrics, from its begin to its end.
struct Counted([&'static str; 2]);

impl Counted {
    fn new(who: &Principal, way: Way) -> Self {
        let labels = [who.role(), way.as_str()];
        metrics::SESSIONS.with_label_values(&labels).inc();
        Self(labels)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::SESSIONS.with_label_values(&self.0).dec();
    }
}
