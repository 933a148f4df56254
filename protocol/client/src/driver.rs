//! Drives a [`SiteSession`] over a transport: one task that owns session, connection and clock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use archipelago_common::{NodeId, limits};
use archipelago_protocol::{
    Output, Parting, RequestId, SiteSession,
    frame::{self, Message as _},
    message::{FromCoordinator, Notice, Reply, Request, StreamOpen},
};
use archipelago_transport::{
    BoxFuture, Connection, Error as TransportError, RecvHalf, Replacements, SendHalf, Transport, error::Cause,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{debug, info, warn};

use crate::{
    error::{Attempt, ClientError, Result, Tried},
    known::KnownFile,
    told::Told,
};

/// What handles ask of the task.
pub(crate) enum Command {
    /// Ask the coordinators. A dropped receiver cancels.
    Request(Box<Request>, oneshot::Sender<Result<Reply>>),
    /// A transfer was told by the first who leads: the second.
    LeaderHint(NodeId, Option<NodeId>),
}

/// What handles see of the task.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The connection of the session that stands.
    pub(crate) connection: Option<Connection>,
    /// What coordinators said that could not be reached since the session last stood.
    pub(crate) tried: Tried,
    /// Whether each coordinator has been tried in vain since the session last stood.
    pub(crate) all_tried: bool,
    /// Whether each coordinator has said that it will not have us.
    pub(crate) shut_out: bool,
    /// Where the coordinators are.
    pub(crate) addresses: Arc<BTreeMap<NodeId, String>>,
}

/// The task's state; [`Driver::run`] is the task.
pub(crate) struct Driver {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) addresses: Arc<BTreeMap<NodeId, String>>,
    pub(crate) known: KnownFile,
    pub(crate) session: SiteSession,
    pub(crate) started: Instant,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) notices: broadcast::Sender<Notice>,
    pub(crate) view: watch::Sender<View>,
    pub(crate) link: Link,
    pub(crate) waiting: BTreeMap<RequestId, oneshot::Sender<Result<Reply>>>,
    pub(crate) said: BTreeMap<NodeId, TransportError>,
    pub(crate) told: Told,
    /// What tells that this side has another certificate, where it can have one.
    pub(crate) replacements: Option<Replacements>,
}

/// The connection to the coordinator that the session asked for.
pub(crate) enum Link {
    /// None.
    Down,
    /// On its way.
    Dialling(NodeId, BoxFuture<'static, Result<Up, TransportError>>),
    /// There.
    Up(NodeId, Up),
}

/// A connection with its control stream.
pub(crate) struct Up {
    connection: Connection,
    frames: mpsc::Sender<Vec<u8>>,
    recv: RecvHalf,
}

enum Event {
    Command(Option<Command>),
    Dialled(Result<Up, TransportError>),
    Received(Result<Option<Vec<u8>>, TransportError>),
    /// This side has another certificate.
    Renewed,
    Time,
}

impl Driver {
    /// Runs until every handle is gone.
    pub(crate) async fn run(mut self) {
        loop {
            while let Some(output) = self.session.poll_output() {
                self.execute(output);
            }
            self.publish();
            let wake_ms = self.session.poll_timeout();
            let wake = wake_ms.map_or_else(|| Instant::now() + FAR, |ms| self.started + Duration::from_millis(ms));
            let event = tokio::select! {
                command = self.commands.recv() => Event::Command(command),
                event = self.link.next() => event,
                () = renewed(&mut self.replacements) => Event::Renewed,
                () = tokio::time::sleep_until(wake) => Event::Time,
            };
            if !self.handle(event) {
                break;
            }
        }
        if let Link::Up(_, up) = self.link {
            up.connection.close("done");
        }
    }

    /// Passes an event to the session; `false` ends the task.
    fn handle(&mut self, event: Event) -> bool {
        let now_ms = self.now_ms();
        match event {
            Event::Command(None) => return false,
            Event::Command(Some(Command::Request(body, answer))) => self.request(now_ms, *body, answer),
            Event::Command(Some(Command::LeaderHint(from, leader))) => {
                self.session.handle_leader_hint(now_ms, from, leader);
            }
            Event::Dialled(Ok(up)) => {
                if let Link::Dialling(node, _) = self.link {
                    self.link = Link::Up(node, up);
                }
            }
            Event::Dialled(Err(error)) => self.lost(now_ms, error),
            Event::Received(Ok(Some(frame))) => self.received(now_ms, &frame),
            Event::Received(Ok(None)) => {
                self.lost(now_ms, TransportError::Closed { reason: "the coordinator ended the session".to_owned() });
            }
            Event::Received(Err(error)) => self.lost(now_ms, error),
            Event::Renewed => {
                info!("this side has another certificate, and comes with that from here on");
                if let Link::Up(_, up) = std::mem::replace(&mut self.link, Link::Down) {
                    up.connection.close("comes again with another certificate");
                }
                // What was said was said to the one before.
                self.said.clear();
                self.session.handle_disconnected(now_ms);
            }
            Event::Time => {
                self.waiting.retain(|&id, answer| {
                    if answer.is_closed() {
                        self.session.handle_cancel(id);
                    }
                    !answer.is_closed()
                });
                self.session.handle_time(now_ms);
            }
        }
        true
    }

    fn request(&mut self, now_ms: u64, body: Request, answer: oneshot::Sender<Result<Reply>>) {
        match self.session.handle_request(now_ms, body) {
            Ok(id) => drop(self.waiting.insert(id, answer)),
            // A receiver that is gone no longer wants to know.
            Err(error) => drop(answer.send(Err(ClientError::Request(error.to_string())))),
        }
    }

    fn received(&mut self, now_ms: u64, frame: &[u8]) {
        let before = self.session.node();
        if let Err(error) = self.session.handle_frame(now_ms, frame) {
            return self.note(TransportError::BadPeer { detail: error.to_string() });
        }
        // What follows the welcome says who the coordinators are: only then is it known that these are the right ones.
        if before.is_some() {
            self.said.clear();
            self.told.forget();
        } else if let Some(node) = self.session.node() {
            info!(%node, "session stands");
            // Whatever was said while there was no session was missed.
            let _ = self.notices.send(Notice::TasksChanged);
        }
    }

    fn lost(&mut self, now_ms: u64, error: TransportError) {
        self.note(error);
        self.link = Link::Down;
        self.session.handle_disconnected(now_ms);
    }

    /// What it means that the coordinator that we are at says nothing.
    fn silence(&self) -> TransportError {
        match self.link {
            Link::Dialling(node, _) => TransportError::Unreachable {
                address: self.addresses.get(&node).cloned().unwrap_or_default(),
                cause: Cause::Silent,
                detail: "nothing came back in time".to_owned(),
            },
            Link::Up(..) | Link::Down => TransportError::Lost { detail: "it did not answer in time".to_owned() },
        }
    }

    /// Remembers what the coordinator that we are at has said.
    fn note(&mut self, error: TransportError) {
        let (Link::Dialling(node, _) | Link::Up(node, _)) = self.link else { return };
        let address = self.addresses.get(&node).map_or("", String::as_str);
        let hint = error.hint();
        if !self.told.is_news(node, &error.to_string(), Instant::now()) {
            debug!(%node, address, %error, "no session");
        } else if error.is_transient() {
            info!(%node, address, %error, hint, "no session");
        } else {
            warn!(%node, address, %error, hint, "no session");
        }
        self.said.insert(node, error);
    }

    fn execute(&mut self, output: Output) {
        match output {
            Output::Connect(node) => {
                let dialling = dial(self.transport.clone(), self.addresses.get(&node).cloned(), node, &self.session);
                self.link = Link::Dialling(node, dialling);
            }
            Output::Send(frame) => {
                // The channel holds as many requests as may be under way. If it is full or closed all the same, the
                // connection is as good as broken, and the session will notice that no answer comes.
                if let Link::Up(_, up) = &self.link {
                    let _ = up.frames.try_send(frame);
                }
            }
            Output::Disconnect(parting) => {
                if parting == Parting::Silence {
                    self.note(self.silence());
                }
                if let Link::Up(_, up) = std::mem::replace(&mut self.link, Link::Down) {
                    up.connection.close("moving on");
                }
            }
            Output::Answer { id, result } => {
                if let Some(answer) = self.waiting.remove(&id) {
                    // A receiver that is gone no longer wants to know.
                    let _ = answer.send(result.map_err(ClientError::Refused));
                }
            }
            Output::Notice(notice) => {
                match &notice {
                    Notice::Closing { reason } => self.note(TransportError::Closed { reason: reason.clone() }),
                    Notice::MembersChanged { addresses } if !addresses.is_empty() => {
                        self.known.learn(addresses);
                        self.addresses = Arc::new(addresses.clone());
                    }
                    _ => {}
                }
                // Nobody needs to listen.
                let _ = self.notices.send(notice);
            }
        }
    }

    /// Shows the handles where things stand; requests that can never be answered fail.
    fn publish(&mut self) {
        let connection = match &self.link {
            Link::Up(_, up) if self.session.node().is_some() => Some(up.connection.clone()),
            _ => None,
        };
        let attempt = |(&node, said): (&NodeId, &TransportError)| Attempt {
            node,
            address: self.addresses.get(&node).cloned().unwrap_or_default(),
            said: said.clone(),
        };
        let tried = Tried(self.said.iter().map(attempt).collect());
        let all_tried = self.said.len() == self.addresses.len();
        let shut_out = all_tried && self.said.values().all(|error| !error.is_transient());
        if shut_out {
            for (id, answer) in std::mem::take(&mut self.waiting) {
                self.session.handle_cancel(id);
                let _ = answer.send(Err(ClientError::Unreachable { tried: tried.clone() }));
            }
        }
        let addresses = self.addresses.clone();
        self.view.send_replace(View { connection, tried, all_tried, shut_out, addresses });
    }

    fn now_ms(&self) -> u64 {
        // Half a billion years fit.
        self.started.elapsed().as_millis() as u64
    }
}

impl Link {
    /// Waits for what the connection does next. Safe to cancel.
    async fn next(&mut self) -> Event {
        match self {
            Self::Down => std::future::pending().await,
            Self::Dialling(_, dialling) => Event::Dialled(dialling.await),
            Self::Up(_, up) => Event::Received(up.recv.recv_frame(FromCoordinator::LIMIT).await),
        }
    }
}

async fn renewed(replacements: &mut Option<Replacements>) {
    match replacements {
        Some(replacements) => replacements.next().await,
        None => std::future::pending().await,
    }
}

fn dial(
    transport: Arc<dyn Transport>,
    address: Option<String>,
    node: NodeId,
    session: &SiteSession,
) -> BoxFuture<'static, Result<Up, TransportError>> {
    let hello = frame::encode(&StreamOpen::Control(session.hello()));
    Box::pin(async move {
        let unreachable =
            |detail: String| TransportError::Unreachable { address: node.to_string(), cause: Cause::Local, detail };
        let address = address.ok_or_else(|| unreachable("no address is configured".to_owned()))?;
        let hello = hello.map_err(|e| unreachable(e.to_string()))?;
        let connection = transport.dial(&address, node).await?;
        let mut stream = connection.open_stream().await?;
        stream.send_frame(&hello).await?;
        let (send, recv) = stream.split();
        let (frames, queue) = mpsc::channel(limits::REQUESTS_IN_FLIGHT);
        tokio::spawn(write(connection.clone(), send, queue));
        Ok(Up { connection, frames, recv })
    })
}

/// Sends frames until the driver lets go of the connection or it breaks.
async fn write(connection: Connection, mut send: SendHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = queue.recv().await {
        if send.send_frame(&frame).await.is_err() {
            // The reader sees the same end and reports it; a stream that broke alone ends the session too.
            connection.close("the control stream broke");
            return;
        }
    }
}

/// A wake-up for a session that waits for nothing.
const FAR: Duration = Duration::from_secs(3_600);
