//! A proxy on loopback between every party and every coordinator: one UDP socket for each pair, which passes datagrams on
//! or drops them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket as StdSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::net::UdpSocket;

use super::{OPERATORS, Way, Whom, node_name};

/// All relays.
pub struct Proxy {
    /// Where the coordinators really listen.
    targets: BTreeMap<u64, SocketAddr>,
    /// By who dials, and whom.
    relays: BTreeMap<(String, u64), Relay>,
}

struct Relay {
    front: SocketAddr,
    drops: Arc<Drops>,
}

#[derive(Default)]
struct Drops {
    /// From who dialled to the coordinator.
    there: AtomicBool,
    /// And back.
    back: AtomicBool,
}

impl Proxy {
    pub(super) fn build(n_nodes: u64, parties: &[String]) -> Result<Self> {
        // Held until all are chosen, so that no port is given twice.
        let held: Vec<_> = (0..n_nodes).map(|_| bind()).collect::<Result<_>>()?;
        let targets: BTreeMap<_, _> =
            (1..).zip(&held).map(|(node, socket)| Ok((node, socket.local_addr()?))).collect::<Result<_>>()?;
        let mut relays = BTreeMap::new();
        let dialling = (1..=n_nodes).map(node_name).chain(parties.iter().cloned());
        for party in dialling {
            for (&node, &target) in targets.iter().filter(|(node, _)| node_name(**node) != party) {
                relays.insert((party.clone(), node), Relay::start(target)?);
            }
        }
        Ok(Self { targets, relays })
    }

    pub(super) fn listen(&self, node: u64) -> String {
        self.targets[&node].to_string()
    }

    pub(super) fn addresses(&self, party: &str) -> BTreeMap<u64, String> {
        let address = |(&node, target): (&u64, &SocketAddr)| {
            let relay = self.relays.get(&(party.to_owned(), node));
            (node, relay.map_or(*target, |relay| relay.front).to_string())
        };
        self.targets.iter().map(address).collect()
    }

    pub(super) fn cut_node(&self, node: u64, from: Whom, way: Way) {
        let own = node_name(node);
        for ((party, target), relay) in &self.relays {
            let is_between_nodes = party.starts_with("node");
            let is_meant = match from {
                Whom::All => true,
                Whom::Nodes => is_between_nodes,
                Whom::Sites => !is_between_nodes && party != OPERATORS,
            };
            if is_meant && *party == own {
                relay.cut(way);
            } else if is_meant && *target == node {
                relay.cut(reverse(way));
            }
        }
    }

    pub(super) fn cut_party(&self, party: &str, way: Way) {
        self.relays.iter().filter(|((from, _), _)| from == party).for_each(|(_, relay)| relay.cut(way));
    }

    pub(super) fn heal(&self) {
        for relay in self.relays.values() {
            relay.drops.there.store(false, Ordering::Relaxed);
            relay.drops.back.store(false, Ordering::Relaxed);
        }
    }
}

impl Relay {
    fn start(target: SocketAddr) -> Result<Self> {
        let front = bind()?;
        front.set_nonblocking(true)?;
        let (address, drops) = (front.local_addr()?, Arc::new(Drops::default()));
        tokio::spawn(forward(Arc::new(UdpSocket::from_std(front)?), target, drops.clone()));
        Ok(Self { front: address, drops })
    }

    /// Drops what the dialling side sends (`Out`), is sent (`In`), or both.
    fn cut(&self, way: Way) {
        if way != Way::In {
            self.drops.there.store(true, Ordering::Relaxed);
        }
        if way != Way::Out {
            self.drops.back.store(true, Ordering::Relaxed);
        }
    }
}

/// Passes on what comes from whoever dials; each dialling socket has its own towards the target, as behind a NAT.
async fn forward(front: Arc<UdpSocket>, target: SocketAddr, drops: Arc<Drops>) {
    let mut upstream: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        // An error is the kernel's word that an earlier datagram found nobody; the next may.
        let Ok((size, from)) = front.recv_from(&mut datagram).await else { continue };
        if drops.there.load(Ordering::Relaxed) {
            continue;
        }
        let known = upstream.get(&from).filter(|socket| Arc::strong_count(socket) > 1).cloned();
        let socket = match known {
            Some(socket) => socket,
            None => {
                let Ok(socket) = connect(target).await else { continue };
                let socket = Arc::new(socket);
                tokio::spawn(back(socket.clone(), front.clone(), from, drops.clone()));
                upstream.retain(|_, socket| Arc::strong_count(socket) > 1);
                upstream.insert(from, socket.clone());
                socket
            }
        };
        // The same.
        let _ = socket.send(&datagram[..size]).await;
    }
}

/// Passes answers back, until none has come for a while.
async fn back(socket: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, drops: Arc<Drops>) {
    let mut datagram = vec![0; DATAGRAM];
    while let Ok(received) = tokio::time::timeout(FORGOTTEN, socket.recv(&mut datagram)).await {
        let Ok(size) = received else { continue };
        if !drops.back.load(Ordering::Relaxed) {
            let _ = front.send_to(&datagram[..size], to).await;
        }
    }
}

async fn connect(target: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

fn bind() -> Result<StdSocket> {
    StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to open a UDP socket on loopback")
}

/// What a coordinator sends is, for it, what whoever dials is sent.
fn reverse(way: Way) -> Way {
    match way {
        Way::Both => Way::Both,
        Way::Out => Way::In,
        Way::In => Way::Out,
    }
}

/// More than any datagram has.
const DATAGRAM: usize = 65_536;
/// Longer than any connection is silent.
const FORGOTTEN: Duration = Duration::from_secs(60);
