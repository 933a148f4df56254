//! Nodes at work: their inputs, what comes of a `Ready`, and requests on their course.

use std::sync::Arc;

use archipelago_cluster::{Body, Effect, Room};
use archipelago_common::{NodeId, Principal, codec, limits};
use archipelago_coordinator::{
    error::Result,
    raft::node::{Dropped, Event},
    server::{
        course::{self, Asker, Step},
        refusal,
    },
};
use archipelago_protocol::{
    Asked, CoordinatorSession,
    message::{Hello, Refusal, Reply, RequestKey},
};
use raft::eraftpb::{Message, MessageType};

use crate::{
    blobs::Waiter,
    host::{Caller, CourseId, Input, Live, Served},
    network::{Actor, StreamId},
    pair::key_of,
    world::{Happening, World},
};

impl World {
    /// Starts a node's process on what its disk holds; later, if it cannot be.
    pub(crate) fn start(&mut self, node: NodeId) {
        let options = self.options;
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.may_start()) else { return };
        match host.start(options) {
            Ok(()) => {
                let run = host.run;
                let phase = self.chance.within(1..50);
                self.coverage.note("starts");
                self.say(format_args!("n{node} starts, run {run}"));
                self.after(phase, Happening::Tick { node, run });
                self.after(phase, Happening::Look { node, run });
                self.observe(node);
            }
            Err(error) if host.disk.is_full() || host.disk.has_failed() => {
                host.disk = host.disk.after_kill();
                self.say(format_args!("n{node} cannot start: {error}"));
                self.after(1_000, Happening::Start { node });
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                self.fail(format!("n{node} cannot start on its own disk: {error}, {cause:?}"));
            }
        }
    }

    /// Puts something into a node's inbox.
    pub(crate) fn give(&mut self, node: NodeId, input: Input) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let run = host.run;
        let Some(live) = &mut host.live else { return };
        live.inbox.push_back(input);
        if !live.is_woken {
            live.is_woken = true;
            let delay = live.busy_until.saturating_sub(now);
            self.after(delay, Happening::Wake { node, run });
        }
    }

    /// One pass of a node over its inbox, as its loop makes it: all inputs, then every `Ready`.
    pub(crate) fn turn(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(live) = &mut host.live else { return };
        live.is_woken = false;
        let mut looks = Vec::new();
        let mut refused = Vec::new();
        for input in std::mem::take(&mut live.inbox) {
            match input {
                Input::Tick => live.node.tick(),
                Input::Message(message) => live.node.step(*message),
                Input::Propose { course, command, then } => match live.node.propose(command) {
                    Ok(id) => drop(live.proposals.insert(id, (course, then))),
                    Err(dropped) => refused.push((course, dropped)),
                },
                Input::Read { course, look } => match live.node.read() {
                    Ok(id) => drop(live.reads.insert(id, (course, look))),
                    Err(dropped) => refused.push((course, dropped)),
                },
                Input::Peek { course, look } => looks.push((course, look)),
                Input::Unreachable(other) => live.node.report_unreachable(other),
                Input::SnapshotSent { to, status } => live.node.report_snapshot(to, status),
                Input::HandOver => live.node.hand_over(None),
            }
        }
        let now_ms = host.look_ms(self.now);
        for (course, look) in looks {
            let Some(live) = self.hosts.get(&node).and_then(|host| host.live.as_ref()) else { return };
            let step = look(&live.node.cluster(), now_ms);
            self.follow(node, course, step);
        }
        for (course, dropped) in refused {
            self.follow(node, course, Step::Done(Err(refusal::dropped(dropped))));
        }
        self.handle_readies(node);
    }

    fn handle_readies(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let (run, disk) = (host.run, host.disk.clone());
        let Some(live) = &mut host.live else { return };
        let before = disk.n_syncs();
        let (mut early, mut late, mut came) = (Vec::new(), Vec::new(), Vec::new());
        let result = loop {
            let mut send = |message| if disk.n_syncs() == before { early.push(message) } else { late.push(message) };
            match live.node.handle_ready(&mut send) {
                Ok(Some(events)) => came.extend(events),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let n_syncs = disk.n_syncs() - before;
        early.into_iter().for_each(|message| self.route(message));
        if let Err(error) = result {
            self.coverage.note("nodes that stopped at a failed write");
            self.say(format_args!("n{node} stops: {error}"));
            let is_expected = disk.has_failed() || disk.is_full();
            if !is_expected {
                return self.fail(format!("n{node} stops on a good disk: {error}"));
            }
            return self.crash(node, disk.has_failed());
        }
        let duration = if n_syncs == 0 { 0 } else { self.draw_fsync(node) };
        if let Some(live) = self.hosts.get_mut(&node).and_then(|host| host.live.as_mut()) {
            live.busy_until = self.now + duration;
        }
        if n_syncs > 0 {
            self.coverage.add("fsyncs", n_syncs);
        }
        self.observe(node);
        self.tell_members(node);
        if !came.is_empty() || !late.is_empty() {
            self.after(duration, Happening::Came { node, run, events: came, messages: late });
        }
    }

    /// Sends a Raft message on its way.
    pub(crate) fn route(&mut self, message: Message) {
        let (Some(from), Some(to)) = (NodeId::new(message.from), NodeId::new(message.to)) else { return };
        let Some(run) = self.hosts.get(&from).map(|host| host.run) else { return };
        let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        let delays = self.network.route(Actor::Node(from), Actor::Node(to), &mut self.chance);
        if is_snapshot {
            self.coverage.note("snapshots sent");
            let (delay, arrived) = (self.chance.within(5..300), !delays.is_empty());
            self.after(delay, Happening::SnapshotSent { node: from, run, to, arrived });
        }
        if delays.is_empty() {
            self.coverage.note("messages lost");
            if self.chance.one_in(2) {
                let delay = self.chance.within(20..1_000);
                self.after(delay, Happening::Unreachable { node: from, run, other: to });
            }
        }
        self.coverage.add("messages that came twice", u64::from(delays.len() > 1));
        for delay in delays {
            self.after(delay, Happening::Raft(Box::new(message.clone())));
        }
    }

    pub(crate) fn deliver(&mut self, message: Message) {
        let (Some(from), Some(to)) = (NodeId::new(message.from), NodeId::new(message.to)) else { return };
        if self.network.is_cut(Actor::Node(from), Actor::Node(to)) {
            return self.coverage.note("messages lost");
        }
        let kind = message.get_msg_type();
        if !matches!(kind, MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse) {
            let (term, index, n) = (message.term, message.index, message.entries.len());
            self.say(format_args!("n{from} → n{to} {kind:?} term {term} index {index} entries {n}"));
        }
        if !self.recognises(to, from) {
            return self.coverage.note("messages of strangers");
        }
        self.check_life(to, from);
        self.coverage.note("messages delivered");
        self.give(to, Input::Message(Box::new(message)));
    }

    /// What has come of a node's `Ready`s.
    pub(crate) fn take_events(&mut self, node: NodeId, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Proposal { id, result } => {
                    let waiting = self.live(node).and_then(|live| live.proposals.remove(&id));
                    let Some((course, then)) = waiting else { continue };
                    let step = match result {
                        Ok(Ok(outcome)) => then(outcome),
                        Ok(Err(refused)) => Step::Done(Err(refusal::from_cluster(refused))),
                        Err(dropped) => Step::Done(Err(refusal::dropped(dropped))),
                    };
                    self.follow(node, course, step);
                }
                Event::Read { id, result } => {
                    let now_ms = self.hosts.get(&node).map_or(0, |host| host.look_ms(self.now));
                    let Some(live) = self.live(node) else { continue };
                    let Some((course, look)) = live.reads.remove(&id) else { continue };
                    let step = match result {
                        Ok(()) => look(&live.node.cluster(), now_ms),
                        Err(dropped) => Step::Done(Err(refusal::dropped(dropped))),
                    };
                    self.coverage.note("reads confirmed");
                    self.follow(node, course, step);
                }
                Event::Effect(effect) => self.take_effect(node, &effect),
                Event::Leader(leader) => self.take_leader(node, leader),
            }
        }
    }

    fn take_effect(&mut self, node: NodeId, effect: &Effect) {
        let Some(live) = self.live(node) else { return };
        match effect {
            Effect::AnnounceTasks => {
                for served in live.served.values_mut() {
                    if let Served::Control(session) = served {
                        session.handle_tasks_changed();
                    }
                }
                self.flush(node);
            }
            Effect::CutSessions { who } => {
                let is_theirs = |served: &Served| matches!(served, Served::Control(session) if session.who() == who);
                let cut: Vec<_> = live.served.iter().filter(|(_, s)| is_theirs(s)).map(|(id, _)| *id).collect();
                for stream in cut {
                    self.coverage.note("sessions cut");
                    self.break_stream(stream);
                }
            }
        }
    }

    fn take_leader(&mut self, node: NodeId, leader: Option<NodeId>) {
        let Some(live) = self.live(node) else { return };
        live.leader = leader;
        let term = live.node.term();
        for served in live.served.values_mut() {
            if let Served::Control(session) = served {
                session.handle_leader_changed(leader);
            }
        }
        self.say(format_args!("n{node} knows leader {leader:?} in term {term}"));
        self.flush(node);
    }

    /// The leader sees to it that what is over ends.
    pub(crate) fn look(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get(&node) else { return };
        let Some(now_ms) = host.stamp(self.now) else { return };
        let Some(live) = &host.live else { return };
        if live.node.is_leader() && live.node.cluster().next_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            let key = self.draw_key();
            self.coverage.note("ticks proposed");
            let Some(live) = self.live(node) else { return };
            let course = live.begin(Caller::Nobody);
            self.follow(node, course, course::begin_own(node, key, Body::Tick));
        }
    }

    pub(crate) fn draw_key(&mut self) -> RequestKey {
        let seed = self.chance.seed();
        RequestKey(std::array::from_fn(|i| seed[i]))
    }

    /// Opens a session.
    pub(crate) fn serve_session(&mut self, node: NodeId, stream: StreamId, who: Principal, hello: &Hello) {
        let Some(live) = self.live(node) else { return };
        if live.node.cluster().admit(&who).is_err() {
            self.coverage.note("peers not let in");
            return self.break_stream(stream);
        }
        let (live_leader, id) = (live.leader, node);
        match CoordinatorSession::open(who, hello, id, live_leader) {
            Ok(mut session) => {
                session.handle_members_changed(live.told.clone());
                live.served.insert(stream, Served::Control(Box::new(session)));
            }
            Err(error) => return self.fail(format!("a session is refused: {error}")),
        }
        self.flush(node);
    }

    pub(crate) fn take_session_frame(&mut self, node: NodeId, stream: StreamId, bytes: &[u8]) -> Result<()> {
        let Some(live) = self.live(node) else { return Ok(()) };
        let Some(Served::Control(session)) = live.served.get_mut(&stream) else { return Ok(()) };
        let who = session.who().clone();
        if let Some(Asked { id, key, body }) = session.handle_frame(bytes)? {
            let course = live.begin(Caller::Session { stream, id });
            let asker = Asker { key: Some(key_of(&who)), who: Arc::new(who) };
            match self.prepare(node, course, &body) {
                Ok(()) => self.follow(node, course, course::begin(asker, key, body, ROOM)),
                Err(refusal) => self.follow(node, course, Step::Done(Err(refusal))),
            }
        }
        self.flush(node);
        Ok(())
    }

    /// Carries out a step of a course, and those that follow at once.
    pub(crate) fn follow(&mut self, node: NodeId, course: CourseId, mut step: Step) {
        loop {
            let stamp = self.hosts.get(&node).and_then(|host| host.stamp(self.now));
            let Some(host) = self.hosts.get_mut(&node) else { return };
            let Some(live) = &mut host.live else { return };
            step = match step {
                Step::Read(look) => return self.give(node, Input::Read { course, look }),
                Step::Peek(look) => return self.give(node, Input::Peek { course, look }),
                Step::Lead(then) if live.node.is_leader() => then(),
                Step::Lead(_) => Step::Done(Err(refusal::dropped(Dropped::NotLeader { leader: live.leader }))),
                Step::Durable(..) if live.changing.is_some() => Step::Done(Err(refusal::dropped(Dropped::Busy))),
                Step::Durable(blobs, then) => {
                    live.naming.insert(course);
                    let waiter = Waiter::Course { course, rest: blobs, missing: Vec::new(), then };
                    return self.have_durable(node, waiter);
                }
                Step::Inspect(inspection) => inspection(&host.shelves),
                Step::Propose(proposal, then) => {
                    // What brings time about is stamped with the time there is.
                    let is_about_time = matches!(proposal.body, Body::AgreeOnTime { .. });
                    let state_ms = live.node.cluster().now_ms();
                    match stamp.filter(|_| !is_about_time).or(is_about_time.then_some(state_ms)) {
                        Some(now_ms) => match proposal.stamped(now_ms).to_bytes() {
                            Ok(command) => return self.give(node, Input::Propose { course, command, then }),
                            Err(error) => Step::Done(Err(Refusal::Invalid { reason: error.to_string() })),
                        },
                        None => Step::Done(Err(Refusal::Busy { retry_after_ms: 50 })),
                    }
                }
                Step::Done(result) => return self.answer(node, course, result),
            };
        }
    }

    fn answer(&mut self, node: NodeId, course: CourseId, result: Result<Reply, Refusal>) {
        let Some(live) = self.live(node) else { return };
        live.naming.remove(&course);
        live.changing.take_if(|changing| *changing == course);
        let (stream, id) = match live.courses.remove(&course) {
            Some(Caller::Session { stream, id }) => (stream, id),
            Some(Caller::Upload) => return self.granted(node, course, result),
            Some(Caller::Nobody) | None => return,
        };
        let Some(live) = self.live(node) else { return };
        if let Some(Served::Control(session)) = live.served.get_mut(&stream) {
            let n_bytes = result.as_ref().ok().filter(|reply| is_page(reply)).map(codec::size);
            session.handle_answer(id, result);
            if let Some(n_bytes) = n_bytes {
                self.coverage.note("checked: answers at their limits");
                if n_bytes > FRAME_BYTES {
                    self.fail(format!("answers: n{node} answers with {n_bytes} bytes, a frame has {FRAME_BYTES}"));
                }
            }
        }
        self.flush(node);
    }

    /// Sends what the sessions of a node have to say.
    pub(crate) fn flush(&mut self, node: NodeId) {
        let Some(live) = self.live(node) else { return };
        let mut frames = Vec::new();
        for (stream, served) in &mut live.served {
            if let Served::Control(session) = served {
                frames.extend(std::iter::from_fn(|| session.poll_frame()).map(|frame| (*stream, frame)));
            }
        }
        for (stream, frame) in frames {
            self.send(stream, Actor::Node(node), frame);
        }
    }

    pub(crate) fn live(&mut self, node: NodeId) -> Option<&mut Live> {
        self.hosts.get_mut(&node)?.live.as_mut()
    }
}

/// Whether an answer is one of those that come page by page.
fn is_page(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::ReferenceHeads(_)
            | Reply::Conditions(_)
            | Reply::Changes(_)
            | Reply::TaskHeads(_)
            | Reply::Assignments(_)
            | Reply::Submitted(_)
            | Reply::SitePage(_)
            | Reply::Enrolments(_)
    )
}

/// By how much answers and frames are smaller here than on a live node: a minute's tasks and conditions fill several.
const SMALLER: usize = 1 << 10;
/// What an answer holds here.
const ROOM: Room = Room { items: 8, bytes: (limits::PAGE_BYTES / SMALLER) as u64, conditions: 8 };
/// What a frame holds here.
const FRAME_BYTES: u64 = (limits::FRAME_BYTES / SMALLER) as u64;
