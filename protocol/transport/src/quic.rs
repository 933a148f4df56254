//! QUIC over UDP: what real sites and coordinators use.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use archipelago_common::{Identity, NodeId, enrolment::CertifiedKey, limits, text::printable};
use bytes::Bytes;
use quinn::{
    ConnectionError, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, Incoming, ReadError,
    ServerConfig, TransportConfig, VarInt, WriteError,
    congestion::BbrConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};

use crate::{
    BACKLOG, BoxFuture, Connection, End, FAREWELL, Link, Listener, Shutdown, Timing, Transport, Way,
    credentials::Credentials,
    dialling::{Proven, resolve, unreachable, within},
    error::{Cause, Error, Result},
    expiry,
    strangers::{Door, HANDSHAKES},
    stream::{Outgoing, Stream},
    tls,
};

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
        let mut last = Err(unreachable(address, Cause::NoName, "it was not tried"));
        for socket in resolve(address).await? {
            let dial = self.dial_one(address, socket, node);
            last = within(self.timing.handshake_timeout, address, Cause::SilentUdp, dial).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn dial_one(&self, address: &str, socket: SocketAddr, node: NodeId) -> Result<Connection> {
        let verdict = tls::Verdict::default();
        let tls = tls::client_config(&self.credentials, node, verdict.clone())?;
        let quic = QuicClientConfig::try_from(tls)
            .map_err(|e| Error::Issue { what: "a TLS configuration", detail: e.to_string() })?;
        let mut config = quinn::ClientConfig::new(Arc::new(quic));
        config.transport_config(Arc::new(transport_config(self.timing)));
        let connecting = self
            .dialling_endpoint(socket)?
            .connect_with(config, socket, &tls::server_name(address).to_str())
            .map_err(|e| unreachable(address, Cause::Local, e))?;
        let explain = |error: ConnectionError| {
            let verdict = verdict.lock().unwrap_or_else(|e| e.into_inner()).take();
            verdict.unwrap_or_else(|| match error {
                ConnectionError::TimedOut => unreachable(address, Cause::SilentUdp, "it did not answer in time"),
                other => tls::with_clocks(&self.credentials, connection_error(other)),
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

    /// Listens, and says where; whoever is let in goes to `accepted`.
    pub(crate) async fn listen_into(
        &self,
        address: &str,
        accepted: mpsc::Sender<Connection>,
    ) -> Result<(SocketAddr, Shutdown)> {
        let failed = |detail: String| Error::Listen { address: address.to_owned(), detail };
        let socket = tokio::net::lookup_host(address)
            .await
            .map_err(|e| failed(e.to_string()))?
            .next()
            .ok_or_else(|| failed("the name has no address".to_owned()))?;
        let mut config = ServerConfig::with_crypto(server_crypto(&self.credentials)?);
        config.transport_config(Arc::new(transport_config(self.timing)));
        config.max_incoming(HANDSHAKES);
        let endpoint = endpoint(socket, endpoint_config(&self.credentials), Some(config.clone()));
        let endpoint = endpoint.map_err(|e| failed(e.to_string()))?;
        let local = endpoint.local_addr().map_err(|e| failed(e.to_string()))?;
        let credentials = self.credentials.clone();
        tokio::spawn(accept_connections(endpoint.clone(), accepted, self.timing, (credentials, config)));
        let shutdown = move |reason: String| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                endpoint.close(CLOSED, reason.as_bytes());
                // A peer that is gone does not hold us up.
                let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
            })
        };
        Ok((local, Box::new(shutdown)))
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
        Box::pin(async move {
            let (sender, accepted) = mpsc::channel(BACKLOG);
            let (local, shutdown) = self.listen_into(address, sender).await?;
            Ok(Listener::new(local.to_string(), accepted, shutdown))
        })
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
async fn accept_connections(
    endpoint: Endpoint,
    accepted: mpsc::Sender<Connection>,
    timing: Timing,
    (credentials, mut config): (Credentials, ServerConfig),
) {
    let door = Door::default();
    let mut replacements = credentials.replacements();
    loop {
        let incoming = tokio::select! {
            biased;
            () = replacements.next() => {
                match server_crypto(&credentials) {
                    Ok(crypto) => {
                        config.crypto = crypto;
                        endpoint.set_server_config(Some(config.clone()));
                    }
                    Err(error) => tracing::error!(%error, "the listener goes on with the earlier certificate"),
                }
                continue;
            }
            incoming = endpoint.accept() => incoming,
            () = accepted.closed() => None,
        };
        let Some(incoming) = incoming else { break };
        // Where many are under way, a peer first shows that it hears us: an answer that costs us no memory. First packets
        // that nobody stands behind then take no place.
        if door.is_busy() && !incoming.remote_address_validated() && incoming.may_retry() {
            // One that cannot be told comes again by itself.
            let _ = incoming.retry();
            continue;
        }
        let remote = incoming.remote_address();
        let Some(admitted) = door.admit(remote.ip()) else {
            incoming.refuse();
            continue;
        };
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let completed = admitted.complete(remote, timing.handshake_timeout, handshake(incoming));
            if let Some(connection) = completed.await {
                // An error means that nobody accepts any more.
                let _ = accepted.send(connection).await;
            }
        });
    }
    endpoint.set_server_config(None);
}

fn server_crypto(credentials: &Credentials) -> Result<Arc<QuicServerConfig>> {
    let quic = QuicServerConfig::try_from(tls::server_config(credentials)?);
    quic.map(Arc::new).map_err(|e| Error::Issue { what: "a TLS configuration", detail: e.to_string() })
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
    certified: CertifiedKey,
}

impl QuicLink {
    fn new(connection: quinn::Connection) -> Result<Self> {
        let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let Proven { peer, certified, expires } = Proven::by(chain.as_ref().map(|chain| &chain[..]))?;
        let watched = connection.clone();
        tokio::spawn(async move {
            if expiry::comes_first(expires, watched.closed()).await {
                watched.close(REFUSED, expiry::reason(expires).as_bytes());
            }
        });
        Ok(Self { connection, peer, certified })
    }
}

impl Link for QuicLink {
    fn way(&self) -> Way {
        Way::Quic
    }

    fn peer(&self) -> &Identity {
        &self.peer
    }

    fn certified(&self) -> Option<CertifiedKey> {
        Some(self.certified)
    }

    fn remote(&self) -> String {
        self.connection.remote_address().to_string()
    }

    fn round_trip(&self) -> Duration {
        self.connection.rtt()
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
        Pin::new(&mut self.0).poll_write(cx, bytes).map_err(write_error)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(self.0.finish().map_err(|_| Error::StreamReset.into()))
    }
}

impl Outgoing for QuicWriter {
    fn poll_take(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<std::io::Result<()>> {
        while !bytes.is_empty() {
            // All its state is in the stream, so it may be begun anew each time.
            let mut pieces = [std::mem::take(bytes)];
            let written = pin!(self.0.write_chunks(&mut pieces)).poll(cx).map_err(write_error);
            [*bytes] = pieces;
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
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

fn write_error(error: WriteError) -> std::io::Error {
    match error {
        WriteError::ConnectionLost(error) => connection_error(error),
        WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => Error::StreamReset,
    }
    .into()
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
            Some(code) => Error::Refused { reason: tls::alert(code).to_owned() },
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

/// The TLS alert that QUIC carries as an error from 0x100 on (RFC 9001, section 4.8).
fn alert(code: u64) -> Option<u8> {
    u8::try_from(code.checked_sub(0x100)?).ok()
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
    // Asks what the line carries; the usual one takes every lost packet for a full line, and a long line always loses some.
    config.congestion_controller_factory(Arc::new(BbrConfig::default()));
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
/// Bytes in flight on one stream: 1 Gbit/s × 100 ms is 12.5 MB.
const STREAM_WINDOW: u32 = 16 << 20;
/// Bytes in flight on one connection: two transfers at full speed.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Bytes that may wait in a socket each way, while every thread is at work on what came before: 5 ms at 400 MB/s. With the
/// usual 208 KiB one datagram in a hundred was dropped on a busy machine of two cores.
const SOCKET_BYTES: usize = 2 << 20;
