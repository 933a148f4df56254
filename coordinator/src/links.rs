//! Connections to the other coordinators: dialled when needed, kept, dialled again when lost.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use archipelago_cluster::mutation::{self, Rule};
use archipelago_common::NodeId;
use archipelago_protocol::{frame, message::StreamOpen};
use archipelago_transport::{Connection, Stream, Transport, quic::Timing};
use tokio::sync::Mutex;

use crate::error::Result;

/// The way to one other coordinator.
pub struct Link {
    node: NodeId,
    address: String,
    transport: Arc<dyn Transport>,
    connection: Mutex<Option<Connection>>,
}

/// The ways to all other coordinators.
#[derive(Clone)]
pub struct Links(Arc<BTreeMap<NodeId, Arc<Link>>>);

impl Links {
    /// Links to these coordinators; none is dialled yet.
    pub fn new(transport: Arc<dyn Transport>, addresses: &BTreeMap<NodeId, String>) -> Self {
        let link = |(node, address): (&NodeId, &String)| {
            let (transport, address) = (transport.clone(), address.clone());
            (*node, Arc::new(Link { node: *node, address, transport, connection: Mutex::new(None) }))
        };
        Self(Arc::new(addresses.iter().map(link).collect()))
    }

    /// Every link.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.0.values()
    }

    /// Number of coordinators that must hold a blob, this one included.
    pub fn majority(&self) -> usize {
        majority_of(self.0.len() + 1)
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
        let mut slot = self.connection.lock().await;
        if let Some(connection) = &*slot {
            match begin(connection, open).await {
                Ok(stream) => return Ok(stream),
                Err(error) => tracing::debug!(node = %self.node, %error, "the connection is gone"),
            }
        }
        *slot = None;
        let connection = self.transport.dial(&self.address, self.node).await?;
        let stream = begin(&connection, open).await?;
        *slot = Some(connection);
        Ok(stream)
    }
}

async fn begin(connection: &Connection, open: &StreamOpen) -> Result<Stream> {
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
