//! QUIC over UDP: what real sites and coordinators use.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use archipelago_common::{Identity, NodeId, limits, text::printable};
use quinn::{
    ConnectionError, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, Incoming, ReadError,
    ServerConfig, TransportConfig, VarInt, WriteError,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Semaphore, mpsc},
};
use tracing::debug;

mod strangers;

use strangers::{Complaints, Known, Turn, Turns};

use crate::{
    BoxFuture, Connection, End, Link, Listener, Transport,
    credentials::{self, Credentials},
    error::{Error, Result},
    stream::Stream,
    tls,
};

/// How soon a silent peer is given up, and how it is kept from being silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// An idle side says something this often: often enough for three tries within `idle_timeout`, and for the NAT
    /// bindings of hospital firewalls, which live for 30 s or more.
    pub keep_alive: Duration,
    /// A peer that has said nothing for this long is gone. A dead worker must be noticed within 15 s,
    /// and the last it said may have been on its way for a while.
    pub idle_timeout: Duration,
    /// How long a handshake may take, from the first packet to the peer's word that it lets this side in.
    pub handshake_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(4),
            idle_timeout: Duration::from_secs(12),
            handshake_timeout: Duration::from_secs(5),
        }
    }
}

/// The QUIC transport of one identity.
pub struct QuicTransport {
    credentials: Credentials,
    timing: Timing,
    /// Sockets for dialling, one per address family, opened when first needed.
    dialling: Mutex<[Option<Endpoint>; 2]>,
}

impl QuicTransport {
    /// A transport with the usual [`Timing`].
    pub fn new(credentials: Credentials) -> Self {
        Self::with_timing(credentials, Timing::default())
    }

    /// A transport with its own timing.
    pub fn with_timing(credentials: Credentials, timing: Timing) -> Self {
        Self { credentials, timing, dialling: Mutex::new([None, None]) }
    }

    async fn dial_any(&self, address: &str, node: NodeId) -> Result<Connection> {
        let unreachable = |detail: String| Error::Unreachable { address: address.to_owned(), detail };
        let mut resolved: Vec<_> =
            tokio::net::lookup_host(address).await.map_err(|e| unreachable(e.to_string()))?.collect();
        resolved.dedup();
        let mut last = unreachable("the name has no address".to_owned());
        for socket in resolved {
            let attempt = self.dial_one(address, socket, node);
            match tokio::time::timeout(self.timing.handshake_timeout, attempt).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = error,
                Err(_) => last = unreachable(format!("nothing within {:?}", self.timing.handshake_timeout)),
            }
        }
        Err(last)
    }

    async fn dial_one(&self, address: &str, socket: SocketAddr, node: NodeId) -> Result<Connection> {
        let verdict = tls::Verdict::default();
        let tls = tls::client_config(&self.credentials, node, verdict.clone())?;
        let quic = QuicClientConfig::try_from(tls)
            .map_err(|e| Error::Issue { what: "a TLS configuration", detail: e.to_string() })?;
        let mut config = quinn::ClientConfig::new(Arc::new(quic));
        config.transport_config(Arc::new(transport_config(self.timing)));
        let unreachable = |detail: String| Error::Unreachable { address: address.to_owned(), detail };
        let connecting = self
            .dialling_endpoint(socket)?
            // The name is not sent and not compared; identities are.
            .connect_with(config, socket, "coordinator")
            .map_err(|e| unreachable(e.to_string()))?;
        let explain = |error: ConnectionError| {
            let verdict = verdict.lock().unwrap_or_else(|e| e.into_inner()).take();
            verdict.unwrap_or_else(|| match error {
                ConnectionError::TimedOut => unreachable("it did not answer in time".to_owned()),
                other => connection_error(other),
            })
        };
        let connection = connecting.await.map_err(explain)?;
        // In TLS 1.3 the server judges our certificate after our side has finished; wait for its word.
        connection.accept_uni().await.map_err(explain)?;
        QuicLink::new(connection).map(Connection::new)
    }

    fn dialling_endpoint(&self, remote: SocketAddr) -> Result<Endpoint> {
        let (slot, local) = match remote {
            SocketAddr::V4(_) => (0, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            SocketAddr::V6(_) => (1, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        let mut endpoints = self.dialling.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(endpoint) = &endpoints[slot] {
            return Ok(endpoint.clone());
        }
        let failed = |e: std::io::Error| Error::Listen { address: local.to_string(), detail: e.to_string() };
        let endpoint = endpoint(local, EndpointConfig::default(), None).map_err(failed)?;
        endpoints[slot] = Some(endpoint.clone());
        Ok(endpoint)
    }

    async fn listen_on(&self, address: &str) -> Result<Listener> {
        let failed = |detail: String| Error::Listen { address: address.to_owned(), detail };
        let socket = tokio::net::lookup_host(address)
            .await
            .map_err(|e| failed(e.to_string()))?
            .next()
            .ok_or_else(|| failed("the name has no address".to_owned()))?;
        let quic = QuicServerConfig::try_from(tls::server_config(&self.credentials)?)
            .map_err(|e| Error::Issue { what: "a TLS configuration", detail: e.to_string() })?;
        let mut config = ServerConfig::with_crypto(Arc::new(quic));
        config.transport_config(Arc::new(transport_config(self.timing)));
        config.max_incoming(HANDSHAKES);
        let endpoint = endpoint(socket, endpoint_config(&self.credentials), Some(config));
        let endpoint = endpoint.map_err(|e| failed(e.to_string()))?;
        let local = endpoint.local_addr().map_err(|e| failed(e.to_string()))?;
        let (sender, accepted) = mpsc::channel(BACKLOG);
        tokio::spawn(accept_connections(endpoint.clone(), sender, self.timing));
        let shutdown = move |reason: String| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                endpoint.close(CLOSED, reason.as_bytes());
                // A peer that is gone does not hold us up.
                let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
            })
        };
        Ok(Listener::new(local.to_string(), accepted, Box::new(shutdown)))
    }
}

impl Transport for QuicTransport {
    fn identity(&self) -> &Identity {
        self.credentials.identity()
    }

    fn dial<'a>(&'a self, address: &'a str, node: NodeId) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(self.dial_any(address, node))
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listener>> {
        Box::pin(self.listen_on(address))
    }
}

/// An endpoint on a socket of its own.
fn endpoint(local: SocketAddr, config: EndpointConfig, server: Option<ServerConfig>) -> std::io::Result<Endpoint> {
    let socket = UdpSocket::bind(local)?;
    let sized = SockRef::from(&socket);
    // The system may allow less (on Linux `net.core.rmem_max`), which is no error: what is lost is sent again.
    let _ = sized.set_recv_buffer_size(SOCKET_BYTES);
    let _ = sized.set_send_buffer_size(SOCKET_BYTES);
    let runtime = quinn::default_runtime().ok_or_else(|| std::io::Error::other("no async runtime"))?;
    Endpoint::new(config, server, socket, runtime)
}

/// Takes in connections until the listener is dropped. Each handshake is its own task, so that a slow or broken one
/// holds up nobody; their number is bounded.
async fn accept_connections(endpoint: Endpoint, accepted: mpsc::Sender<Connection>, timing: Timing) {
    let (handshakes, turns) = (Arc::new(Semaphore::new(HANDSHAKES)), Turns::default());
    let (known, complaints) = (Known::default(), Complaints::default());
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = accepted.closed() => None,
        };
        let Some(incoming) = incoming else { break };
        // Where many are under way, a peer first shows that it hears us: an answer that costs us no memory. First packets
        // that nobody stands behind then take no place.
        let is_busy = handshakes.available_permits() < HANDSHAKES - UNPROVEN_HANDSHAKES;
        if is_busy && !incoming.remote_address_validated() && incoming.may_retry() {
            // One that cannot be told comes again by itself.
            let _ = incoming.retry();
            continue;
        }
        let address = incoming.remote_address().ip();
        // The last places are for those that have proven who they are before: the other coordinators, and whoever was here.
        let is_last = handshakes.available_permits() <= RESERVED_HANDSHAKES;
        if is_last && !known.contains(address) {
            incoming.refuse();
            continue;
        }
        let Some(turn) = Turn::take(&turns, address) else {
            incoming.refuse();
            continue;
        };
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let (accepted, known, complaints) = (accepted.clone(), known.clone(), complaints.clone());
        tokio::spawn(async move {
            let remote = incoming.remote_address();
            let connection = match tokio::time::timeout(timing.handshake_timeout, handshake(incoming)).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => return complaints.note(remote, &error.to_string()),
                Err(_) => return complaints.note(remote, "it took too long"),
            };
            known.note(address);
            drop((permit, turn));
            debug!(%remote, peer = %connection.peer(), "connected");
            // An error means that nobody accepts any more.
            let _ = accepted.send(connection).await;
        });
    }
    endpoint.set_server_config(None);
}

async fn handshake(incoming: Incoming) -> Result<Connection> {
    let connection = incoming.await.map_err(connection_error)?;
    let link = QuicLink::new(connection.clone())?;
    // Our word that the peer is let in; see `dial_one`.
    connection.open_uni().await.map_err(connection_error)?.finish().map_err(|_| Error::StreamReset)?;
    Ok(Connection::new(link))
}

struct QuicLink {
    connection: quinn::Connection,
    peer: Identity,
}

impl QuicLink {
    fn new(connection: quinn::Connection) -> Result<Self> {
        let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let leaf = chain.as_ref().and_then(|chain| chain.first());
        let read = leaf
            .ok_or_else(|| "it presented none".to_owned())
            .and_then(|leaf| Ok((credentials::identity(leaf)?, credentials::expiry(leaf)?)));
        let (peer, expires) = read.map_err(|detail| Error::BadPeer { detail })?;
        tokio::spawn(end_at(connection.clone(), expires));
        Ok(Self { connection, peer })
    }
}

/// Ends a connection when its peer's certificate does: who was let in once is not let in for ever.
async fn end_at(connection: quinn::Connection, expires: OffsetDateTime) {
    loop {
        let left = Duration::try_from(expires - OffsetDateTime::now_utc()).unwrap_or_default();
        if left.is_zero() {
            return connection.close(REFUSED, b"the certificate has expired");
        }
        tokio::select! {
            _ = connection.closed() => return,
            // The clock may be set meanwhile.
            () = tokio::time::sleep(left.min(EXPIRY_LOOK)) => {}
        }
    }
}

impl Link for QuicLink {
    fn peer(&self) -> &Identity {
        &self.peer
    }

    fn remote(&self) -> String {
        self.connection.remote_address().to_string()
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(async { self.connection.open_bi().await.map(stream).map_err(connection_error) })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(async { self.connection.accept_bi().await.map(stream).map_err(connection_error) })
    }

    fn close(&self, end: End) {
        match end {
            End::Closed { reason } => self.connection.close(CLOSED, reason.as_bytes()),
            End::Refused { reason } => self.connection.close(REFUSED, reason.as_bytes()),
        }
    }

    fn closed(&self) -> BoxFuture<'_, Error> {
        Box::pin(async { connection_error(self.connection.closed().await) })
    }
}

fn stream((send, recv): (quinn::SendStream, quinn::RecvStream)) -> Stream {
    Stream::new(Box::new(QuicWriter(send)), Box::new(QuicReader(recv)))
}

/// quinn's stream with errors that keep their type.
struct QuicWriter(quinn::SendStream);

impl AsyncWrite for QuicWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes).map_err(|error| {
            match error {
                WriteError::ConnectionLost(error) => connection_error(error),
                WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => Error::StreamReset,
            }
            .into()
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(self.0.finish().map_err(|_| Error::StreamReset.into()))
    }
}

/// quinn's stream with errors that keep their type.
struct QuicReader(quinn::RecvStream);

impl AsyncRead for QuicReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.0.poll_read_buf(cx, buf).map_err(|error| {
            match error {
                ReadError::ConnectionLost(error) => connection_error(error),
                ReadError::Reset(_)
                | ReadError::ClosedStream
                | ReadError::IllegalOrderedRead
                | ReadError::ZeroRttRejected => Error::StreamReset,
            }
            .into()
        })
    }
}

fn connection_error(error: ConnectionError) -> Error {
    let lost = |detail: &str| Error::Lost { detail: detail.to_owned() };
    match error {
        ConnectionError::ApplicationClosed(close) => {
            // Perhaps of somebody who has proven nothing yet.
            let reason = printable(&String::from_utf8_lossy(&close.reason), crate::REASON_CHARS);
            if close.error_code == REFUSED { Error::Refused { reason } } else { Error::Closed { reason } }
        }
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code.into()) {
            Some(reason) => Error::Refused { reason: reason.to_owned() },
            None => Error::Lost { detail: printable(&close.to_string(), crate::REASON_CHARS) },
        },
        ConnectionError::LocallyClosed => Error::Closed { reason: "by this side".to_owned() },
        ConnectionError::TimedOut => lost("the peer fell silent"),
        ConnectionError::Reset => lost("the peer has restarted"),
        ConnectionError::TransportError(error) => {
            Error::BadPeer { detail: printable(&error.to_string(), crate::REASON_CHARS) }
        }
        other @ (ConnectionError::VersionMismatch | ConnectionError::CidsExhausted) => lost(&other.to_string()),
    }
}

/// What a TLS alert from the peer says about our certificate (RFC 8446, section 6.2); QUIC carries alerts as
/// errors from 0x100 on (RFC 9001, section 4.8).
fn alert(code: u64) -> Option<&'static str> {
    Some(match code.checked_sub(0x100)? {
        42 | 43 | 46 | 51 => "it finds our certificate malformed",
        44 => "our certificate is revoked",
        45 => "our certificate has expired or is not valid yet",
        48 => "our certificate was not signed by its consortium's authority",
        49 => "our certificate is of another consortium or names no identity",
        116 => "it asks for a certificate",
        120 => "it does not speak our protocol",
        0..=255 => "the handshake failed",
        _ => return None,
    })
}

fn transport_config(timing: Timing) -> TransportConfig {
    let mut config = TransportConfig::default();
    config.keep_alive_interval(Some(timing.keep_alive));
    // A timeout that QUIC's variable-length integers cannot hold is as good as none.
    config.max_idle_timeout(IdleTimeout::try_from(timing.idle_timeout).ok());
    config.max_concurrent_bidi_streams(VarInt::from_u32(limits::STREAMS));
    // One, for the peer's word that the handshake is done.
    config.max_concurrent_uni_streams(VarInt::from_u32(1));
    config.stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
    config.receive_window(VarInt::from_u32(CONNECTION_WINDOW));
    config.send_window(CONNECTION_WINDOW.into());
    config
}

/// Derived from the key, so that a restarted coordinator can tell the peers of its earlier life that it has restarted
/// (RFC 9000, section 10.3) instead of leaving them to their idle timeout.
fn endpoint_config(credentials: &Credentials) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, credentials.key().secret_der());
    let derived = hmac::sign(&secret, b"archipelago stateless reset");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())));
    config.cid_generator(|| Box::new(RandomIds(SystemRandom::new())));
    config
}

/// Random connection ids that need no key to be recognised: quinn's own would be dropped as foreign after a restart,
/// and nobody would be told.
struct RandomIds(SystemRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        self.0.fill(&mut bytes).expect("the operating system has random numbers: the handshake needed them too");
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The peer ends the connection in good order.
const CLOSED: VarInt = VarInt::from_u32(0);
/// The peer does not let us in.
const REFUSED: VarInt = VarInt::from_u32(1);
/// Long enough that two never meet.
const CONNECTION_ID_BYTES: usize = 8;
/// Handshakes under way at once; more are refused and come again.
const HANDSHAKES: usize = 256;
/// Handshakes under way beyond which a peer has to show first that it hears us.
const UNPROVEN_HANDSHAKES: usize = 32;
/// Longest pause between two looks at whether a certificate has ended.
const EXPIRY_LOOK: Duration = Duration::from_secs(30);
/// Handshakes that only those may begin who were here before.
const RESERVED_HANDSHAKES: usize = 64;
/// Connections that wait to be accepted.
const BACKLOG: usize = 64;
/// Bytes in flight on one stream: 1 Gbit/s × 100 ms is 12.5 MB.
const STREAM_WINDOW: u32 = 16 << 20;
/// Bytes in flight on one connection: two transfers at full speed.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Bytes that may wait in a socket each way, while every thread is at work on what came before: 5 ms at 400 MB/s. With the
/// usual 208 KiB one datagram in a hundred was dropped on a busy machine of two cores.
const SOCKET_BYTES: usize = 2 << 20;
/// How long a closing listener waits for its last packets to leave.
const FAREWELL: Duration = Duration::from_secs(1);
