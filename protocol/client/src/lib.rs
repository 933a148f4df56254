//! Asks the coordinators: one [`Client`] for a worker, or for a command of an operator.
//!
//! A client keeps one session with whoever leads, follows the leader, survives restarts of coordinators, and sends a
//! request again under its first key until it has an answer. Blobs travel on streams of their own beside the session
//! and resume where they stopped. The thinking is in `archipelago-protocol`, the bytes in `archipelago-transport`; this crate
//! is the loop between them.

mod attempts;
pub mod doctor;
mod driver;
mod error;
mod get;
pub mod invite;
mod known;
mod pages;
mod partial;
mod put;
mod sources;
mod told;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use archipelago_common::{NodeId, blob::BlobRef};
use archipelago_protocol::{
    SessionConfig, SiteSession,
    message::{Notice, Reply, Request},
};
use archipelago_transport::{
    Connection, Credentials, Replacements, Transport,
    net::{NetTransport, Network},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::Instant,
};

use driver::{Command, Driver, Link, View};
pub use error::{Attempt, ClientError, Result, Tried};
use known::KnownFile;
pub use put::Source;
use told::Told;

/// Whom to ask and how long to wait.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// All coordinators and their addresses, `host:port`.
    pub coordinators: BTreeMap<NodeId, String>,
    /// Who asks.
    pub credentials: Credentials,
    /// Name and version of the asking software, for the coordinator's log.
    pub software: String,
    /// How long to wait.
    pub patience: Patience,
    /// The file in which it is kept who the coordinators are, so that the next start goes to no other cluster.
    pub known: Option<PathBuf>,
    /// How the network is used.
    pub network: Network,
}

/// How long a client waits for the coordinators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// A worker's: coordinators come back. Only if every one of them refuses this identity does a request fail.
    Forever,
    /// A command's: no longer than this for an answer, or for a transfer's next byte.
    Within(Duration),
}

/// A handle on the session. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    notices: broadcast::Sender<Notice>,
    view: watch::Receiver<View>,
    transport: Arc<dyn Transport>,
    patience: Patience,
}

impl Client {
    /// Starts a session over QUIC, or over TCP where UDP does not come through. With [`Patience::Within`], returns once it stands or every coordinator has been tried
    /// in vain; with [`Patience::Forever`], at once.
    ///
    /// # Errors  [`ClientError::NoCoordinators`]; [`ClientError::Unreachable`] and [`ClientError::TimedOut`], with every
    /// address and what was said there
    pub async fn connect(config: ClientConfig) -> Result<Self> {
        let replacements = Some(config.credentials.replacements());
        let transport = Arc::new(NetTransport::new(config.credentials, config.network));
        let known = KnownFile::open(config.known);
        Self::begin(transport, replacements, config.coordinators, &config.software, config.patience, known).await
    }

    /// The same over any transport.
    ///
    /// # Errors  as [`Self::connect`]
    pub async fn connect_over(
        transport: Arc<dyn Transport>,
        coordinators: BTreeMap<NodeId, String>,
        software: &str,
        patience: Patience,
    ) -> Result<Self> {
        Self::begin(transport, None, coordinators, software, patience, KnownFile::open(None)).await
    }

    /// The same with what is known from earlier sessions.
    async fn begin(
        transport: Arc<dyn Transport>,
        replacements: Option<Replacements>,
        coordinators: BTreeMap<NodeId, String>,
        software: &str,
        patience: Patience,
        known: KnownFile,
    ) -> Result<Self> {
        if coordinators.is_empty() {
            return Err(ClientError::NoCoordinators);
        }
        let nodes = coordinators.keys().copied().collect();
        let config = SessionConfig { known: known.of(&coordinators), ..SessionConfig::new(nodes, software) };
        let (commands, received) = mpsc::channel(COMMANDS);
        let (notices, _) = broadcast::channel(NOTICES);
        let addresses = Arc::new(coordinators);
        let (shown, view) = watch::channel(View { addresses: addresses.clone(), ..View::default() });
        let driver = Driver {
            transport: transport.clone(),
            addresses,
            known,
            session: SiteSession::new(config, rand::random(), 0),
            started: Instant::now(),
            commands: received,
            notices: notices.clone(),
            view: shown,
            link: Link::Down,
            waiting: BTreeMap::new(),
            said: BTreeMap::new(),
            told: Told::default(),
            replacements,
        };
        tokio::spawn(driver.run());
        let client = Self { commands, notices, view, transport, patience };
        if let Patience::Within(limit) = patience {
            client.first_contact(limit).await?;
        }
        Ok(client)
    }

    /// Asks something and waits for the answer, over reconnections and changes of leader.
    ///
    /// Dropping the future stops asking, not what was asked: it may already be carried out.
    ///
    /// # Errors  [`ClientError::Refused`] with the coordinators' reason; [`ClientError::TimedOut`];
    /// [`ClientError::Unreachable`] if every coordinator refuses this identity
    pub async fn request(&self, body: Request) -> Result<Reply> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Request(Box::new(body), answer)).await?;
        let answered = async { answered.await.map_err(|_| ClientError::Closed)? };
        match self.patience {
            Patience::Forever => answered.await,
            Patience::Within(limit) => {
                tokio::time::timeout(limit, answered).await.map_err(|_| self.timed_out(limit))?
            }
        }
    }

    /// Uploads a blob. Returns when it is durable on a majority of coordinators. `progress` is told how many bytes are
    /// there; what an earlier attempt left there is not sent again.
    ///
    /// # Errors  [`ClientError::File`], [`ClientError::Transfer`] if the source is not the blob, and as [`Self::request`]
    pub async fn put_blob(&self, blob: BlobRef, source: Source<'_>, progress: impl FnMut(u64) + Send) -> Result<()> {
        put::put(self, blob, source, progress).await
    }

    /// Downloads a blob to a file, which is there whole and verified or not at all. `progress` is told how many
    /// bytes are there; what an earlier attempt left beside the file (`….part`, `….chunks`) is not asked for again. Where one
    /// coordinator lacks the blob, or has something else in its place, another is asked.
    ///
    /// # Errors  [`ClientError::File`], [`ClientError::Transfer`], and as [`Self::request`]
    pub async fn get_blob(
        &self,
        blob: BlobRef,
        destination: &std::path::Path,
        progress: impl FnMut(u64) + Send,
    ) -> Result<()> {
        get::get(self, blob, destination, progress).await
    }

    /// What the coordinators say unasked, from now on.
    pub fn notices(&self) -> Notices {
        Notices { received: self.notices.subscribe() }
    }

    /// How things stand with the coordinators, from now on.
    pub fn contact(&self) -> Contacts {
        Contacts { view: self.view.clone(), last: None }
    }

    async fn first_contact(&self, limit: Duration) -> Result<()> {
        let mut view = self.view.clone();
        let settled = view.wait_for(|view| view.connection.is_some() || view.all_tried);
        let view = match tokio::time::timeout(limit, settled).await {
            Ok(view) => view.map_err(|_| ClientError::Closed)?.clone(),
            Err(_) => return Err(self.timed_out(limit)),
        };
        match view.connection {
            Some(_) => Ok(()),
            None => Err(ClientError::Unreachable { tried: view.tried }),
        }
    }

    /// The connection of the session, as soon as it stands.
    async fn connection(&self) -> Result<Connection> {
        let mut view = self.view.clone();
        let settled = view.wait_for(|view| view.connection.is_some() || view.shut_out);
        let view = match self.patience {
            Patience::Forever => settled.await.map_err(|_| ClientError::Closed)?.clone(),
            Patience::Within(limit) => match tokio::time::timeout(limit, settled).await {
                Ok(view) => view.map_err(|_| ClientError::Closed)?.clone(),
                Err(_) => return Err(self.timed_out(limit)),
            },
        };
        view.connection.ok_or(ClientError::Unreachable { tried: view.tried })
    }

    async fn command(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| ClientError::Closed)
    }

    fn timed_out(&self, after: Duration) -> ClientError {
        ClientError::TimedOut { after, tried: self.view.borrow().tried.clone() }
    }
}

/// What the coordinators say unasked.
pub struct Notices {
    received: broadcast::Receiver<Notice>,
}

impl Notices {
    /// The next notice; `None` once the client is gone. Whoever reads slowly misses notices but never the news that
    /// there may be work: [`Notice::TasksChanged`] comes after a gap, and after every reconnection. Safe to cancel.
    pub async fn next(&mut self) -> Option<Notice> {
        match self.received.recv().await {
            Ok(notice) => Some(notice),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Notice::TasksChanged),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// How a client stands with the coordinators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contact {
    /// It has a session with one of them.
    Standing,
    /// It has none, and looks for one.
    Away,
    /// Each of them has said that it will not have this identity.
    ShutOut,
}

/// How things stand with the coordinators, told as it changes.
pub struct Contacts {
    view: watch::Receiver<View>,
    last: Option<Contact>,
}

impl Contacts {
    /// How it stands, the first time at once and then when it is another; `None` once the client is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<Contact> {
        let last = self.last;
        let contact = Contact::of(&*self.view.wait_for(|view| Some(Contact::of(view)) != last).await.ok()?);
        self.last = Some(contact);
        self.last
    }
}

impl Contact {
    fn of(view: &View) -> Self {
        match view {
            View { connection: Some(_), .. } => Self::Standing,
            View { shut_out: true, .. } => Self::ShutOut,
            View { .. } => Self::Away,
        }
    }
}

/// Commands that may wait for the driver.
const COMMANDS: usize = 64;
/// Notices that a slow reader may be behind.
const NOTICES: usize = 16;
