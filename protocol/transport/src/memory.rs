//! Connections inside one process, for tests and simulations: no sockets, no ports, no certificates.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use archipelago_common::{Identity, NodeId, Principal, enrolment::CertifiedKey};
use tokio::{
    io::DuplexStream,
    sync::{Mutex as AsyncMutex, mpsc, watch},
};

use crate::{
    BoxFuture, Connection, End, Link, Listener, Transport, Way,
    dialling::unreachable,
    error::{Cause, Error, Result},
    life::{Ended, Ending, Life, Side, dropped, end},
    stream::Stream,
};

/// A network of named addresses inside this process. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    listeners: Arc<Mutex<Listeners>>,
}

#[derive(Default)]
struct Listeners {
    by_address: BTreeMap<String, Entry>,
    n_picked: u32,
}

struct Entry {
    identity: Identity,
    sender: mpsc::Sender<Connection>,
    /// Every connection accepted here, so that closing the listener can end them.
    accepted: Vec<Ending>,
}

/// The transport of one identity on a [`MemoryNetwork`]. Identities are believed.
pub struct MemoryTransport {
    network: MemoryNetwork,
    identity: Identity,
}

impl MemoryNetwork {
    /// The transport of one identity on this network.
    pub fn transport(&self, identity: Identity) -> MemoryTransport {
        MemoryTransport { network: self.clone(), identity }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl MemoryTransport {
    async fn dial_now(&self, address: &str, node: NodeId) -> Result<Connection> {
        let unreachable = || unreachable(address, Cause::Refused, "nobody listens there");
        let ended = watch::Sender::new(None);
        let (sender, found) = {
            let mut listeners = self.network.lock();
            let entry = listeners.by_address.get_mut(address).ok_or_else(unreachable)?;
            entry.accepted.retain(|connection| connection.borrow().is_none() && connection.receiver_count() > 0);
            entry.accepted.push(ended.clone());
            (entry.sender.clone(), entry.identity.clone())
        };
        if found.consortium != self.identity.consortium {
            return Err(Error::UntrustedPeer { consortium: self.identity.consortium.to_string() });
        }
        let principal = Principal::Coordinator(node);
        let expected = Identity { consortium: self.identity.consortium.clone(), principal };
        if found != expected {
            return Err(Error::WrongPeer { expected: expected.to_string(), found: found.to_string() });
        }
        let (to_theirs, from_ours) = mpsc::channel(STREAM_BACKLOG);
        let (to_ours, from_theirs) = mpsc::channel(STREAM_BACKLOG);
        let link = |peer: Identity, side, opened, incoming| MemoryLink {
            peer,
            address: address.to_owned(),
            opened,
            incoming: AsyncMutex::new(incoming),
            life: Arc::new(Life::new(side, &ended)),
        };
        let ours = link(found, Side::Dialler, to_theirs, from_theirs);
        let theirs = link(self.identity.clone(), Side::Listener, to_ours, from_ours);
        sender.send(Connection::new(theirs)).await.map_err(|_| unreachable())?;
        Ok(Connection::new(ours))
    }

    fn listen_now(&self, address: &str) -> Result<Listener> {
        let (sender, accepted) = mpsc::channel(CONNECTION_BACKLOG);
        let mut listeners = self.network.lock();
        let address = match address.strip_suffix(":0") {
            Some(host) => {
                listeners.n_picked += 1;
                format!("{host}:{}", listeners.n_picked)
            }
            None => address.to_owned(),
        };
        if listeners.by_address.get(&address).is_some_and(|entry| !entry.sender.is_closed()) {
            return Err(Error::Listen { address, detail: "the address is taken".to_owned() });
        }
        let entry = Entry { identity: self.identity.clone(), sender, accepted: Vec::new() };
        listeners.by_address.insert(address.clone(), entry);
        let (network, key) = (self.network.clone(), address.clone());
        let shutdown = move |reason: String| -> BoxFuture<'static, ()> {
            let entry = network.lock().by_address.remove(&key);
            for connection in entry.into_iter().flat_map(|entry| entry.accepted) {
                end(&connection, Ended::By(Side::Listener, End::Closed { reason: reason.clone() }));
            }
            Box::pin(std::future::ready(()))
        };
        Ok(Listener::new(address, accepted, Box::new(shutdown)))
    }
}

impl Transport for MemoryTransport {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn dial<'a>(&'a self, address: &'a str, node: NodeId) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(self.dial_now(address, node))
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listener>> {
        Box::pin(std::future::ready(self.listen_now(address)))
    }
}

struct MemoryLink {
    peer: Identity,
    address: String,
    opened: mpsc::Sender<DuplexStream>,
    incoming: AsyncMutex<mpsc::Receiver<DuplexStream>>,
    life: Arc<Life>,
}

impl Link for MemoryLink {
    fn way(&self) -> Way {
        Way::Memory
    }

    fn peer(&self) -> &Identity {
        &self.peer
    }

    fn certified(&self) -> Option<CertifiedKey> {
        None
    }

    fn remote(&self) -> String {
        self.address.clone()
    }

    fn round_trip(&self) -> Duration {
        Duration::ZERO
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(async {
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            tokio::select! {
                biased;
                error = self.closed() => Err(error),
                sent = self.opened.send(theirs) => sent.map(|()| self.life.stream(ours)).map_err(|_| dropped()),
            }
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(async {
            let mut incoming = self.incoming.lock().await;
            tokio::select! {
                biased;
                error = self.closed() => Err(error),
                pipe = incoming.recv() => pipe.map(|pipe| self.life.stream(pipe)).ok_or_else(dropped),
            }
        })
    }

    fn close(&self, how: End) {
        end(&self.life.ended, Ended::By(self.life.side, how));
    }

    fn closed(&self) -> BoxFuture<'_, Error> {
        self.life.over()
    }
}

/// Streams that may wait to be accepted.
const STREAM_BACKLOG: usize = archipelago_common::limits::STREAMS as usize;
/// Connections that may wait to be accepted.
const CONNECTION_BACKLOG: usize = 64;
/// Bytes on their way in one direction of a stream.
const PIPE_BYTES: usize = 256 << 10;
