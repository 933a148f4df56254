//! What goes wrong: each run draws some kinds of faults and how often they come; then they come at random.

use archipelago_common::NodeId;

use crate::{
    chance::Chance,
    host::{Input, USUAL_FSYNC_MS},
    network::{Actor, USUAL_DELAY},
    peer::{Peer, Role},
    world::{Happening, World},
};

/// Kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A node is killed; its disk stays as it is.
    Kill,
    /// A node loses power, and with it what was not fsynced.
    PowerLoss,
    /// A node loses power in the middle of a write.
    PowerLossInWrite,
    /// All nodes lose power at once.
    Blackout,
    /// The nodes fall into two groups that do not hear each other.
    Partition,
    /// One node hears another, but is not heard.
    OneWay,
    /// The leader is cut off from everybody.
    LonelyLeader,
    /// A peer hears nothing from some nodes, or they nothing from it.
    LostPeer,
    /// Messages are lost, come twice, and late.
    BadNetwork,
    /// A disk takes long to fsync.
    SlowDisk,
    /// A disk runs full.
    FullDisk,
    /// A node's clock jumps.
    Clock,
    /// A node's clock is days off; all others are right.
    ClockByDays,
    /// A node's log is lost, and it is founded anew under its old id.
    LostLog,
    /// A disk changes what a node's state says.
    SpoiltState,
    /// A disk changes a bit of a blob.
    SpoiltBlob,
    /// A disk loses a blob.
    LostBlob,
    /// Somebody asks for more than answers are remembered of, while the operator hears none.
    Flood,
    /// A site hands in more conditions at once than an answer holds.
    Crowd,
    /// A peer's process is killed.
    KillPeer,
    /// The leader gives its leadership away.
    HandOver,
}

const KINDS: [Kind; 21] = [
    Kind::Kill,
    Kind::PowerLoss,
    Kind::PowerLossInWrite,
    Kind::Blackout,
    Kind::Partition,
    Kind::OneWay,
    Kind::LonelyLeader,
    Kind::LostPeer,
    Kind::BadNetwork,
    Kind::SlowDisk,
    Kind::FullDisk,
    Kind::Clock,
    Kind::ClockByDays,
    Kind::LostLog,
    Kind::SpoiltState,
    Kind::SpoiltBlob,
    Kind::LostBlob,
    Kind::Flood,
    Kind::Crowd,
    Kind::KillPeer,
    Kind::HandOver,
];

/// A fault, or its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Begin(Kind),
    HealNetwork,
    HealDisk(NodeId),
    /// Somebody has seen that a founder was given another list of members.
    FoundAnew(NodeId),
}

/// What may go wrong in this run.
pub(crate) struct Faults {
    kinds: Vec<Kind>,
    /// One of the founders is given another list of members.
    pub(crate) leads_astray: bool,
    /// Longest pause between two faults, ms.
    pause: u64,
    /// Nothing goes wrong any more.
    pub(crate) is_over: bool,
}

impl Faults {
    /// About half of all kinds: what one fault hides, another run without it shows.
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let kinds = KINDS.into_iter().filter(|_| chance.one_in(2)).collect();
        Self { kinds, leads_astray: chance.one_in(4), pause: chance.within(1_500..6_000), is_over: false }
    }
}

impl World {
    /// The next fault, and when the one after comes.
    pub(crate) fn next_fault(&mut self) {
        if self.faults.is_over {
            return;
        }
        if let Some(kind) = self.chance.pick(&self.faults.kinds).copied() {
            self.strike(Fault::Begin(kind));
        }
        let pause = self.chance.within(200..self.faults.pause);
        self.after(pause, Happening::NextFault);
    }

    /// Everything is repaired, and nothing breaks any more.
    pub(crate) fn heal(&mut self) {
        self.say(format_args!("all is healed"));
        self.faults.is_over = true;
        self.network.heal();
        // A new consortium waits until clocks agree, and somebody sets them.
        self.hosts.values_mut().for_each(|host| host.skew_ms = 0);
        for node in self.nodes() {
            self.strike(Fault::HealDisk(node));
            self.after(100, Happening::Start { node });
        }
        for peer in 0..self.peers.len() {
            self.after(100, Happening::PeerStart { peer });
        }
    }

    pub(crate) fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Begin(kind) if !self.faults.is_over => self.begin_fault(kind),
            Fault::Begin(_) => {}
            Fault::HealNetwork => {
                self.say(format_args!("the network is healed"));
                self.network.heal();
            }
            Fault::HealDisk(node) => {
                let Some(host) = self.hosts.get_mut(&node) else { return };
                host.fsync_ms = USUAL_FSYNC_MS;
                host.disk.set_full(false);
            }
            Fault::FoundAnew(node) => self.found_right(node),
        }
    }

    fn begin_fault(&mut self, kind: Kind) {
        let nodes = self.nodes();
        let Some(&node) = self.chance.pick(&nodes) else { return };
        self.say(format_args!("fault: {kind:?} (n{node})"));
        self.coverage.note(name(kind));
        let network_pause = self.chance.within(500..8_000);
        match kind {
            Kind::Kill => self.crash(node, false),
            Kind::PowerLoss => self.crash(node, true),
            Kind::PowerLossInWrite => {
                let n = self.chance.within(1..40) as u32;
                self.hosts[&node].disk.fail_in(n);
            }
            Kind::Blackout => nodes.iter().for_each(|node| self.crash(*node, true)),
            Kind::Partition => {
                let (left, right): (Vec<_>, Vec<_>) = self.everybody().into_iter().partition(|_| self.chance.one_in(2));
                self.cut_between(&left, &right);
            }
            Kind::OneWay => {
                if let Some(&other) = self.chance.pick(&nodes).filter(|other| **other != node) {
                    self.network.cut(Actor::Node(node), Actor::Node(other));
                }
            }
            Kind::LonelyLeader => {
                if let Some(leader) = self.leader() {
                    let rest: Vec<_> = self.everybody().into_iter().filter(|a| *a != Actor::Node(leader)).collect();
                    self.cut_between(&[Actor::Node(leader)], &rest);
                }
            }
            Kind::LostPeer => {
                let peer = Actor::Peer(self.chance.within(0..self.peers.len() as u64) as usize);
                for node in nodes {
                    match self.chance.within(0..4) {
                        0 => self.network.cut(peer, Actor::Node(node)),
                        1 => self.network.cut(Actor::Node(node), peer),
                        _ => {}
                    }
                }
            }
            Kind::BadNetwork => {
                self.network.loss = self.chance.within(20..250);
                self.network.duplication = self.chance.within(0..200);
                self.network.delay = self.chance.within(USUAL_DELAY..1_500);
            }
            Kind::SlowDisk | Kind::FullDisk => self.spoil_disk(node, kind),
            Kind::Clock => {
                let skew = self.chance.within(0..80_000) as i64 - 40_000;
                if let Some(host) = self.hosts.get_mut(&node) {
                    host.skew_ms = skew;
                }
            }
            Kind::ClockByDays => {
                let days = self.chance.within(1..5) as i64;
                let skew = if self.chance.one_in(3) { -days } else { days } * 86_400_000;
                for host in self.hosts.values_mut() {
                    host.skew_ms = if host.id == node { skew } else { 0 };
                }
            }
            Kind::LostLog => self.lose_log(node),
            Kind::SpoiltState => self.spoil_state(node),
            Kind::SpoiltBlob => self.harm_blob(node, false),
            Kind::LostBlob => self.harm_blob(node, true),
            Kind::Flood => self.flood(&nodes),
            Kind::Crowd => self.crowd(),
            Kind::KillPeer => {
                let peer = self.chance.within(0..self.peers.len() as u64) as usize;
                if self.peers[peer].session.is_some() {
                    self.kill_peer(peer);
                    let pause = self.chance.within(50..5_000);
                    self.after(pause, Happening::PeerStart { peer });
                }
            }
            Kind::HandOver => {
                if let Some(leader) = self.leader() {
                    self.give(leader, Input::HandOver);
                }
            }
        }
        if matches!(
            kind,
            Kind::Partition | Kind::OneWay | Kind::LonelyLeader | Kind::LostPeer | Kind::BadNetwork | Kind::Flood
        ) {
            self.after(network_pause, Happening::Fault(Fault::HealNetwork));
        }
    }

    /// The operator's answers are lost for a while, and another asks and asks meanwhile: what is repeated in the end must
    /// still be remembered.
    fn flood(&mut self, nodes: &[NodeId]) {
        let is_operator = |peer: &Peer| matches!(peer.role, Role::Operator(_));
        let Some(operator) = self.peers.iter().position(is_operator) else { return };
        nodes.iter().for_each(|node| self.network.cut(Actor::Node(*node), Actor::Peer(operator)));
        let flooder = self.peers.iter().position(|peer| peer.who.to_string() == "operator/ben");
        let Some(flooder) = flooder.filter(|peer| self.peers[*peer].session.is_some()) else { return };
        for n in 0..FLOOD {
            // After the operator has asked for something.
            let (run, delay) = (self.peers[flooder].run, FLOOD_AFTER_MS + n * FLOOD_PAUSE_MS);
            self.after(delay, Happening::Flood { peer: flooder, run });
        }
    }

    /// The collections of the state grow beyond what an answer holds.
    fn crowd(&mut self) {
        let of_worker = |peer: &mut Peer| match &mut peer.role {
            Role::Worker(worker) => worker.is_crowded = true,
            Role::Operator(_)
            | Role::Reader(_)
            | Role::Hoarder(_)
            | Role::Joiner(_)
            | Role::Leaver(_)
            | Role::Pair(_) => {}
        };
        self.peers.iter_mut().for_each(of_worker);
    }

    fn spoil_disk(&mut self, node: NodeId, kind: Kind) {
        let slow = self.chance.within(50..1_500);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        match kind {
            Kind::SlowDisk => host.fsync_ms = slow,
            _ => host.disk.set_full(true),
        }
        let pause = self.chance.within(1_000..8_000);
        self.after(pause, Happening::Fault(Fault::HealDisk(node)));
    }

    fn cut_between(&mut self, left: &[Actor], right: &[Actor]) {
        for a in left {
            for b in right {
                self.network.cut(*a, *b);
                self.network.cut(*b, *a);
            }
        }
    }

    fn everybody(&self) -> Vec<Actor> {
        let nodes = self.nodes().into_iter().map(Actor::Node);
        nodes.chain((0..self.peers.len()).map(Actor::Peer)).collect()
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |host: &&crate::host::Host| host.live.as_ref().is_some_and(|live| live.node.is_leader());
        self.hosts.values().find(leads).map(|host| host.id)
    }

    /// A node's process dies, with the power of its machine or without, and starts again later.
    pub(crate) fn crash(&mut self, node: NodeId, loses_power: bool) {
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.live.is_some()) else { return };
        // The disk first: what the dying process still writes must not reach it.
        let disk = if loses_power { host.disk.after_power_failure(&mut self.chance) } else { host.disk.after_kill() };
        host.live = None;
        host.disk = disk;
        if loses_power {
            host.shelves.lose_power();
        }
        self.coverage.note("crashes");
        self.say(format_args!("n{node} dies, {}", if loses_power { "without power" } else { "killed" }));
        self.break_streams_of(Actor::Node(node));
        let pause = self.chance.within(50..6_000);
        self.after(pause, Happening::Start { node });
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Kill => "fault: killed node",
        Kind::PowerLoss => "fault: lost power",
        Kind::PowerLossInWrite => "fault: lost power in a write",
        Kind::Blackout => "fault: blackout",
        Kind::Partition => "fault: partition",
        Kind::OneWay => "fault: one-way cut",
        Kind::LonelyLeader => "fault: leader cut off",
        Kind::LostPeer => "fault: peer cut off",
        Kind::BadNetwork => "fault: bad network",
        Kind::SlowDisk => "fault: slow disk",
        Kind::FullDisk => "fault: full disk",
        Kind::Clock => "fault: clock jump",
        Kind::ClockByDays => "fault: clock days off",
        Kind::LostLog => "fault: log lost",
        Kind::SpoiltState => "fault: state spoilt",
        Kind::SpoiltBlob => "fault: blob spoilt",
        Kind::LostBlob => "fault: blob lost",
        Kind::Flood => "fault: flood of requests",
        Kind::Crowd => "fault: answers at their limits",
        Kind::KillPeer => "fault: killed peer",
        Kind::HandOver => "fault: leadership given away",
    }
}

/// Requests of a flood, more than are under way of one session at once.
const FLOOD: u64 = 60;
/// When a flood begins, ms: most of the time the operator has asked for something by then.
const FLOOD_AFTER_MS: u64 = 300;
/// Between two requests of a flood, ms.
const FLOOD_PAUSE_MS: u64 = 5;
