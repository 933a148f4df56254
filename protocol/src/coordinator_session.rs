//! A coordinator's side of one session: who may ask what, how much at once, and what is said unasked.
//!
//! Inputs are `handle_*`; after each, [`CoordinatorSession::poll_frame`] until `None` and send what it gives. The
//! session answers by itself what needs no thought (a role that may not ask, too many requests at once) and gives
//! everything else out as [`Asked`], to be answered with [`CoordinatorSession::handle_answer`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use archipelago_common::{NodeId, Principal, limits};

use crate::{
    error::{Error, Result},
    frame,
    message::{FromCoordinator, Hello, Notice, Refusal, Reply, Request, RequestKey, ToCoordinator, Welcome},
    role, version,
};

/// A request that waits for its answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Asked {
    /// Its number in the session.
    pub id: u64,
    /// Its name across sessions.
    pub key: RequestKey,
    /// What is asked; the role may ask it.
    pub body: Request,
}

/// One session as the coordinator sees it.
#[derive(Debug)]
pub struct CoordinatorSession {
    who: Principal,
    protocol: u16,
    in_flight: BTreeSet<u64>,
    frames: VecDeque<Vec<u8>>,
    is_closed: bool,
}

impl CoordinatorSession {
    /// Opens a session with a peer that said hello; the welcome is the first frame out.
    ///
    /// # Errors  [`Error::ProtocolTooOld`]: close the connection with these words
    pub fn open(who: Principal, hello: &Hello, node: NodeId, leader: Option<NodeId>) -> Result<Self> {
        let protocol = version::negotiate(hello.protocol)?;
        let mut session = Self { who, protocol, in_flight: BTreeSet::new(), frames: VecDeque::new(), is_closed: false };
        session.say(&FromCoordinator::Welcome(Welcome { protocol, node, leader }));
        Ok(session)
    }

    /// Takes a frame from the peer. `None` means that the session has answered it itself.
    ///
    /// # Errors  [`Error::Malformed`], [`Error::RequestRepeated`]: close the connection with these words
    pub fn handle_frame(&mut self, frame: &[u8]) -> Result<Option<Asked>> {
        let message = frame::decode(frame)?;
        if self.is_closed {
            return Ok(None);
        }
        match message {
            ToCoordinator::Request { id, key, body } => self.handle_request(id, key, body),
            ToCoordinator::Ping => {
                self.say(&FromCoordinator::Pong);
                Ok(None)
            }
        }
    }

    /// Takes the answer to a request; one that nobody waits for is dropped.
    pub fn handle_answer(&mut self, id: u64, result: Result<Reply, Refusal>) {
        if self.in_flight.remove(&id) && !self.is_closed {
            self.respond(id, result);
        }
    }

    /// Tells the peer that there may be work for it.
    pub fn handle_tasks_changed(&mut self) {
        self.notice(Notice::TasksChanged);
    }

    /// Tells the peer who leads now.
    pub fn handle_leader_changed(&mut self, leader: Option<NodeId>) {
        self.notice(Notice::LeaderChanged { leader });
    }

    /// Tells the peer who the coordinators are and where, if its version has a word for it.
    pub fn handle_members_changed(&mut self, addresses: BTreeMap<NodeId, String>) {
        if self.protocol >= 2 && !addresses.is_empty() {
            self.notice(Notice::MembersChanged { addresses });
        }
    }

    /// Ends the session: the reason is the last frame out, and nothing is answered after it.
    pub fn handle_close(&mut self, reason: &str) {
        self.notice(Notice::Closing { reason: reason.chars().take(limits::REASON_BYTES / 4).collect() });
        self.is_closed = true;
    }

    /// The next frame to send.
    pub fn poll_frame(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }

    /// Who the peer is.
    pub fn who(&self) -> &Principal {
        &self.who
    }

    /// The protocol version of the session.
    pub fn protocol(&self) -> u16 {
        self.protocol
    }

    /// Requests that wait for their answer.
    pub fn n_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn handle_request(&mut self, id: u64, key: RequestKey, body: Request) -> Result<Option<Asked>> {
        if self.in_flight.contains(&id) {
            return Err(Error::RequestRepeated { id });
        }
        let refusal = if self.in_flight.len() >= limits::REQUESTS_IN_FLIGHT {
            Err(Refusal::Busy { retry_after_ms: RETRY_AFTER_MS })
        } else {
            role::permit(&self.who, &body)
        };
        match refusal {
            Ok(()) => {
                self.in_flight.insert(id);
                Ok(Some(Asked { id, key, body }))
            }
            Err(refusal) => {
                self.respond(id, Err(refusal));
                Ok(None)
            }
        }
    }

    fn respond(&mut self, id: u64, result: Result<Reply, Refusal>) {
        let result = result.and_then(|reply| reply.in_version(self.protocol));
        self.say(&FromCoordinator::Response { id, result });
    }

    fn notice(&mut self, notice: Notice) {
        if !self.is_closed {
            self.say(&FromCoordinator::Notice(notice));
        }
    }

    fn say(&mut self, message: &FromCoordinator) {
        match (frame::encode(message), message) {
            (Ok(frame), _) => self.frames.push_back(frame),
            (Err(_), FromCoordinator::Response { id, .. }) => {
                // Only lists can grow this long; what can be asked for one by one still can.
                let reason = format!("the answer is larger than {} bytes; ask for less", limits::FRAME_BYTES);
                self.respond(*id, Err(Refusal::Invalid { reason }));
            }
            (Err(_), FromCoordinator::Welcome(_) | FromCoordinator::Notice(_) | FromCoordinator::Pong) => {
                unreachable!("all but answers are bounded far below the limit of a frame")
            }
        }
    }
}

/// When a peer with too many requests may come again: about the time that a commit takes.
const RETRY_AFTER_MS: u64 = 50;

#[cfg(test)]
mod tests {
    use archipelago_common::{
        Digest, TaskId, VersionId,
        record::{Page, TaskHead, TaskRecord, TaskState},
        task::{Asks, SurgeryTask, TrainSpec},
    };

    use super::*;

    fn node(id: u64) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn open(who: &str) -> CoordinatorSession {
        let hello = Hello { protocol: version::NEWEST, software: "test".to_owned() };
        CoordinatorSession::open(who.parse().unwrap(), &hello, node(1), Some(node(2))).unwrap()
    }

    fn ask(session: &mut CoordinatorSession, id: u64, body: Request) -> Result<Option<Asked>> {
        let key = RequestKey([id as u8; 16]);
        session.handle_frame(&frame::encode(&ToCoordinator::Request { id, key, body }).unwrap())
    }

    fn said(session: &mut CoordinatorSession) -> Vec<FromCoordinator> {
        std::iter::from_fn(|| session.poll_frame()).map(|frame| frame::decode(&frame).unwrap()).collect()
    }

    #[test]
    fn the_welcome_names_version_node_and_leader() {
        let welcome = Welcome { protocol: version::NEWEST, node: node(1), leader: Some(node(2)) };
        assert_eq!(said(&mut open("site/a")), [FromCoordinator::Welcome(welcome)]);
        let old = Hello { protocol: 0, software: "ancient".to_owned() };
        let refused = CoordinatorSession::open("site/a".parse().unwrap(), &old, node(1), None);
        assert!(matches!(refused, Err(Error::ProtocolTooOld { .. })));
    }

    #[test]
    fn a_request_is_given_out_and_its_answer_carries_its_number() {
        let mut session = open("site/a");
        said(&mut session);
        let asked = ask(&mut session, 7, Request::Status).unwrap().unwrap();
        assert_eq!((asked.id, asked.body), (7, Request::Status));
        session.handle_answer(7, Ok(Reply::Released));
        session.handle_answer(7, Ok(Reply::Released));
        assert_eq!(said(&mut session), [FromCoordinator::Response { id: 7, result: Ok(Reply::Released) }]);
    }

    #[test]
    fn a_role_that_may_not_ask_is_answered_at_once() {
        for who in ["site/a", "auditor/x"] {
            let mut session = open(who);
            said(&mut session);
            assert_eq!(ask(&mut session, 1, Request::CloseTask { task: TaskId(1) }).unwrap(), None);
            let said = said(&mut session);
            let expected =
                matches!(&said[..], [FromCoordinator::Response { id: 1, result: Err(Refusal::Forbidden { .. }) }]);
            assert!(expected, "{said:?}");
        }
    }

    #[test]
    fn more_requests_than_allowed_are_told_to_come_again() {
        let mut session = open("site/a");
        said(&mut session);
        for id in 0..limits::REQUESTS_IN_FLIGHT as u64 {
            assert!(ask(&mut session, id, Request::Status).unwrap().is_some());
        }
        assert_eq!(ask(&mut session, 1_000, Request::Status).unwrap(), None);
        let said = said(&mut session);
        assert!(matches!(said[..], [FromCoordinator::Response { id: 1_000, result: Err(Refusal::Busy { .. }) }]));
        session.handle_answer(0, Ok(Reply::Released));
        assert!(ask(&mut session, 1_001, Request::Status).unwrap().is_some());
    }

    #[test]
    fn a_number_used_twice_at_once_breaks_the_protocol() {
        let mut session = open("site/a");
        ask(&mut session, 1, Request::Status).unwrap();
        assert!(matches!(ask(&mut session, 1, Request::Status), Err(Error::RequestRepeated { id: 1 })));
        assert!(matches!(session.handle_frame(b"garbage"), Err(Error::Malformed(_))));
    }

    #[test]
    fn a_ping_is_answered_even_while_every_answer_is_late() {
        let mut session = open("site/a");
        said(&mut session);
        ask(&mut session, 1, Request::Status).unwrap();
        assert_eq!(session.handle_frame(&frame::encode(&ToCoordinator::Ping).unwrap()).unwrap(), None);
        assert_eq!(said(&mut session), [FromCoordinator::Pong]);
    }

    #[test]
    fn a_peer_hears_of_the_members_if_its_version_has_a_word_for_it() {
        let addresses = BTreeMap::from([(node(1), "h1:1".to_owned())]);
        for (protocol, expected) in [(1, vec![]), (2, vec![Notice::MembersChanged { addresses: addresses.clone() }])] {
            let hello = Hello { protocol, software: "test".to_owned() };
            let mut session = CoordinatorSession::open("site/a".parse().unwrap(), &hello, node(1), None).unwrap();
            said(&mut session);
            session.handle_members_changed(addresses.clone());
            session.handle_members_changed(BTreeMap::new());
            assert_eq!(said(&mut session), expected.into_iter().map(FromCoordinator::Notice).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_peer_hears_of_the_tasks_that_its_version_has_words_for() {
        let train = TrainSpec { seed: 7, ..TrainSpec::default() };
        let task = SurgeryTask::new("atlas".parse().unwrap(), VersionId(Digest::of(b"version")), train);
        let record = TaskRecord {
            id: TaskId(4),
            task,
            publisher: "anna".parse().unwrap(),
            published_ms: 0,
            state: TaskState::Open,
            assignments: BTreeMap::new(),
        };
        let answers = |protocol| {
            let hello = Hello { protocol, software: "test".to_owned() };
            let mut session = CoordinatorSession::open("site/a".parse().unwrap(), &hello, node(1), None).unwrap();
            said(&mut session);
            for (id, reply) in [(1, Reply::Tasks(vec![record.clone()])), (2, Reply::Task(Box::new(record.clone())))] {
                ask(&mut session, id, Request::ListTasks).unwrap();
                session.handle_answer(id, Ok(reply));
            }
            said(&mut session)
        };
        let answer = |id, result| FromCoordinator::Response { id, result };
        let both = [Ok(Reply::Tasks(vec![record.clone()])), Ok(Reply::Task(Box::new(record.clone())))];
        assert_eq!(answers(3), [1, 2].into_iter().zip(both).map(|(id, r)| answer(id, r)).collect::<Vec<_>>());
        let reason = "task 4 has what protocol 2 cannot say; upgrade this program".to_owned();
        assert_eq!(answers(2), [answer(1, Ok(Reply::Tasks(vec![]))), answer(2, Err(Refusal::Invalid { reason }))]);
    }

    #[test]
    fn a_peer_hears_of_tasks_for_annotations_if_it_knows_what_they_are() {
        let usual = SurgeryTask::new("atlas".parse().unwrap(), VersionId(Digest::of(b"version")), TrainSpec::default());
        let head = |id, asks| TaskHead {
            id: TaskId(id),
            task: SurgeryTask { asks, ..usual.clone() },
            publisher: "anna".parse().unwrap(),
            published_ms: 0,
            state: TaskState::Open,
            n_assigned: 0,
            n_accepted: 0,
            own: None,
        };
        let (parts, annotations) = (head(1, Asks::Parts), head(2, Asks::Annotations));
        let page = |items: &[&TaskHead], more| {
            Reply::TaskHeads(Page { items: items.iter().map(|&head| head.clone()).collect(), more })
        };
        let answer = |protocol, reply: Reply| reply.in_version(protocol).map_err(|refusal| refusal.to_string());
        for (protocol, seen) in [(3, vec![&parts]), (4, vec![&parts, &annotations])] {
            assert_eq!(answer(protocol, page(&[&parts, &annotations], true)), Ok(page(&seen, true)));
            assert_eq!(answer(protocol, page(&[&annotations], false)), Ok(page(&seen[1..], false)));
        }
        let refused = Err("task 2 has what protocol 3 cannot say; upgrade this program".to_owned());
        assert_eq!(answer(3, Reply::TaskHead(Box::new(annotations.clone()))), refused);
        // An empty page would look like the last.
        assert!(answer(3, page(&[&annotations], true)).is_err());
    }

    #[test]
    fn nothing_follows_the_farewell() {
        let mut session = open("site/a");
        said(&mut session);
        ask(&mut session, 1, Request::Status).unwrap();
        session.handle_tasks_changed();
        session.handle_close("going down");
        session.handle_answer(1, Ok(Reply::Released));
        session.handle_tasks_changed();
        assert_eq!(ask(&mut session, 2, Request::Status).unwrap(), None);
        let reason = "going down".to_owned();
        assert_eq!(said(&mut session), [Notice::TasksChanged, Notice::Closing { reason }].map(FromCoordinator::Notice));
    }

    #[test]
    fn an_answer_that_fits_no_frame_becomes_a_refusal() {
        let mut session = open("site/a");
        said(&mut session);
        ask(&mut session, 1, Request::Status).unwrap();
        let reason = "x".repeat(limits::FRAME_BYTES);
        session.handle_answer(1, Err(Refusal::Conflict { reason }));
        let said = said(&mut session);
        assert!(matches!(&said[..], [FromCoordinator::Response { id: 1, result: Err(Refusal::Invalid { .. }) }]));
    }
}
