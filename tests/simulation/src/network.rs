//! The network: delay, loss, duplication, reordering, and cuts in one direction or both.
//!
//! Raft's messages travel one by one, as they may be lost and overtake one another. Everything else goes over streams,
//! whose frames come in order or not at all: a stream on which a frame is lost is broken, and both ends hear of it later.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use archipelago_common::NodeId;

use crate::chance::Chance;

/// Whoever sends and receives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Actor {
    /// A coordinator.
    Node(NodeId),
    /// A site, operator or auditor, by number.
    Peer(usize),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "n{node}"),
            Self::Peer(peer) => write!(f, "p{peer}"),
        }
    }
}

/// Names a stream in the whole run.
pub(crate) type StreamId = u64;

/// One stream between two actors.
pub(crate) struct Stream {
    /// Who opened it.
    pub(crate) opener: Actor,
    /// Whom it leads to.
    pub(crate) acceptor: Actor,
    /// When the last frame each way arrives: the next comes no earlier.
    arrives: [u64; 2],
}

impl Stream {
    /// The other end.
    pub(crate) fn other(&self, end: Actor) -> Actor {
        if end == self.opener { self.acceptor } else { self.opener }
    }
}

/// All links and streams.
pub(crate) struct Network {
    cuts: BTreeSet<(Actor, Actor)>,
    /// Messages in a thousand that are lost.
    pub(crate) loss: u64,
    /// Messages in a thousand that come twice.
    pub(crate) duplication: u64,
    /// Longest delay, ms.
    pub(crate) delay: u64,
    next_stream: StreamId,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
}

/// Longest delay of a good network, ms.
pub(crate) const USUAL_DELAY: u64 = 12;

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            cuts: BTreeSet::new(),
            loss: 0,
            duplication: 0,
            delay: USUAL_DELAY,
            next_stream: 1,
            streams: BTreeMap::new(),
        }
    }

    /// Nothing gets from one to the other any more.
    pub(crate) fn cut(&mut self, from: Actor, to: Actor) {
        self.cuts.insert((from, to));
    }

    /// Everything is well again.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        (self.loss, self.duplication, self.delay) = (0, 0, USUAL_DELAY);
    }

    pub(crate) fn is_cut(&self, from: Actor, to: Actor) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// The delays after which a single message arrives: none if it is lost, several if it comes more than once.
    pub(crate) fn route(&mut self, from: Actor, to: Actor, chance: &mut Chance) -> Vec<u64> {
        if self.is_cut(from, to) || chance.per_mille(self.loss) {
            return Vec::new();
        }
        let n = if chance.per_mille(self.duplication) { 2 } else { 1 };
        (0..n).map(|_| self.draw_delay(chance)).collect()
    }

    /// Opens a stream.
    pub(crate) fn open(&mut self, opener: Actor, acceptor: Actor) -> StreamId {
        let id = self.next_stream;
        self.next_stream += 1;
        self.streams.insert(id, Stream { opener, acceptor, arrives: [0, 0] });
        id
    }

    /// When a frame that is sent now on a stream arrives at the other end: behind all before it. None if it is lost.
    pub(crate) fn stream_arrival(
        &mut self,
        id: StreamId,
        from: Actor,
        n_bytes: usize,
        now: u64,
        chance: &mut Chance,
    ) -> Option<u64> {
        let stream = self.streams.get(&id)?;
        let to = stream.other(from);
        // What is lost on a stream is sent again by the transport, and so is late.
        let is_lost = chance.per_mille(self.loss);
        if self.is_cut(from, to) {
            return None;
        }
        let delay = self.draw_delay(chance) + if is_lost { LOST_MS } else { 0 };
        let direction = usize::from(from != stream.opener);
        let stream = self.streams.get_mut(&id)?;
        let duration = n_bytes as u64 / BYTES_PER_MS;
        stream.arrives[direction] = stream.arrives[direction].max(now + delay) + duration;
        Some(stream.arrives[direction])
    }

    fn draw_delay(&self, chance: &mut Chance) -> u64 {
        // Mostly near the shortest, now and then near the longest.
        let longest = if chance.one_in(8) { self.delay } else { self.delay / 3 };
        chance.within(1..longest.max(2))
    }
}

/// A line of 4 MB/s: a chunk takes a quarter of a second.
const BYTES_PER_MS: u64 = 4_096;
/// How long a transport takes to send again, ms.
const LOST_MS: u64 = 200;
