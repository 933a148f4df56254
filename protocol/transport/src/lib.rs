//! How bytes move between peers: QUIC ([`quic`]) or TCP ([`tcp`]), both with mutual TLS, whichever comes through
//! ([`net`]); in memory ([`memory`]), and faulty on purpose ([`faulty`]). The only crate that knows quinn, yamux and rustls,
//! and it knows nothing of what the bytes say.
//!
//! A [`Transport`] belongs to one identity. It dials coordinators and listens; either way it yields a [`Connection`]
//! whose [`Connection::peer`] is proven, and connections carry [`Stream`]s of frames. One suite, `conformance`, holds
//! every transport to the same behaviour. Certificates are made in [`ca`] and loaded in [`credentials`].

mod ahead;
pub mod ca;
pub mod credentials;
mod dialling;
pub mod error;
mod expiry;
pub mod faulty;
mod files;
mod life;
pub mod memory;
pub mod net;
pub mod probe;
pub mod proxy;
pub mod quic;
mod signature;
mod strangers;
pub mod stream;
pub mod tcp;
mod timing;
mod tls;

#[cfg(test)]
mod conformance;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use archipelago_common::{Identity, NodeId, enrolment::CertifiedKey};
use tokio::sync::mpsc;

pub use ahead::Ahead;
pub use credentials::{Credentials, Replacements};
pub use error::{Error, Result};
pub use files::CredentialFiles;
pub use signature::Authorities;
pub use stream::{RecvHalf, SendHalf, Stream};
pub use timing::Timing;

/// A future behind a pointer, as trait objects need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to reach coordinators and to be reached, on behalf of one identity.
pub trait Transport: Send + Sync {
    /// Who this side is.
    fn identity(&self) -> &Identity;

    /// Connects to the coordinator `node` at `address` (`host:port`). When this returns, both sides have proven who
    /// they are: a peer that refuses this side's certificate is an error here, not on the first stream.
    ///
    /// # Errors  [`Error::Unreachable`], [`Error::UntrustedPeer`], [`Error::PeerExpired`],
    /// [`Error::PeerNotYetValid`], [`Error::WrongPeer`], [`Error::BadPeer`], [`Error::Refused`]
    fn dial<'a>(&'a self, address: &'a str, node: NodeId) -> BoxFuture<'a, Result<Connection>>;

    /// Listens on `address` (`host:port`; port 0 picks a free one, see [`Listener::address`]).
    ///
    /// # Errors  [`Error::Listen`]
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listener>>;
}

/// What a transport provides for one connection; used through [`Connection`].
pub(crate) trait Link: Send + Sync {
    fn way(&self) -> Way;
    fn peer(&self) -> &Identity;
    fn certified(&self) -> Option<CertifiedKey>;
    fn remote(&self) -> String;
    fn round_trip(&self) -> Duration;
    fn open(&self) -> BoxFuture<'_, Result<Stream>>;
    fn accept(&self) -> BoxFuture<'_, Result<Stream>>;
    fn close(&self, end: End);
    fn closed(&self) -> BoxFuture<'_, Error>;
}

/// What carries a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// QUIC over UDP.
    Quic,
    /// TLS over TCP.
    Tcp,
    /// This process.
    Memory,
}

impl Way {
    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How one side ends a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Closed { reason: String },
    Refused { reason: String },
}

/// A connection to a peer whose identity is proven. Clones are the same connection; it lives until one side closes
/// it, it breaks, or the last clone and the last stream are dropped.
#[derive(Clone)]
pub struct Connection {
    link: Arc<dyn Link>,
}

impl Connection {
    pub(crate) fn new(link: impl Link + 'static) -> Self {
        Self { link: Arc::new(link) }
    }

    /// What carries it.
    pub fn way(&self) -> Way {
        self.link.way()
    }

    /// Who the peer is, from its certificate.
    pub fn peer(&self) -> &Identity {
        self.link.peer()
    }

    /// Which key the peer has shown that it has, and until when it is certified; none where there are no certificates, in memory.
    pub fn certified(&self) -> Option<CertifiedKey> {
        self.link.certified()
    }

    /// Where the peer is, for the log.
    pub fn remote(&self) -> String {
        self.link.remote()
    }

    /// How long a packet takes to the peer and back, as far as is known: over QUIC of late, over TCP when the connection came about
    /// (zero at the side that was dialled), in memory no time.
    pub fn round_trip(&self) -> Duration {
        self.link.round_trip()
    }

    /// Opens a stream. The peer sees it with the first frame. Waits while the peer allows no more streams.
    ///
    /// # Errors  the connection's end
    pub async fn open_stream(&self) -> Result<Stream> {
        self.link.open().await
    }

    /// Waits for a stream that the peer opens. Safe to cancel.
    ///
    /// # Errors  the connection's end: [`Error::Closed`], [`Error::Lost`] or [`Error::Refused`]
    pub async fn accept_stream(&self) -> Result<Stream> {
        self.link.accept().await
    }

    /// Ends the connection and all its streams; the peer sees [`Error::Closed`].
    pub fn close(&self, reason: &str) {
        self.link.close(End::Closed { reason: bounded(reason) });
    }

    /// Ends the connection because the peer may not be here (not enrolled, revoked); it sees [`Error::Refused`].
    pub fn refuse(&self, reason: &str) {
        self.link.close(End::Refused { reason: bounded(reason) });
    }

    /// Waits until the connection has ended, and says how. Safe to cancel.
    pub async fn closed(&self) -> Error {
        self.link.closed().await
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} at {})", self.peer(), self.remote())
    }
}

/// Accepted connections. Dropping it stops accepting; connections already accepted live on.
pub struct Listener {
    address: String,
    accepted: mpsc::Receiver<Connection>,
    shutdown: Shutdown,
}

/// Ends a listener's connections and waits until the peers have been told.
pub(crate) type Shutdown = Box<dyn FnOnce(String) -> BoxFuture<'static, ()> + Send + Sync>;

impl Listener {
    pub(crate) fn new(address: String, accepted: mpsc::Receiver<Connection>, shutdown: Shutdown) -> Self {
        Self { address, accepted, shutdown }
    }

    /// The address that is listened on, with the port that was picked.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next connection whose peer has proven its identity. Handshakes run beside each other and a failed one
    /// is only logged. `None` once the transport itself has ended. Safe to cancel.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.accepted.recv().await
    }

    /// Stops listening, closes every connection that was accepted here and waits (briefly) until the peers know.
    pub async fn close(self, reason: &str) {
        (self.shutdown)(bounded(reason)).await;
    }
}

/// A reason is for people and travels in one packet.
fn bounded(reason: &str) -> String {
    reason.chars().take(REASON_CHARS).collect()
}

const REASON_CHARS: usize = 200;
/// Connections that wait to be accepted.
const BACKLOG: usize = 64;
/// How long whoever closes waits for its last words to leave.
const FAREWELL: Duration = Duration::from_secs(1);
