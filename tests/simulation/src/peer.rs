//! Peers: a real session each, its connection, its uploads, and somebody who has something to ask.

use std::{collections::BTreeMap, sync::Arc};

use archipelago_common::{BlobRef, Name, NodeId, Principal, SiteId};
use archipelago_histories::Call;
use archipelago_protocol::{
    Output, RequestId, SessionConfig, SiteSession, frame,
    message::{PutReply, Refusal, Reply, Request, StreamOpen, Withdrawal},
};

use crate::{
    chance::Chance,
    hoarder::Hoarder,
    joiner::{self, Joiner},
    leaver::{LEAVER, Leaver},
    network::{Actor, StreamId},
    operator::Operator,
    pair::{One, PAIR},
    reader::Reader,
    worker::Worker,
    world::{Happening, World},
};

/// A site, operator or auditor. The process may die; who it is and what its role remembers on disk stays.
pub(crate) struct Peer {
    pub(crate) who: Principal,
    pub(crate) role: Role,
    pub(crate) run: u64,
    /// The session of the process, if it runs.
    pub(crate) session: Option<SiteSession>,
    control: Option<StreamId>,
    uploads: BTreeMap<StreamId, (BlobRef, Arc<[u8]>)>,
    waiting: BTreeMap<RequestId, Asking>,
    /// When the session is woken next.
    wakes_at: Option<u64>,
    /// The role's latest timer; earlier ones do not count any more.
    timer: u64,
}

/// A request under way, and what of it goes into the history.
pub(crate) struct Asking {
    pub(crate) request: Request,
    pub(crate) calls: Vec<Call>,
    pub(crate) invoked: u64,
    /// Length of the lineage that somebody had seen when this was asked.
    pub(crate) floor: usize,
}

/// What a peer is there for.
pub(crate) enum Role {
    Worker(Box<Worker>),
    Operator(Box<Operator>),
    Reader(Reader),
    Hoarder(Hoarder),
    Joiner(Joiner),
    Leaver(Leaver),
    Pair(One),
}

/// What a role wants done.
pub(crate) enum Act {
    /// Ask the coordinators.
    Ask(Request),
    /// Have a blob durable there.
    Upload(BlobRef, Arc<[u8]>),
    /// Come back after so many milliseconds.
    Wake(u64),
    /// Die, and start again after so many milliseconds.
    Die(u64),
    /// Note that something came about; or that a rule is broken.
    Judge(Result<&'static str, String>),
}

/// What a role hears.
pub(crate) enum Heard {
    /// The process has started.
    Started,
    /// Its time has come.
    Time,
    /// The coordinators say that there may be work.
    TasksChanged,
    /// The answer to a request.
    Answer(Request, Box<Result<Reply, Refusal>>),
    /// A blob is durable, or not.
    Uploaded(BlobRef, Result<(), ()>),
}

/// What a role sees of the world.
pub(crate) struct View<'a> {
    pub(crate) chance: &'a mut Chance,
    /// Unix milliseconds of a good clock.
    pub(crate) clock_ms: u64,
    /// Nothing goes wrong any more.
    pub(crate) is_calm: bool,
    /// What is withdrawn is erased.
    pub(crate) erases: bool,
}

impl View<'_> {
    /// Takes a site's conditions out of a reference, the way this run does.
    pub(crate) fn withdrawal(&self, reference: Name, site: SiteId) -> Request {
        let what = Withdrawal::Site(site);
        if self.erases { Request::Erase { reference, what } } else { Request::Withdraw { reference, what } }
    }
}

/// The sites that a consortium may have.
pub(crate) const SITES: [&str; 4] = ["north", "east", "south", "west"];

/// The peers of a consortium: an operator who acts, readers, and some sites.
pub(crate) fn all(chance: &mut Chance, n_founders: u64) -> Vec<Peer> {
    let n_sites = chance.within(2..5) as usize;
    let sites: Vec<_> = SITES.into_iter().take(n_sites).collect();
    let worker = |site: &&str| (format!("site/{site}"), Role::Worker(Box::new(Worker::new(site))));
    let operator = ("operator/anna".to_owned(), Role::Operator(Box::new(Operator::new(&sites, n_founders))));
    let readers = ["auditor/eve", "operator/ben"].map(|who| (who.to_owned(), Role::Reader(Reader::default())));
    let hoarder = (format!("site/{HOARDER}"), Role::Hoarder(Hoarder));
    let all = std::iter::once(operator).chain(sites.iter().map(worker)).chain(readers).chain([hoarder]);
    let joiners = Joiner::both().map(|joiner| (joiner::invited().to_string(), Role::Joiner(joiner)));
    let all = all.chain(joiners).chain([(LEAVER.to_owned(), Role::Leaver(Leaver::default()))]);
    let all = all.chain(PAIR.map(|who| (who.to_owned(), Role::Pair(One::new(who)))));
    all.map(|(who, role)| Peer {
        who: who.parse().expect("the names above are sound"),
        role,
        run: 0,
        session: None,
        control: None,
        uploads: BTreeMap::new(),
        waiting: BTreeMap::new(),
        wakes_at: None,
        timer: SESSION,
    })
    .collect()
}

impl World {
    /// A peer's process starts.
    pub(crate) fn start_peer(&mut self, peer: usize) {
        if self.peers[peer].session.is_some() {
            return;
        }
        let config = SessionConfig::new(self.members(), "simulation");
        let session = SiteSession::new(config, self.chance.seed(), self.now);
        let starting = &mut self.peers[peer];
        starting.run += 1;
        starting.session = Some(session);
        self.say(format_args!("p{peer} starts"));
        self.hear(peer, Heard::Started);
        self.pump(peer);
    }

    /// A peer's process dies. What it asked stays without an answer.
    pub(crate) fn kill_peer(&mut self, peer: usize) {
        let dying = &mut self.peers[peer];
        dying.session = None;
        dying.control = None;
        dying.wakes_at = None;
        dying.uploads.clear();
        let asked = std::mem::take(&mut dying.waiting);
        self.say(format_args!("p{peer} dies"));
        for asking in asked.into_values() {
            self.unanswered(peer, asking);
        }
        self.break_streams_of(Actor::Peer(peer));
    }

    /// Time for the session (timer 0) or the role.
    pub(crate) fn peer_time(&mut self, peer: usize, run: u64, timer: u64) {
        if self.peers[peer].run != run || self.peers[peer].session.is_none() {
            return;
        }
        if timer == SESSION {
            let now = self.now;
            let woken = &mut self.peers[peer];
            if woken.wakes_at != Some(now) {
                return;
            }
            woken.wakes_at = None;
            if let Some(session) = &mut woken.session {
                session.handle_time(now);
            }
        } else if self.peers[peer].timer == timer {
            self.hear(peer, Heard::Time);
        }
        self.pump(peer);
    }

    pub(crate) fn take_frame_at_peer(&mut self, peer: usize, stream: StreamId, bytes: &[u8]) {
        let now = self.now;
        let receiving = &mut self.peers[peer];
        if receiving.control == Some(stream) {
            let Some(session) = &mut receiving.session else { return };
            if let Err(error) = session.handle_frame(now, bytes) {
                self.fail(format!("p{peer} was told nonsense: {error}"));
            }
        } else if let Some((blob, content)) = receiving.uploads.get(&stream).cloned() {
            match frame::decode(bytes) {
                Ok(PutReply::Send { from_chunk }) => {
                    self.send_chunks(stream, Actor::Peer(peer), blob, from_chunk, &content);
                }
                Ok(PutReply::Durable) => self.uploaded(peer, stream, Ok(())),
                Ok(PutReply::Refused(refusal)) => {
                    let from = self.network.streams.get(&stream).map(|s| s.other(Actor::Peer(peer)));
                    if let (Refusal::NotLeader { leader }, Some(Actor::Node(from))) = (refusal, from)
                        && let Some(session) = &mut self.peers[peer].session
                    {
                        session.handle_leader_hint(now, from, leader);
                    }
                    self.uploaded(peer, stream, Err(()));
                }
                Ok(PutReply::Has { .. }) => self.fail(format!("p{peer} was told of a relay that it did not ask for")),
                Err(error) => self.fail(format!("p{peer} was told nonsense about an upload: {error}")),
            }
        }
        self.pump(peer);
    }

    /// A stream is gone.
    pub(crate) fn stream_lost(&mut self, peer: usize, stream: StreamId) {
        let now = self.now;
        let losing = &mut self.peers[peer];
        if losing.control == Some(stream) {
            losing.control = None;
            if let Some(session) = &mut losing.session {
                session.handle_disconnected(now);
            }
        } else if losing.uploads.contains_key(&stream) {
            self.uploaded(peer, stream, Err(()));
        }
        self.pump(peer);
    }

    fn uploaded(&mut self, peer: usize, stream: StreamId, result: Result<(), ()>) {
        let Some((blob, _)) = self.peers[peer].uploads.remove(&stream) else { return };
        let end = if result.is_ok() { "is durable" } else { "has failed" };
        self.say(format_args!("p{peer}'s upload of {} {end}", blob.digest.short()));
        if result.is_ok() {
            self.coverage.note("uploads acknowledged");
        }
        self.close_stream(stream, Actor::Peer(peer));
        self.hear(peer, Heard::Uploaded(blob, result));
    }

    /// Carries out what the session wants, and sees to its next wake-up.
    pub(crate) fn pump(&mut self, peer: usize) {
        while let Some(output) = self.peers[peer].session.as_mut().and_then(SiteSession::poll_output) {
            match output {
                Output::Connect(node) => self.connect(peer, node),
                Output::Send(frame) => {
                    if let Some(stream) = self.peers[peer].control {
                        self.send(stream, Actor::Peer(peer), frame);
                    }
                }
                Output::Disconnect(_) => {
                    if let Some(stream) = self.peers[peer].control.take() {
                        self.close_stream(stream, Actor::Peer(peer));
                    }
                }
                Output::Answer { id, result } => {
                    if let Some(asking) = self.peers[peer].waiting.remove(&id) {
                        let request = asking.request.clone();
                        self.answered(peer, asking, &result);
                        self.hear(peer, Heard::Answer(request, Box::new(result)));
                    }
                }
                Output::Notice(_) => self.hear(peer, Heard::TasksChanged),
            }
        }
        let now = self.now;
        let pumped = &mut self.peers[peer];
        let Some(at) = pumped.session.as_ref().and_then(SiteSession::poll_timeout) else { return };
        let at = at.max(now + 1);
        if pumped.wakes_at.is_none_or(|earlier| at < earlier || earlier <= now) {
            pumped.wakes_at = Some(at);
            let run = pumped.run;
            self.after(at - now, Happening::PeerTime { peer, run, timer: SESSION });
        }
    }

    fn connect(&mut self, peer: usize, node: NodeId) {
        let Some(hello) = self.peers[peer].session.as_ref().map(SiteSession::hello) else { return };
        let stream = self.open_stream(Actor::Peer(peer), Actor::Node(node), &StreamOpen::Control(hello));
        self.peers[peer].control = Some(stream);
        self.say(format_args!("p{peer} dials n{node}"));
        self.coverage.note("sessions opened");
    }

    /// Tells the role, and does what it wants.
    pub(crate) fn hear(&mut self, peer: usize, heard: Heard) {
        let clock_ms = crate::host::EPOCH_MS + self.now;
        let mut view = View { chance: &mut self.chance, clock_ms, is_calm: self.faults.is_over, erases: self.erases };
        let acts = match &mut self.peers[peer].role {
            Role::Worker(worker) => worker.hear(&mut view, heard),
            Role::Operator(operator) => operator.hear(&mut view, heard),
            Role::Reader(reader) => reader.hear(&mut view, heard),
            Role::Hoarder(hoarder) => hoarder.hear(&mut view, heard),
            Role::Joiner(joiner) => joiner.hear(&mut view, heard),
            Role::Leaver(leaver) => leaver.hear(&mut view, heard),
            Role::Pair(one) => one.hear(&mut view, heard),
        };
        for act in acts {
            match act {
                Act::Ask(request) => self.ask(peer, request),
                Act::Upload(blob, bytes) => self.upload(peer, blob, bytes),
                Act::Wake(delay) => {
                    let waiting = &mut self.peers[peer];
                    waiting.timer += 1;
                    let (run, timer) = (waiting.run, waiting.timer);
                    self.after(delay, Happening::PeerTime { peer, run, timer });
                }
                Act::Judge(Ok(what)) => self.coverage.note(what),
                Act::Judge(Err(why)) => self.fail(format!("p{peer}: {why}")),
                Act::Die(pause) => {
                    self.coverage.note("peers that died");
                    self.kill_peer(peer);
                    return self.after(pause, Happening::PeerStart { peer });
                }
            }
        }
    }

    fn ask(&mut self, peer: usize, request: Request) {
        let asking = self.asked(peer, request);
        let now = self.now;
        let Some(session) = &mut self.peers[peer].session else { return };
        match session.handle_request(now, asking.request.clone()) {
            Ok(id) => drop(self.peers[peer].waiting.insert(id, asking)),
            Err(error) => self.fail(format!("p{peer} cannot ask: {error}")),
        }
    }

    /// One request of a flood: a site is enrolled that is enrolled already.
    pub(crate) fn ask_in_flood(&mut self, peer: usize, run: u64) {
        let Some(site) = self.sites().next() else { return };
        if self.peers[peer].run == run && self.peers[peer].session.is_some() {
            self.coverage.note("requests of floods");
            self.ask(peer, Request::AddSite { site });
            self.pump(peer);
        }
    }

    /// Uploads go to the coordinator of the session, as long as there is one.
    fn upload(&mut self, peer: usize, blob: BlobRef, bytes: Arc<[u8]>) {
        let node = self.peers[peer].session.as_ref().and_then(SiteSession::node);
        match node {
            Some(node) => {
                self.say(format_args!("p{peer} uploads {} to n{node}", blob.digest.short()));
                let stream = self.open_stream(Actor::Peer(peer), Actor::Node(node), &StreamOpen::Put(blob));
                self.peers[peer].uploads.insert(stream, (blob, bytes));
            }
            None => self.hear(peer, Heard::Uploaded(blob, Err(()))),
        }
    }
}

/// The site that uploads for no reason.
pub(crate) const HOARDER: &str = "attic";
/// The session's timer; the role's have later numbers.
const SESSION: u64 = 0;
