//! Connections to the other coordinators: dialled when needed, kept, dialled again when lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use archipelago_cluster::mutation::{self, Rule};
use archipelago_common::NodeId;
use archipelago_protocol::{
    frame,
    message::{PeerAsk, PeerReply, StreamOpen},
};
use archipelago_transport::{Connection, Stream, Timing, Transport};
use tokio::sync::Mutex;

use crate::{acquaintance::Acquaintance, error::Result, frames};

/// The way to one other coordinator.
pub struct Link {
    node: NodeId,
    address: String,
    transport: Arc<dyn Transport>,
    connection: Mutex<Option<Connection>>,
    /// One for relayed chunks alone: Raft does not queue behind them, and it is no loss if a coordinator of an earlier
    /// version, which does not know what they are, ends it.
    for_relays: Mutex<Option<Connection>>,
    /// Whether it has ever taken a relay.
    takes_relays: AtomicBool,
    acquaintance: Acquaintance,
}

/// The ways to all other coordinators. Clones are the same.
#[derive(Clone)]
pub struct Links {
    own: NodeId,
    transport: Arc<dyn Transport>,
    inner: Arc<RwLock<Inner>>,
    acquaintance: Acquaintance,
}

#[derive(Default)]
struct Inner {
    links: BTreeMap<NodeId, Arc<Link>>,
    /// Where coordinators are that have introduced themselves, and of which this node's state knows nothing yet.
    introduced: BTreeMap<NodeId, String>,
    /// How this side introduces itself, if it does.
    introduction: Option<String>,
}

impl Links {
    /// Links from coordinator `own` to the others of these; none is dialled yet.
    pub fn new(own: NodeId, transport: Arc<dyn Transport>, addresses: &BTreeMap<NodeId, String>) -> Self {
        let links = Self { own, transport, inner: Arc::default(), acquaintance: Acquaintance::default() };
        links.follow(addresses);
        links
    }

    /// From now on these are the coordinators. Links whose address stays the same stay as they are; whoever still holds
    /// one that is gone may finish with it.
    pub fn follow(&self, addresses: &BTreeMap<NodeId, String>) {
        let mut inner = self.inner.write().unwrap_or_else(|e| e.into_inner());
        inner.introduced.retain(|node, _| !addresses.contains_key(node));
        let mut all = inner.introduced.clone();
        all.extend(addresses.iter().map(|(node, address)| (*node, address.clone())));
        inner.links.retain(|node, link| all.get(node).is_some_and(|address| *address == link.address));
        for (node, address) in all.iter().filter(|(node, _)| **node != self.own) {
            inner.links.entry(*node).or_insert_with(|| self.link(*node, address));
        }
    }

    /// A coordinator says where it is. Believed only as long as nobody knows better: this node may have been away when
    /// it was added, and must answer it to find out.
    pub fn learn(&self, node: NodeId, address: &str) {
        let mut inner = self.inner.write().unwrap_or_else(|e| e.into_inner());
        if node != self.own && !inner.links.contains_key(&node) {
            inner.introduced.insert(node, address.to_owned());
            let link = self.link(node, address);
            inner.links.insert(node, link);
        }
    }

    /// How this side is to introduce itself from now on, if at all.
    pub fn introduce(&self, address: Option<String>) {
        self.inner.write().unwrap_or_else(|e| e.into_inner()).introduction = address;
    }

    /// How a stream of Raft messages from this side opens.
    pub fn raft_opening(&self) -> StreamOpen {
        match self.inner.read().unwrap_or_else(|e| e.into_inner()).introduction.clone() {
            Some(address) => StreamOpen::RaftFrom { address },
            None => StreamOpen::Raft,
        }
    }

    /// What this side and the others have said of themselves.
    pub fn acquaintance(&self) -> &Acquaintance {
        &self.acquaintance
    }

    /// Every link, as of now.
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.inner.read().unwrap_or_else(|e| e.into_inner()).links.values().cloned().collect()
    }

    /// The link to one coordinator.
    pub fn to(&self, node: NodeId) -> Option<Arc<Link>> {
        self.inner.read().unwrap_or_else(|e| e.into_inner()).links.get(&node).cloned()
    }

    /// Ends every connection that this side has made; each is made again when it is needed.
    pub async fn reconnect(&self) {
        for link in self.all() {
            for slot in [&link.connection, &link.for_relays] {
                if let Some(connection) = slot.lock().await.take() {
                    connection.close("comes again with another certificate");
                }
            }
        }
    }

    /// This side.
    pub fn own(&self) -> NodeId {
        self.own
    }

    fn link(&self, node: NodeId, address: &str) -> Arc<Link> {
        let (transport, address) = (self.transport.clone(), address.to_owned());
        Arc::new(Link {
            node,
            address,
            transport,
            connection: Mutex::default(),
            for_relays: Mutex::default(),
            takes_relays: AtomicBool::new(false),
            acquaintance: self.acquaintance.clone(),
        })
    }
}

/// The smallest number of coordinators that has one in common with every other majority.
pub fn majority_of(n_nodes: usize) -> usize {
    if mutation::is_broken(Rule::BlobMajority) { 1 } else { n_nodes / 2 + 1 }
}

impl Link {
    /// Who is at the other end.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Opens a stream, over the connection there is or a new one.
    ///
    /// # Errors  [`crate::Error::Transport`]
    pub async fn open(&self, open: &StreamOpen) -> Result<Stream> {
        self.open_over(&self.connection, open).await.map(|(stream, _)| stream)
    }

    /// As [`Self::open`], over the connection for relayed chunks; that connection too.
    ///
    /// # Errors  [`crate::Error::Transport`]
    pub async fn open_for_relay(&self, open: &StreamOpen) -> Result<(Stream, Connection)> {
        self.open_over(&self.for_relays, open).await
    }

    /// It has taken a relay, and will again.
    pub fn note_takes_relays(&self) {
        self.takes_relays.store(true, Ordering::Relaxed);
    }

    /// Whether it is known to take relays. One that ends the connection instead may be of a version that does not know
    /// what they are.
    pub fn takes_relays(&self) -> bool {
        self.takes_relays.load(Ordering::Relaxed)
    }

    async fn open_over(
        &self,
        connection: &Mutex<Option<Connection>>,
        open: &StreamOpen,
    ) -> Result<(Stream, Connection)> {
        let mut slot = connection.lock().await;
        if let Some(connection) = &*slot {
            match begin(connection, open).await {
                Ok(stream) => return Ok((stream, connection.clone())),
                Err(error) => tracing::debug!(node = %self.node, %error, "the connection is gone"),
            }
        }
        *slot = None;
        let connection = self.acquaintance.dial(&*self.transport, &self.address, self.node).await?;
        let stream = begin(&connection, open).await?;
        *slot = Some(connection.clone());
        Ok((stream, connection))
    }

    /// Asks the other coordinator something.
    ///
    /// # Errors  [`crate::Error::Transport`], [`crate::Error::Protocol`], [`crate::Error::Refused`]
    pub async fn ask(&self, ask: PeerAsk) -> Result<PeerReply> {
        let mut stream = self.open(&StreamOpen::Peer(ask)).await?;
        match frames::receive(&mut stream).await? {
            PeerReply::Refused(refusal) => Err(refusal.into()),
            reply => Ok(reply),
        }
    }
}

pub(crate) async fn begin(connection: &Connection, open: &StreamOpen) -> Result<Stream> {
    let mut stream = connection.open_stream().await?;
    stream.send_frame(&frame::encode(open)?).await?;
    Ok(stream)
}

/// Between coordinators silence is noticed soon: one that was restarted knows nothing of its old connections, and hears
/// nothing from us until we notice.
pub const TIMING: Timing = Timing {
    keep_alive: Duration::from_millis(400),
    idle_timeout: Duration::from_millis(2_000),
    handshake_timeout: Duration::from_millis(2_000),
};
