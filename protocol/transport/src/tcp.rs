//! TLS 1.3 over TCP, for networks that drop UDP: the same certificates and the same roles as over QUIC, and streams by
//! [yamux](https://github.com/libp2p/rust-yamux), which lets both sides open them. What yamux has no words for goes over a
//! control stream (see `control`): that a peer is let in, why a connection ends, which streams are given up, and a sign of life.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use archipelago_common::{Identity, NodeId, enrolment::CertifiedKey};
use rustls::{CommonState, ServerConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

mod control;
mod conversation;
mod driver;
mod mux;
mod pipe;
mod socket;

use mux::Mux;
use socket::from_socket;

use crate::{
    BACKLOG, BoxFuture, Connection, End, FAREWELL, Link, Listener, Shutdown, Timing, Transport, Way,
    credentials::Credentials,
    dialling::{Proven, resolve, unreachable, within},
    error::{Cause, Error, Result},
    expiry,
    life::{Ended, Ending, Side, end},
    proxy::Proxy,
    strangers::Door,
    stream::Stream,
    tls,
};

/// The TCP transport of one identity.
pub struct TcpTransport {
    credentials: Credentials,
    timing: Timing,
    proxy: Option<Proxy>,
}

impl TcpTransport {
    /// A transport with the usual [`Timing`] and no proxy.
    pub fn new(credentials: Credentials) -> Self {
        Self::with_timing(credentials, Timing::default(), None)
    }

    /// A transport with its own timing, which dials through `proxy` if there is one.
    pub fn with_timing(credentials: Credentials, timing: Timing, proxy: Option<Proxy>) -> Self {
        Self { credentials, timing, proxy }
    }

    async fn dial_any(&self, address: &str, node: NodeId) -> Result<Connection> {
        let dial = async {
            let begun = Instant::now();
            let socket = self.socket(address).await?;
            self.dial_over(address, (socket, begun.elapsed()), node).await
        };
        within(self.timing.handshake_timeout, address, Cause::Silent, dial).await
    }

    /// A socket to an address: through the proxy where there is one for it, else to the first of its places that answers.
    pub(crate) async fn socket(&self, address: &str) -> Result<TcpStream> {
        if let Some(proxy) = self.proxy_for(address) {
            return proxy.connect(address).await.map_err(|detail| unreachable(address, Cause::Proxy, detail));
        }
        let mut last = Err(unreachable(address, Cause::NoName, "it was not tried"));
        let places = resolve(address).await?;
        // One that is silent leaves time for the others.
        let each = self.timing.handshake_timeout / u32::try_from(places.len()).unwrap_or(u32::MAX);
        for place in places {
            let connect = async { TcpStream::connect(place).await.map_err(|e| unreachable(address, Cause::of(&e), e)) };
            last = within(each, address, Cause::Silent, connect).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// The proxy that an address is dialled through.
    pub(crate) fn proxy_for(&self, address: &str) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|proxy| proxy.is_for(address))
    }

    /// The same connection over a socket that is there.
    async fn dial_over(
        &self,
        address: &str,
        (socket, to_connect): (TcpStream, Duration),
        node: NodeId,
    ) -> Result<Connection> {
        prepare(&socket);
        let remote = socket.peer_addr().map_or_else(|_| address.to_owned(), |remote| remote.to_string());
        let verdict = tls::Verdict::default();
        let config = tls::client_config(&self.credentials, node, verdict.clone())?;
        let explain = |error: Error| {
            let verdict = verdict.lock().unwrap_or_else(|e| e.into_inner()).take();
            verdict.unwrap_or_else(|| tls::with_clocks(&self.credentials, error))
        };
        let begun = Instant::now();
        let tls = TlsConnector::from(Arc::new(config))
            .connect(tls::server_name(address), socket)
            .await
            .map_err(|e| explain(from_socket(&e)))?;
        // Either takes a round trip and little else; a machine that is busy makes them longer, seldom both.
        let facts = Facts { round_trip: begun.elapsed().min(to_connect), ..Facts::of(tls.get_ref().1, remote)? };
        // In TLS 1.3 the listener judges our certificate after our side has finished; this waits for its word.
        let started = TcpLink::start(tls, Side::Dialler, facts, self.timing, None).await;
        started.map(|(connection, _)| connection).map_err(|error| tls::with_clocks(&self.credentials, error))
    }

    /// Listens, and says where; whoever is let in goes to `accepted`.
    pub(crate) async fn listen_into(
        &self,
        address: &str,
        accepted: mpsc::Sender<Connection>,
    ) -> Result<(SocketAddr, Shutdown)> {
        let failed = |e: std::io::Error| Error::Listen { address: address.to_owned(), detail: e.to_string() };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let config = Arc::new(tls::server_config(&self.credentials)?);
        let trust = (self.credentials.clone(), config);
        let guests = Guests::default();
        // Every connection holds a sender: when nothing comes any more, all of them are gone.
        let (alive, mut gone) = mpsc::channel::<()>(1);
        let accepting = tokio::spawn(accept_connections(listener, trust, accepted, self.timing, guests.clone(), alive));
        let shutdown = move |reason: String| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                accepting.abort();
                let _ = accepting.await;
                guests.end(&reason);
                let _ = tokio::time::timeout(FAREWELL, gone.recv()).await;
            })
        };
        Ok((local, Box::new(shutdown)))
    }
}

impl Transport for TcpTransport {
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

/// Takes in connections until the listener is dropped, as over QUIC: each handshake is its own task, and there are so many.
async fn accept_connections(
    listener: TcpListener,
    (credentials, mut config): (Credentials, Arc<ServerConfig>),
    accepted: mpsc::Sender<Connection>,
    timing: Timing,
    guests: Guests,
    alive: mpsc::Sender<()>,
) {
    let door = Door::default();
    let mut replacements = credentials.replacements();
    loop {
        let incoming = tokio::select! {
            biased;
            () = replacements.next() => {
                match tls::server_config(&credentials) {
                    Ok(renewed) => config = Arc::new(renewed),
                    Err(error) => tracing::error!(%error, "the listener goes on with the earlier certificate"),
                }
                continue;
            }
            incoming = listener.accept() => incoming,
            () = accepted.closed() => return,
        };
        let (socket, remote) = match incoming {
            Ok(incoming) => incoming,
            Err(error) => {
                // No descriptors are left, most likely; some come back.
                tracing::warn!(%error, "a TCP connection could not be taken");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        // Over TCP a peer has shown that it hears us when it is here.
        let Some(admitted) = door.admit(canonical(remote.ip())) else { continue };
        let (acceptor, accepted) = (TlsAcceptor::from(config.clone()), accepted.clone());
        let (guests, alive) = (guests.clone(), alive.clone());
        tokio::spawn(async move {
            let handshake = async {
                prepare(&socket);
                let tls = acceptor.accept(socket).await.map_err(|e| from_socket(&e))?;
                let facts = Facts::of(tls.get_ref().1, remote.to_string())?;
                let (connection, ending) = TcpLink::start(tls, Side::Listener, facts, timing, Some(alive)).await?;
                guests.note(ending);
                Ok(connection)
            };
            if let Some(connection) = admitted.complete(remote, timing.handshake_timeout, handshake).await {
                // An error means that nobody accepts any more.
                let _ = accepted.send(connection).await;
            }
        });
    }
}

/// Who the peer is, from its certificate, and where.
struct Facts {
    proven: Proven,
    remote: String,
    round_trip: Duration,
}

impl Facts {
    fn of(tls: &CommonState, remote: String) -> Result<Self> {
        Ok(Self { proven: Proven::by(tls.peer_certificates())?, remote, round_trip: Duration::ZERO })
    }
}

/// The connections that a listener has let in, so that closing it can end them.
#[derive(Clone, Default)]
struct Guests(Arc<Mutex<Vec<Ending>>>);

impl Guests {
    fn note(&self, ending: Ending) {
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        all.retain(|other| other.borrow().is_none());
        all.push(ending);
    }

    fn end(&self, reason: &str) {
        for ending in self.0.lock().unwrap_or_else(|e| e.into_inner()).drain(..) {
            end(&ending, Ended::By(Side::Listener, End::Closed { reason: reason.to_owned() }));
        }
    }
}

struct TcpLink {
    peer: Identity,
    certified: CertifiedKey,
    remote: String,
    round_trip: Duration,
    mux: Mux,
}

impl TcpLink {
    async fn start<S: socket::Bytes>(
        tls: S,
        side: Side,
        facts: Facts,
        timing: Timing,
        alive: Option<mpsc::Sender<()>>,
    ) -> Result<(Connection, Ending)> {
        let Facts { proven: Proven { peer, certified, expires }, remote, round_trip } = facts;
        let mux = Mux::start(tls, side, timing, alive).await?;
        let ending = mux.ending();
        let (watched, over) = (ending.clone(), mux.over());
        tokio::spawn(async move {
            if expiry::comes_first(expires, over).await {
                end(&watched, Ended::By(side, End::Refused { reason: expiry::reason(expires) }));
            }
        });
        Ok((Connection::new(Self { peer, certified, remote, round_trip, mux }), ending))
    }
}

impl Link for TcpLink {
    fn way(&self) -> Way {
        Way::Tcp
    }

    fn peer(&self) -> &Identity {
        &self.peer
    }

    fn certified(&self) -> Option<CertifiedKey> {
        Some(self.certified)
    }

    fn remote(&self) -> String {
        self.remote.clone()
    }

    fn round_trip(&self) -> Duration {
        self.round_trip
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(self.mux.open())
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(self.mux.accept())
    }

    fn close(&self, how: End) {
        self.mux.close(how);
    }

    fn closed(&self) -> BoxFuture<'_, Error> {
        self.mux.over()
    }
}

/// Small frames leave at once, a long line that loses some packets is filled (as over QUIC), and the system asks a silent peer whether it is there: a host that is gone is noticed even
/// where our own signs of life still fit into its buffers.
fn prepare(socket: &TcpStream) {
    // Where the system lacks one of these, the connection works without it.
    let _ = socket.set_nodelay(true);
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_keepalive(&keep_alive);
    let _ = socket.set_tcp_congestion(b"bbr");
}

/// An IPv4 address that came over an IPv6 socket is the same address.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Pause of a listener that the system gives no connections to.
const BREATH: Duration = Duration::from_millis(100);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
