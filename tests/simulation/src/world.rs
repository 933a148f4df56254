//! The world: virtual time, what is due in it, and everybody who lives there. One thread, one seed, one order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use archipelago_common::{NodeId, Principal};
use archipelago_coordinator::raft::node::{Event, Options};
use archipelago_protocol::{
    frame,
    message::{GetReply, StreamOpen},
};
use raft::eraftpb::Message;

use crate::{
    Settings,
    chance::Chance,
    faults::{Fault, Faults},
    host::{Host, Input, Served, address},
    network::{Actor, Network, StreamId},
    peer::Peer,
    record::{Coverage, EventLog},
    watch::Watch,
};

/// Something that is due.
pub(crate) enum Happening {
    /// A node's clock ticks.
    Tick { node: NodeId, run: u64 },
    /// A node looks whether a lease or deadline is over, and whether it lacks a blob.
    Look { node: NodeId, run: u64 },
    /// A node goes on with what waits in its inbox.
    Wake { node: NodeId, run: u64 },
    /// What a node did is durable, and its answers leave.
    Came { node: NodeId, run: u64, events: Vec<Event>, messages: Vec<Message> },
    /// A message from node to node.
    Raft(Box<Message>),
    /// A node hears that a message was lost.
    Unreachable { node: NodeId, run: u64, other: NodeId },
    /// What became of a snapshot.
    SnapshotSent { node: NodeId, run: u64, to: NodeId, arrived: bool },
    /// A blob is fsynced.
    Stored { node: NodeId, run: u64, stream: StreamId },
    /// A frame of a stream arrives.
    Frame { stream: StreamId, to: Actor, frame: Vec<u8> },
    /// A stream has ended, as one end hears.
    Broken { stream: StreamId, end: Actor },
    /// A peer asks for something that changes nothing and is remembered all the same.
    Flood { peer: usize, run: u64 },
    /// A peer's time has come.
    PeerTime { peer: usize, run: u64, timer: u64 },
    /// A peer's process starts.
    PeerStart { peer: usize },
    /// A node's process starts.
    Start { node: NodeId },
    /// Something goes wrong.
    Fault(Fault),
    /// The next thing goes wrong.
    NextFault,
}

/// All there is.
pub(crate) struct World {
    pub(crate) now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    pub(crate) chance: Chance,
    log: EventLog,
    pub(crate) coverage: Coverage,
    pub(crate) network: Network,
    pub(crate) founders: BTreeSet<NodeId>,
    pub(crate) options: Options,
    pub(crate) hosts: BTreeMap<NodeId, Host>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) faults: Faults,
    /// What is withdrawn in this run is erased.
    pub(crate) erases: bool,
    pub(crate) watch: Watch,
    /// The first rule that was broken, in words.
    pub(crate) failure: Option<String>,
}

impl World {
    /// A cluster that was founded and not started, and its peers.
    pub(crate) fn new(seed: u64, settings: &Settings) -> Self {
        let mut chance = Chance::new(seed);
        let n_nodes = *chance.pick(&[3, 3, 3, 3, 5, 5, 1]).unwrap_or(&3);
        let founders: BTreeSet<NodeId> = (1..=n_nodes).filter_map(NodeId::new).collect();
        let joining = (n_nodes + 1..=n_nodes + 2).filter_map(NodeId::new).map(|node| Host::new(node, BTreeMap::new()));
        let list: BTreeMap<_, _> = founders.iter().map(|node| (*node, address(*node))).collect();
        let founding = founders.iter().map(|node| Host::new(*node, list.clone()));
        let hosts = founding.chain(joining).map(|host| (host.id, host)).collect();
        let options = Options {
            snapshot_every: chance.within(5..60),
            keep_entries: chance.within(0..15),
            timeout_seed: chance.number(),
            ..Options::default()
        };
        let faults = Faults::draw(&mut chance);
        let peers = crate::peer::all(&mut chance, n_nodes);
        Self {
            now: 0,
            seq: 0,
            queue: BTreeMap::new(),
            chance,
            log: EventLog::new(settings.keeps_log),
            coverage: Coverage::default(),
            network: Network::new(),
            hosts,
            founders,
            options,
            peers,
            faults,
            // Drawn apart: runs that do not erase are what they were without it.
            erases: Chance::new(!seed).one_in(4),
            watch: Watch::default(),
            failure: None,
        }
    }

    /// Founds every log and starts everybody.
    pub(crate) fn begin(&mut self) {
        self.lead_astray();
        for host in self.hosts.values() {
            if let Err(error) = host.found() {
                self.failure = Some(format!("a log cannot be founded: {error}"));
            }
        }
        for node in self.nodes() {
            self.after(0, Happening::Start { node });
        }
        for peer in 0..self.peers.len() {
            let delay = self.chance.within(0..500);
            self.after(delay, Happening::PeerStart { peer });
        }
        self.after(300, Happening::NextFault);
    }

    /// Lets time pass until then, or until a rule is broken or `is_over`.
    pub(crate) fn run_until(&mut self, until: u64, is_over: impl Fn(&Self) -> bool) {
        while self.failure.is_none() && !is_over(self) {
            match self.queue.first_key_value() {
                Some(((at, _), _)) if *at <= until => {}
                _ => break,
            }
            let Some(((at, _), happening)) = self.queue.pop_first() else { break };
            self.now = at;
            self.happen(happening);
        }
        if self.failure.is_none() && !is_over(self) {
            self.now = until;
        }
    }

    /// Schedules.
    pub(crate) fn after(&mut self, delay: u64, happening: Happening) {
        self.seq += 1;
        self.queue.insert((self.now + delay, self.seq), happening);
    }

    /// Writes to the event log.
    pub(crate) fn say(&mut self, what: fmt::Arguments<'_>) {
        self.log.say(self.now, what);
    }

    /// A number that grows with every call: the order of calls and answers in the history.
    pub(crate) fn moment(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// A rule is broken.
    pub(crate) fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            self.say(format_args!("BROKEN: {why}"));
            self.failure = Some(why);
        }
    }

    /// The log, its digest and length.
    pub(crate) fn take_log(&mut self) -> EventLog {
        std::mem::take(&mut self.log)
    }

    /// All coordinators there are, members or not.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    /// How long the next fsync of a node takes.
    pub(crate) fn draw_fsync(&mut self, node: NodeId) -> u64 {
        let longest = self.hosts.get(&node).map_or(1, |host| host.fsync_ms);
        self.chance.within(1..longest + 1)
    }

    /// Opens a stream and says what it is for.
    pub(crate) fn open_stream(&mut self, opener: Actor, acceptor: Actor, open: &StreamOpen) -> StreamId {
        let stream = self.network.open(opener, acceptor);
        if let Ok(frame) = frame::encode(open) {
            self.send(stream, opener, frame);
        }
        stream
    }

    /// Sends a frame on a stream.
    pub(crate) fn send(&mut self, stream: StreamId, from: Actor, frame: Vec<u8>) {
        let Some(to) = self.network.streams.get(&stream).map(|s| s.other(from)) else { return };
        match self.network.stream_arrival(stream, from, frame.len(), self.now, &mut self.chance) {
            Some(at) => self.after(at - self.now, Happening::Frame { stream, to, frame }),
            None => self.break_stream(stream),
        }
    }

    /// A stream is lost: its frames too, and both ends hear of it when they have waited long enough.
    pub(crate) fn break_stream(&mut self, stream: StreamId) {
        let Some(broken) = self.network.streams.remove(&stream) else { return };
        for end in [broken.opener, broken.acceptor] {
            let delay = self.chance.within(20..IDLE_MS);
            self.after(delay, Happening::Broken { stream, end });
        }
    }

    /// One end closes a stream; the other hears soon.
    pub(crate) fn close_stream(&mut self, stream: StreamId, by: Actor) {
        let Some(closed) = self.network.streams.remove(&stream) else { return };
        let delay = self.chance.within(1..40);
        self.after(delay, Happening::Broken { stream, end: closed.other(by) });
    }

    /// Every stream of somebody whose process died.
    pub(crate) fn break_streams_of(&mut self, actor: Actor) {
        let all = &self.network.streams;
        let of = all.iter().filter(|(_, s)| s.opener == actor || s.acceptor == actor).map(|(id, _)| *id);
        for stream in of.collect::<Vec<_>>() {
            self.break_stream(stream);
        }
    }

    fn is_current(&self, node: NodeId, run: u64) -> bool {
        self.hosts.get(&node).is_some_and(|host| host.run == run && host.live.is_some())
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tick { node, run } if self.is_current(node, run) => {
                self.after(TICK_MS, Happening::Tick { node, run });
                self.give(node, Input::Tick);
            }
            Happening::Look { node, run } if self.is_current(node, run) => {
                self.after(LOOK_MS, Happening::Look { node, run });
                self.look(node);
                self.keep_complete(node);
                self.scrub(node);
                self.collect(node);
                self.erase(node);
                self.ask_founders(node);
                self.keep_time(node);
                self.adopt(node);
                self.introduce(node);
                self.compare(node);
            }
            Happening::Wake { node, run } if self.is_current(node, run) => self.turn(node),
            Happening::Came { node, run, events, messages } if self.is_current(node, run) => {
                messages.into_iter().for_each(|message| self.route(message));
                self.take_events(node, events);
            }
            Happening::Raft(message) => self.deliver(*message),
            Happening::Unreachable { node, run, other } if self.is_current(node, run) => {
                self.give(node, Input::Unreachable(other));
            }
            Happening::SnapshotSent { node, run, to, arrived } if self.is_current(node, run) => {
                let status = if arrived { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
                self.give(node, Input::SnapshotSent { to, status });
            }
            Happening::Stored { node, run, stream } if self.is_current(node, run) => self.stored(node, stream),
            Happening::Frame { stream, to, frame } => self.take_frame(stream, to, &frame),
            Happening::Broken { stream, end } => self.broken(stream, end),
            Happening::Flood { peer, run } => self.ask_in_flood(peer, run),
            Happening::PeerTime { peer, run, timer } => self.peer_time(peer, run, timer),
            Happening::PeerStart { peer } => self.start_peer(peer),
            Happening::Start { node } => self.start(node),
            Happening::Fault(fault) => self.strike(fault),
            Happening::NextFault => self.next_fault(),
            // Of a process that is gone.
            _ => {}
        }
    }

    fn take_frame(&mut self, stream: StreamId, to: Actor, bytes: &[u8]) {
        let Some(from) = self.network.streams.get(&stream).map(|s| s.other(to)) else { return };
        // A stream that was cut while the frame was on its way.
        if self.network.is_cut(from, to) {
            return self.break_stream(stream);
        }
        match to {
            Actor::Node(node) => self.take_frame_at_node(node, stream, from, bytes),
            Actor::Peer(peer) => self.take_frame_at_peer(peer, stream, bytes),
        }
    }

    fn take_frame_at_node(&mut self, node: NodeId, stream: StreamId, from: Actor, bytes: &[u8]) {
        let Some(live) = self.hosts.get_mut(&node).and_then(|host| host.live.as_mut()) else {
            return self.break_stream(stream);
        };
        let who = match from {
            Actor::Node(other) => Principal::Coordinator(other),
            Actor::Peer(peer) => self.peers[peer].who.clone(),
        };
        let taken = match live.served.entry(stream).or_insert(Served::Opened(who)) {
            Served::Opened(who) => {
                let who = who.clone();
                frame::decode(bytes).map(|open| self.serve(node, stream, who, open)).map_err(Into::into)
            }
            Served::Control(_) => self.take_session_frame(node, stream, bytes),
            Served::Receiving { .. } => self.take_chunk(node, stream, bytes),
            Served::Fetching { quest, .. } if is_get_reply(bytes) => {
                let quest = *quest;
                frame::decode(bytes).map(|reply| self.take_get_reply(node, stream, quest, reply)).map_err(Into::into)
            }
            Served::Fetching { .. } => self.take_chunk(node, stream, bytes),
            Served::Pushing { quest } => {
                let quest = *quest;
                frame::decode(bytes).map(|reply| self.take_put_reply(node, stream, quest, reply)).map_err(Into::into)
            }
            Served::Spreading => Ok(()),
        };
        if let Err(error) = taken {
            self.fail(format!("n{node} was told nonsense on stream {stream}: {error}"));
        }
    }

    fn serve(&mut self, node: NodeId, stream: StreamId, who: Principal, open: StreamOpen) {
        match open {
            StreamOpen::Control(hello) => self.serve_session(node, stream, who, &hello),
            StreamOpen::Put(blob) => self.serve_put(node, stream, who, blob),
            StreamOpen::Get { blob, from_chunk } => self.serve_get(node, stream, &who, (blob, from_chunk)),
            // Raft's messages are carried one by one here, and what nodes ask one another is looked up.
            StreamOpen::Raft | StreamOpen::RaftFrom { .. } | StreamOpen::Peer(_) | StreamOpen::Relay(_) => {}
        }
    }

    fn broken(&mut self, stream: StreamId, end: Actor) {
        let node = match end {
            Actor::Peer(peer) => return self.stream_lost(peer, stream),
            Actor::Node(node) => node,
        };
        let Some(live) = self.hosts.get_mut(&node).and_then(|host| host.live.as_mut()) else { return };
        match live.served.get(&stream) {
            Some(Served::Pushing { quest }) => {
                let quest = *quest;
                self.pushed(node, stream, quest, None);
            }
            Some(Served::Fetching { quest, .. }) => {
                let quest = *quest;
                self.fetch_failed(node, stream, quest);
            }
            Some(Served::Receiving { receiver: Some(receiver), .. }) => {
                live.receiving.remove(&receiver.blob());
                live.served.remove(&stream);
            }
            Some(_) => drop(live.served.remove(&stream)),
            None => {}
        }
    }
}

/// Chunks are long, and a reply is not.
fn is_get_reply(bytes: &[u8]) -> bool {
    frame::decode::<GetReply>(bytes).is_ok()
}

/// As on a live node.
const TICK_MS: u64 = 50;
/// As on a live node.
const LOOK_MS: u64 = 250;
/// Longest silence before a stream counts as lost, ms.
const IDLE_MS: u64 = 2_000;
