//! Whichever way comes through: QUIC where the network lets it, TLS over TCP where it drops UDP.
//!
//! A coordinator listens on the same port of both. A dial tries QUIC first and TCP a moment later; where QUIC never came through,
//! failed lately and TCP did not, TCP comes first.

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};

use archipelago_common::{Identity, NodeId};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    BACKLOG, BoxFuture, Connection, Credentials, Listener, Timing, Transport, Way,
    dialling::unreachable,
    error::{Cause, Error, Result},
    proxy::Proxy,
    quic::QuicTransport,
    tcp::TcpTransport,
};

/// Which ways may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ways {
    /// Both, QUIC before TCP.
    #[default]
    Auto,
    /// QUIC alone.
    Quic,
    /// TCP alone.
    Tcp,
}

impl FromStr for Ways {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "quic" => Ok(Self::Quic),
            "tcp" => Ok(Self::Tcp),
            other => Err(format!("`{other}` is none of `auto`, `quic`, `tcp`")),
        }
    }
}

/// How the network is used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Network {
    /// Which ways may be taken.
    pub ways: Ways,
    /// Through which proxy TCP goes, if any.
    pub proxy: Option<Proxy>,
}

impl Network {
    /// What a configuration says, or else the environment: `ARCHIPELAGO_TRANSPORT` for the ways, `HTTPS_PROXY` and `NO_PROXY`
    /// for the proxy.
    ///
    /// # Errors  what is wrong with either, in words
    pub fn configured(ways: Option<Ways>, proxy: Option<&str>) -> Result<Self, String> {
        let proxy = match proxy {
            Some(proxy) => Some(Proxy::parse(proxy).map_err(|detail| format!("`proxy`: {detail}"))?),
            None => Proxy::from_environment()?,
        };
        Ok(Self { proxy, ..Self::of_coordinator(ways)? })
    }

    /// The same for a coordinator, which dials the others directly.
    ///
    /// # Errors  what is wrong with it, in words
    pub fn of_coordinator(ways: Option<Ways>) -> Result<Self, String> {
        let of_environment = || match std::env::var(TRANSPORT) {
            Ok(ways) => ways.parse().map_err(|detail| format!("`{TRANSPORT}`: {detail}")),
            Err(_) => Ok(Ways::default()),
        };
        Ok(Self { ways: ways.map_or_else(of_environment, Ok)?, proxy: None })
    }
}

/// The transport of one identity over both ways.
pub struct NetTransport {
    quic: Arc<QuicTransport>,
    tcp: TcpTransport,
    ways: Ways,
    known: Arc<Known>,
}

impl NetTransport {
    /// A transport with the usual [`Timing`].
    pub fn new(credentials: Credentials, network: Network) -> Self {
        Self::with_timing(credentials, Timing::default(), network)
    }

    /// A transport with its own timing.
    pub fn with_timing(credentials: Credentials, timing: Timing, network: Network) -> Self {
        Self {
            quic: Arc::new(QuicTransport::with_timing(credentials.clone(), timing)),
            tcp: TcpTransport::with_timing(credentials, timing, network.proxy),
            ways: network.ways,
            known: Arc::default(),
        }
    }

    async fn dial_now(&self, address: &str, node: NodeId) -> Result<Connection> {
        let connection = match self.ways {
            Ways::Quic => self.quic.dial(address, node).await,
            Ways::Tcp => self.tcp.dial(address, node).await,
            Ways::Auto if self.known.fails(address, Instant::now()) => self.tcp_first(address, node).await,
            Ways::Auto => self.quic_first(address, node).await,
        }?;
        tracing::debug!(address, way = %connection.way(), "dialled");
        if connection.way() == Way::Quic {
            self.known.note_through(address);
        }
        Ok(connection)
    }

    async fn quic_first(&self, address: &str, node: NodeId) -> Result<Connection> {
        let begun = Instant::now();
        let (quic, to) = (self.quic.clone(), address.to_owned());
        // On its own, so that what becomes of it is known where TCP is faster.
        let mut quic = tokio::spawn(async move { quic.dial(&to, node).await });
        let first = match timeout(HEAD_START, &mut quic).await {
            Ok(dialled) => match joined(dialled) {
                Err(error) if is_silence(&error) => Some(error),
                settled => return settled,
            },
            Err(_) => None,
        };
        let tcp = self.tcp.dial(address, node);
        tokio::pin!(tcp);
        let silence = match first {
            Some(error) => error,
            None => tokio::select! {
                dialled = &mut quic => match joined(dialled) {
                    Err(error) if is_silence(&error) => error,
                    settled => return settled,
                },
                dialled = &mut tcp => match dialled {
                    Ok(connection) => {
                        tokio::spawn(settle(quic, self.known.clone(), address.to_owned()));
                        return Ok(connection);
                    }
                    Err(tcp) => return either(address, last_word(quic, &tcp, begun, address).await, tcp),
                },
            },
        };
        match tcp.await {
            Ok(connection) => {
                self.known.note_failed(address);
                Ok(connection)
            }
            Err(tcp) => either(address, Err(silence), tcp),
        }
    }

    async fn tcp_first(&self, address: &str, node: NodeId) -> Result<Connection> {
        match self.tcp.dial(address, node).await {
            Err(error) if is_silence(&error) => {
                self.known.forget_failure(address);
                either(address, self.quic.dial(address, node).await, error)
            }
            settled => settled,
        }
    }

    async fn listen_on(&self, address: &str) -> Result<Listener> {
        match self.ways {
            Ways::Quic => return self.quic.listen(address).await,
            Ways::Tcp => return self.tcp.listen(address).await,
            Ways::Auto => {}
        }
        let mut n_left = PORT_ATTEMPTS;
        loop {
            let (sender, accepted) = mpsc::channel(BACKLOG);
            let (local, end_quic) = self.quic.listen_into(address, sender.clone()).await?;
            let end_tcp = match self.tcp.listen_into(&local.to_string(), sender).await {
                Ok((_, end_tcp)) => end_tcp,
                // The system picked a port that is free for UDP alone.
                Err(_) if address.ends_with(":0") && n_left > 0 => {
                    n_left -= 1;
                    end_quic(String::new()).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let shutdown = move |reason: String| -> BoxFuture<'static, ()> {
                Box::pin(async move {
                    tokio::join!(end_quic(reason.clone()), end_tcp(reason));
                })
            };
            return Ok(Listener::new(local.to_string(), accepted, Box::new(shutdown)));
        }
    }
}

impl Transport for NetTransport {
    fn identity(&self) -> &Identity {
        self.quic.identity()
    }

    fn dial<'a>(&'a self, address: &'a str, node: NodeId) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(self.dial_now(address, node))
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listener>> {
        Box::pin(self.listen_on(address))
    }
}

/// What is known of UDP to each address.
#[derive(Default)]
struct Known(Mutex<BTreeMap<String, Udp>>);

enum Udp {
    /// It came through once: where it fails later, it is not for a firewall, and it comes first again.
    ComesThrough,
    /// It failed then, and TCP did not. Tried again when that is a while ago: networks change.
    Fails(Instant),
}

impl Known {
    fn fails(&self, address: &str, now: Instant) -> bool {
        matches!(self.lock().get(address), Some(Udp::Fails(since)) if now.duration_since(*since) < QUIC_AGAIN)
    }

    fn note_failed(&self, address: &str) {
        let mut known = self.lock();
        match known.get_mut(address) {
            Some(Udp::ComesThrough) => {}
            Some(Udp::Fails(since)) => *since = Instant::now(),
            None => {
                tracing::info!(address, "UDP does not come through: TCP is used, and UDP tried again in an hour");
                known.insert(address.to_owned(), Udp::Fails(Instant::now()));
            }
        }
    }

    fn note_through(&self, address: &str) {
        self.lock().insert(address.to_owned(), Udp::ComesThrough);
    }

    fn forget_failure(&self, address: &str) {
        let mut known = self.lock();
        if matches!(known.get(address), Some(Udp::Fails(_))) {
            known.remove(address);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Udp>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// What becomes of QUIC where TCP was faster: slow is not closed.
async fn settle(quic: JoinHandle<Result<Connection>>, known: Arc<Known>, address: String) {
    match joined(quic.await) {
        Ok(connection) => {
            known.note_through(&address);
            connection.close("another connection was faster");
        }
        Err(error) if is_silence(&error) => known.note_failed(&address),
        Err(_) => {}
    }
}

/// What QUIC comes to where TCP failed. A coordinator listens on both: where TCP is refused none runs, most likely, and QUIC, which
/// hears of no refusal, need not be given all its time.
async fn last_word(
    quic: JoinHandle<Result<Connection>>,
    tcp: &Error,
    begun: Instant,
    address: &str,
) -> Result<Connection> {
    if !matches!(tcp, Error::Unreachable { cause: Cause::Refused, .. }) {
        return joined(quic.await);
    }
    match timeout_at(begun + WHERE_REFUSED, quic).await {
        Ok(dialled) => joined(dialled),
        Err(_) => Err(unreachable(address, Cause::SilentUdp, format!("nothing within {WHERE_REFUSED:?}"))),
    }
}

fn joined(dialled: Result<Result<Connection>, tokio::task::JoinError>) -> Result<Connection> {
    dialled.unwrap_or_else(|error| Err(Error::Lost { detail: error.to_string() }))
}

/// Whether nobody was there to say anything: the other way may come through.
fn is_silence(error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. } | Error::Lost { .. })
}

/// What to say where neither came through: a verdict on either way says more than silence.
fn either(address: &str, quic: Result<Connection>, tcp: Error) -> Result<Connection> {
    match quic {
        // Silence over UDP tells a firewall from a machine that is off as little as nothing: what TCP met tells more.
        Err(Error::Unreachable { detail, .. }) if is_silence(&tcp) => {
            let (cause, of_tcp) = match tcp {
                Error::Unreachable { detail, cause, .. } => (cause, detail),
                Error::Lost { detail } => (Cause::Silent, detail),
                other => (Cause::Silent, other.to_string()),
            };
            Err(unreachable(address, cause, format!("over UDP, {detail}; over TCP, {of_tcp}")))
        }
        Err(error) if is_silence(&error) => Err(tcp),
        settled => settled,
    }
}

/// Names the ways where a configuration does not.
const TRANSPORT: &str = "ARCHIPELAGO_TRANSPORT";
/// How long QUIC is tried before TCP is tried as well.
const HEAD_START: Duration = Duration::from_millis(500);
/// How long QUIC is given where TCP was refused: a session gives its first attempt a second, and should hear this before.
const WHERE_REFUSED: Duration = Duration::from_millis(900);
/// After what time QUIC is tried first again where it failed.
const QUIC_AGAIN: Duration = Duration::from_secs(3_600);
/// Ports that are tried where any will do.
const PORT_ATTEMPTS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_is_left_alone_for_an_hour_where_it_failed_and_never_where_it_came_through_once() {
        let (known, begun) = (Known::default(), Instant::now());
        known.note_failed("a:1");
        let soon = begun + QUIC_AGAIN - Duration::from_secs(1);
        assert!(known.fails("a:1", soon) && !known.fails("b:1", soon));
        assert!(!known.fails("a:1", Instant::now() + QUIC_AGAIN), "networks change");
        known.note_failed("a:1");
        known.note_through("a:1");
        known.note_failed("a:1");
        assert!(!known.fails("a:1", soon), "a coordinator was down, most likely");
    }
}
