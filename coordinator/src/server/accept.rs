//! Connections from peers: who may be here, and what each of their streams is for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use archipelago_cluster::Effect;
use archipelago_common::{
    Principal,
    member::{MemberRole, Origin},
};
use archipelago_protocol::{
    frame::{self, Message as _},
    message::{GetReply, PeerAsk, PeerReply, Presentation, PutReply, Refusal, StreamOpen},
    role,
};
use archipelago_transport::{Connection, Listener, Stream, Way};
use tokio::{sync::broadcast, task::JoinSet, time::Instant};

use super::{
    Executor,
    admission::{self, Admission},
    course::Asker,
    deadlines::{self, Deadlines, Waiting},
    guests::{Guests, Place},
    peer, session, transfer,
};
use crate::{
    error::{Error, Result},
    raft::{peers, task::View},
};

/// Serves every connection until the listener ends.
pub async fn run(listener: &mut Listener, executor: Executor, deadlines: Deadlines) {
    let (mut connections, guests) = (JoinSet::new(), Guests::default());
    loop {
        tokio::select! {
            connection = listener.accept() => match connection {
                Some(connection) => {
                    let place = guests.seat(&connection);
                    connections.spawn(serve(connection, executor.clone(), deadlines, place));
                }
                None => return,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(connection: Connection, executor: Executor, deadlines: Deadlines, _place: Place) {
    let who = Arc::new(connection.peer().principal.clone());
    // Subscribed before the first look, so that a revocation in between is not missed.
    let mut effects = executor.raft().effects();
    let mut streams = JoinSet::new();
    let (has_greeted, n_sessions) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let room = executor.quotas().frames(&who);
    let mut turned_out = executor.guestbook().turns_out();
    let mut members = executor.raft().watch();
    if !admit(&connection, &who, &executor).await {
        return;
    }
    if let Some(certified) = connection.certified() {
        executor.guestbook().note(&who, certified);
    }
    let now = Instant::now();
    let mut waiting = match *who {
        Principal::Coordinator(_) => Waiting::Greeting(now),
        _ => Waiting::FirstStream(now),
    };
    loop {
        if has_greeted.load(Ordering::Acquire) && matches!(waiting, Waiting::Greeting(_)) {
            waiting = Waiting::after(&streams);
        }
        tokio::select! {
            stream = connection.accept_stream() => match stream {
                Ok(mut stream) => {
                    if !matches!(waiting, Waiting::Greeting(_)) {
                        waiting = Waiting::Nothing;
                    }
                    room.iter().for_each(|room| stream.recv.share_room(room.clone()));
                    let (has_greeted, n_sessions) = (has_greeted.clone(), n_sessions.clone());
                    let peer = Peer { who: who.clone(), way: connection.way(), has_greeted, n_sessions };
                    streams.spawn(serve_stream(stream, connection.clone(), peer, executor.clone()));
                }
                Err(error) => {
                    tracing::debug!(%who, %error, "a connection ended");
                    return;
                }
            },
            Some(_) = streams.join_next(), if !streams.is_empty() => {
                if waiting == Waiting::Nothing {
                    waiting = Waiting::after(&streams);
                }
            }
            () = deadlines::reached(deadlines.of(waiting)) => {
                // Before the members are known, or all know how, nobody has to say who it is.
                if matches!(waiting, Waiting::Greeting(_)) && !executor.must_greet().await {
                    waiting = Waiting::after(&streams);
                    continue;
                }
                connection.close(waiting.reason());
                return;
            }
            changed = members.changed(), if matches!(*who, Principal::Coordinator(_)) => {
                if changed.is_err() || cut_removed(&connection, &who, &members.borrow_and_update()) {
                    return;
                }
            }
            Ok(()) = turned_out.changed() => {
                connection.close("other authorities are accepted from here on");
                return;
            }
            effect = effects.recv() => {
                let concerns = match effect {
                    Ok(Effect::CutSessions { who: cut }) => *who == cut,
                    Ok(Effect::AnnounceTasks) => false,
                    Err(broadcast::error::RecvError::Lagged(_)) => true,
                    Err(broadcast::error::RecvError::Closed) => return,
                };
                if concerns && !admit(&connection, &who, &executor).await {
                    return;
                }
            }
        }
    }
}

/// The other end of a connection.
#[derive(Clone)]
struct Peer {
    who: Arc<Principal>,
    way: Way,
    /// Whether it is a coordinator that has said who it is, and was recognised.
    has_greeted: Arc<AtomicBool>,
    /// Sessions that were begun on its connection.
    n_sessions: Arc<AtomicUsize>,
}

/// Ends the connection of a coordinator once it is out of the cluster; before that its removal may need it.
fn cut_removed(connection: &Connection, who: &Principal, view: &View) -> bool {
    let Principal::Coordinator(node) = who else { return false };
    let is_removed = view.members.iter().any(|m| m.node == *node && m.role == MemberRole::Removed);
    let is_out = is_removed && !view.configuration.contains(*node);
    if is_out {
        connection.refuse(&format!("coordinator {node} was removed"));
    }
    is_out
}

/// Ends the connection of a peer that may not be here.
async fn admit(connection: &Connection, who: &Principal, executor: &Executor) -> bool {
    let refusal = match admission::decide(who, connection.certified().map(|certified| certified.key), executor).await {
        Admission::Granted => return true,
        Admission::Refused(refusal) => refusal,
        Admission::Unknown => {
            connection.close("there is no leader at the moment, and this coordinator cannot tell who was let in");
            return false;
        }
    };
    tracing::info!(%who, remote = connection.remote(), %refusal, "a peer is not let in");
    connection.refuse(&refusal.to_string());
    false
}

async fn serve_stream(mut stream: Stream, connection: Connection, peer: Peer, executor: Executor) {
    let who = peer.who.clone();
    let opened = tokio::time::timeout(FIRST_FRAME, stream.recv_frame(StreamOpen::LIMIT)).await;
    let Ok(Ok(Some(first))) = opened else { return };
    let served = match frame::decode(&first) {
        Ok(open) => dispatch(stream, open, &connection, peer, executor).await,
        Err(error) => Err(error.into()),
    };
    match served {
        Ok(()) => {}
        Err(Error::Transport(error)) => tracing::debug!(%who, %error, "a stream ended"),
        // The peer hears that the stream has ended, and comes again.
        Err(error) if error.is_trouble_with_blob() => tracing::warn!(%who, %error, "a transfer was given up"),
        Err(error) => {
            tracing::info!(%who, %error, "a peer broke the rules");
            connection.close(&error.to_string());
        }
    }
}

async fn dispatch(
    mut stream: Stream,
    open: StreamOpen,
    connection: &Connection,
    peer: Peer,
    executor: Executor,
) -> Result<()> {
    let who = peer.who;
    if let Err(refusal) = role::permit_stream(&who, &open) {
        return refuse(stream, &open, refusal).await;
    }
    if let Principal::Coordinator(node) = *who {
        let said = match open {
            StreamOpen::Peer(PeerAsk::Greet(greeting)) => Some(Presentation { greeting, origin: Origin::Unknown }),
            StreamOpen::Peer(PeerAsk::Present(said)) => Some(said),
            _ => None,
        };
        if let Some(said) = said {
            let own = executor.greeted(node, said).await;
            peer.has_greeted.fetch_or(own.is_ok(), Ordering::Release);
            let reply = match (own, &open) {
                (Ok(own), StreamOpen::Peer(PeerAsk::Greet(_))) => PeerReply::Greeting(own.greeting),
                (Ok(own), _) => PeerReply::Presentation(own),
                (Err(refusal), _) => PeerReply::Refused(refusal),
            };
            stream.send_frame(&frame::encode(&reply)?).await?;
            return Ok(stream.finish().await?);
        }
        if !peer.has_greeted.load(Ordering::Acquire) && executor.must_greet().await {
            let reason = format!("coordinator {node} has not said who it is");
            return refuse(stream, &open, Refusal::Forbidden { reason }).await;
        }
    }
    match open {
        StreamOpen::Control(hello) => {
            if peer.n_sessions.fetch_add(1, Ordering::Relaxed) >= SESSIONS {
                let reason = format!("a connection has {SESSIONS} sessions at most");
                return Err(Refusal::Invalid { reason }.into());
            }
            let key = connection.certified().map(|certified| certified.key);
            session::run(stream, hello, (Asker { who, key }, peer.way), executor).await
        }
        StreamOpen::Put(blob) => transfer::serve_put(stream, blob, &who, &executor).await,
        StreamOpen::Relay(blob) => match *who {
            Principal::Coordinator(by) => transfer::serve_relay(stream, blob, by, &executor).await,
            _ => Ok(()),
        },
        StreamOpen::Get { blob, from_chunk } => transfer::serve_get(stream, (blob, from_chunk), &who, &executor).await,
        StreamOpen::Peer(ask) => peer::serve(stream, ask, &executor).await,
        StreamOpen::Raft => receive_raft(stream, &who, &executor, None).await,
        StreamOpen::RaftFrom { address } => receive_raft(stream, &who, &executor, Some(&address)).await,
    }
}

async fn receive_raft(stream: Stream, who: &Principal, executor: &Executor, address: Option<&str>) -> Result<()> {
    let Principal::Coordinator(node) = *who else { return Ok(()) };
    if let Some(address) = address {
        executor.replicas().links().learn(node, address);
    }
    peers::receive(stream, node, executor.raft().clone()).await
}

/// Says no in the words of the stream's kind, where it has any.
async fn refuse(mut stream: Stream, open: &StreamOpen, refusal: Refusal) -> Result<()> {
    let frame = match open {
        StreamOpen::Put(_) | StreamOpen::Relay(_) => frame::encode(&PutReply::Refused(refusal))?,
        StreamOpen::Get { .. } => frame::encode(&GetReply::Refused(refusal))?,
        StreamOpen::Control(_) | StreamOpen::Raft | StreamOpen::RaftFrom { .. } | StreamOpen::Peer(_) => {
            return Err(refusal.into());
        }
    };
    stream.send_frame(&frame).await?;
    Ok(stream.finish().await?)
}

/// Sessions of one connection, over its life: a client has one, and makes a new connection for the next.
const SESSIONS: usize = 4;
/// A stream that is opened says at once what it is for.
const FIRST_FRAME: Duration = Duration::from_secs(10);
