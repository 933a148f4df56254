//! The session against a scripted coordinator and a clock that is a number.

use std::collections::BTreeMap;

use archipelago_common::TaskId;

use super::*;

/// A session, the time, and what the session has done.
struct Script {
    session: SiteSession,
    now_ms: u64,
}

impl Script {
    fn new(n_nodes: u64) -> Self {
        let nodes = (1..=n_nodes).filter_map(NodeId::new).collect();
        Self { session: SiteSession::new(SessionConfig::new(nodes, "test"), [7; 32], 0), now_ms: 0 }
    }

    /// A session that stands with its leader, which is returned.
    fn ready(n_nodes: u64) -> (Self, NodeId) {
        let mut script = Self::new(n_nodes);
        let node = script.dialled();
        script.welcome(node, Some(node));
        assert_eq!(script.outputs(), []);
        (script, node)
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.poll_output()).collect()
    }

    /// The node that the session wants to be connected to now; nothing else may be wanted.
    fn dialled(&mut self) -> NodeId {
        let outputs = self.outputs();
        let [Output::Connect(node)] = outputs[..] else { panic!("expected one dial, not {outputs:?}") };
        node
    }

    /// Lets time pass until the session dials again, and says whom.
    fn dialled_later(&mut self) -> NodeId {
        self.pass_until_due();
        self.dialled()
    }

    fn pass_until_due(&mut self) {
        self.now_ms = self.session.poll_timeout().expect("a session that waits for the clock");
        self.session.handle_time(self.now_ms);
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.session.handle_time(self.now_ms);
    }

    fn hear(&mut self, message: &FromCoordinator) -> Result<()> {
        self.session.handle_frame(self.now_ms, &frame::encode(message).unwrap())
    }

    fn welcome(&mut self, node: NodeId, leader: Option<NodeId>) {
        self.hear(&FromCoordinator::Welcome(Welcome { protocol: version::NEWEST, node, leader })).unwrap();
    }

    fn answer(&mut self, id: u64, result: Result<Reply, Refusal>) {
        self.hear(&FromCoordinator::Response { id, result }).unwrap();
    }

    fn ask(&mut self) -> RequestId {
        self.session.handle_request(self.now_ms, Request::Claim { task: TaskId(1) }).unwrap()
    }

    /// The requests sent since the last look; nothing else may have been done.
    fn sent(&mut self) -> BTreeMap<u64, RequestKey> {
        let outputs = self.outputs().into_iter();
        outputs
            .map(|output| match output {
                Output::Send(frame) => match frame::decode(&frame).unwrap() {
                    ToCoordinator::Request { id, key, .. } => (id, key),
                    ToCoordinator::Ping => panic!("expected requests, not a ping"),
                },
                other => panic!("expected requests, not {other:?}"),
            })
            .collect()
    }
}

fn others(n_nodes: u64, node: NodeId) -> NodeId {
    (1..=n_nodes).filter_map(NodeId::new).find(|other| *other != node).unwrap()
}

fn is_ping(output: &Output) -> bool {
    matches!(output, Output::Send(frame) if frame::decode::<ToCoordinator>(frame).unwrap() == ToCoordinator::Ping)
}

#[test]
fn a_request_waits_for_the_session_and_its_answer_reaches_the_asker() {
    let mut script = Script::new(1);
    let node = script.dialled();
    let id = script.ask();
    assert_eq!(script.outputs(), []);
    script.welcome(node, Some(node));
    assert_eq!(script.sent().into_keys().collect::<Vec<_>>(), [id]);
    script.answer(id, Ok(Reply::Released));
    assert_eq!(script.outputs(), [Output::Answer { id, result: Ok(Reply::Released) }]);
    assert_eq!(script.session.poll_timeout(), None);
}

#[test]
fn a_broken_connection_sends_the_request_again_under_its_key_and_elsewhere() {
    let (mut script, first) = Script::ready(3);
    let id = script.ask();
    let sent = script.sent();
    script.session.handle_disconnected(script.now_ms);
    let second = script.dialled_later();
    assert_ne!(second, first);
    script.welcome(second, Some(second));
    assert_eq!(script.sent(), sent);
    script.answer(id, Ok(Reply::Released));
    script.answer(id, Ok(Reply::Released));
    assert_eq!(script.outputs().len(), 1, "an answer that comes twice is given once");
}

#[test]
fn not_leader_moves_the_session_to_the_leader_at_once_with_the_same_key() {
    let (mut script, first) = Script::ready(3);
    let id = script.ask();
    let sent = script.sent();
    let leader = others(3, first);
    script.answer(id, Err(Refusal::NotLeader { leader: Some(leader) }));
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::NotLeader), Output::Connect(leader)]);
    script.welcome(leader, Some(leader));
    assert_eq!(script.sent(), sent);
}

#[test]
fn a_welcome_or_a_notice_that_names_the_leader_is_followed() {
    let mut script = Script::new(3);
    let first = script.dialled();
    let leader = others(3, first);
    script.welcome(first, Some(leader));
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::NotLeader), Output::Connect(leader)]);
    script.welcome(leader, Some(leader));
    script.hear(&FromCoordinator::Notice(Notice::LeaderChanged { leader: None })).unwrap();
    assert_eq!(script.outputs(), []);
    script.hear(&FromCoordinator::Notice(Notice::LeaderChanged { leader: Some(first) })).unwrap();
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::NotLeader), Output::Connect(first)]);
}

#[test]
fn nodes_that_name_each_other_as_leader_are_not_visited_without_pause() {
    let mut script = Script::new(2);
    let mut node = script.dialled();
    script.ask();
    let mut n_dials_at_once = 0;
    loop {
        let other = others(2, node);
        script.welcome(node, Some(other));
        let outputs = script.outputs();
        if outputs.last() != Some(&Output::Connect(other)) {
            break;
        }
        n_dials_at_once += 1;
        assert!(n_dials_at_once < 10, "the session runs in circles");
        node = other;
    }
    script.answer(1, Err(Refusal::NotLeader { leader: Some(others(2, node)) }));
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::NotLeader)]);
    assert!(script.session.poll_timeout().unwrap() > script.now_ms);
}

/// A session whose leader, returned first, has died, at another coordinator, which goes on naming it.
fn orphaned() -> (Script, NodeId, NodeId) {
    let (mut script, dead) = Script::ready(3);
    script.ask();
    script.sent();
    script.session.handle_disconnected(script.now_ms);
    let refuge = script.dialled_later();
    script.welcome(refuge, Some(dead));
    (script, dead, refuge)
}

#[test]
fn a_dead_leader_that_others_still_name_is_not_dialled_again() {
    let (mut script, dead, refuge) = orphaned();
    let sent = script.sent();
    assert_eq!(sent.len(), 1, "the request is asked where the session is");
    script.answer(1, Err(Refusal::NotLeader { leader: Some(dead) }));
    assert_eq!(script.outputs(), []);
    script.pass_until_due();
    assert_eq!(script.sent(), sent, "and asked again under its key");
    let third = (1..=3).filter_map(NodeId::new).find(|node| ![dead, refuge].contains(node)).unwrap();
    script.hear(&FromCoordinator::Notice(Notice::LeaderChanged { leader: Some(third) })).unwrap();
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::NotLeader), Output::Connect(third)]);
    script.welcome(third, Some(third));
    assert_eq!(script.sent(), sent);
}

#[test]
fn while_nobody_leads_a_session_stays_where_it_is_and_asks_there_again() {
    let (mut script, _, refuge) = orphaned();
    let sent = script.sent();
    script.answer(1, Err(Refusal::NotLeader { leader: None }));
    assert_eq!(script.outputs(), []);
    script.pass_until_due();
    assert!(script.now_ms < 300, "asked again after {} ms", script.now_ms);
    assert_eq!(script.sent(), sent);
    script.answer(1, Ok(Reply::Released));
    assert_eq!(script.session.node(), Some(refuge));
}

#[test]
fn a_coordinator_that_never_hears_of_a_leader_is_left_and_the_silent_one_tried_again() {
    let (mut script, dead, _) = orphaned();
    script.sent();
    let outputs = loop {
        script.answer(1, Err(Refusal::NotLeader { leader: Some(dead) }));
        let outputs = script.outputs();
        if !outputs.is_empty() {
            break outputs;
        }
        script.pass_until_due();
        script.sent();
    };
    assert_eq!(outputs, [Output::Disconnect(Parting::NotLeader), Output::Connect(dead)]);
    assert!((2_500..4_000).contains(&script.now_ms), "left after {} ms", script.now_ms);
}

#[test]
fn a_leader_that_is_not_configured_is_not_followed() {
    let (mut script, _) = Script::ready(2);
    let id = script.ask();
    script.sent();
    script.answer(id, Err(Refusal::NotLeader { leader: NodeId::new(99) }));
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::NotLeader)]);
    script.dialled_later();
}

#[test]
fn busy_is_asked_again_later_on_the_same_connection_with_the_same_key() {
    let (mut script, _) = Script::ready(3);
    let id = script.ask();
    let sent = script.sent();
    script.answer(id, Err(Refusal::Busy { retry_after_ms: 200 }));
    assert_eq!(script.outputs(), []);
    script.pass(199);
    assert_eq!(script.outputs(), []);
    script.pass(201);
    assert_eq!(script.sent(), sent);
}

#[test]
fn every_other_refusal_is_the_answer() {
    let (mut script, _) = Script::ready(1);
    let id = script.ask();
    script.sent();
    let result = Err(Refusal::Stale { reason: "epoch 1 is over".to_owned() });
    script.answer(id, result.clone());
    assert_eq!(script.outputs(), [Output::Answer { id, result }]);
}

#[test]
fn a_dead_coordinator_is_found_out_by_a_ping_and_the_request_goes_elsewhere() {
    let (mut script, first) = Script::ready(3);
    script.ask();
    let sent = script.sent();
    script.pass_until_due();
    let outputs = script.outputs();
    assert!(matches!(&outputs[..], [ping] if is_ping(ping)), "{outputs:?}");
    script.pass_until_due();
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::Silence)]);
    assert!(script.now_ms <= 1_500, "noticed after {} ms", script.now_ms);
    let second = script.dialled_later();
    assert_ne!(second, first);
    script.welcome(second, Some(second));
    assert_eq!(script.sent(), sent);
}

#[test]
fn a_slow_answer_from_a_living_coordinator_is_waited_for() {
    let (mut script, _) = Script::ready(3);
    let id = script.ask();
    script.sent();
    while script.now_ms < 5_000 {
        script.pass_until_due();
        assert!(script.outputs().iter().all(is_ping));
        script.hear(&FromCoordinator::Pong).unwrap();
    }
    script.answer(id, Ok(Reply::Released));
    assert_eq!(script.outputs(), [Output::Answer { id, result: Ok(Reply::Released) }]);
}

#[test]
fn an_answer_that_never_comes_is_sought_elsewhere_even_from_a_living_coordinator() {
    let (mut script, _) = Script::ready(3);
    script.ask();
    script.sent();
    let outputs = loop {
        script.pass_until_due();
        let outputs = script.outputs();
        if !outputs.iter().all(is_ping) {
            break outputs;
        }
        script.hear(&FromCoordinator::Pong).unwrap();
    };
    assert_eq!(outputs, [Output::Disconnect(Parting::Silence)]);
    assert_eq!(script.now_ms, 10_000);
}

#[test]
fn coordinators_that_are_all_down_are_tried_in_turn_with_growing_pauses_up_to_a_bound() {
    let mut script = Script::new(3);
    let mut seen = BTreeSet::from([script.dialled()]);
    let mut pauses = Vec::new();
    for _ in 0..60 {
        script.session.handle_disconnected(script.now_ms);
        let before_ms = script.now_ms;
        seen.insert(script.dialled_later());
        pauses.push(script.now_ms - before_ms);
    }
    assert_eq!(seen.len(), 3);
    assert!(pauses[..3].iter().all(|&ms| ms <= 100), "{pauses:?}");
    assert!(pauses[50..].iter().all(|&ms| (2_500..=5_000).contains(&ms)), "{pauses:?}");
    assert!(pauses[50..].iter().collect::<BTreeSet<_>>().len() > 1, "pauses are not jittered");
}

#[test]
fn a_coordinator_that_accepts_and_says_nothing_is_given_up() {
    let mut script = Script::new(2);
    let first = script.dialled();
    script.pass_until_due();
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::Silence)]);
    assert_ne!(script.dialled_later(), first);
}

#[test]
fn nonsense_ends_the_session_and_not_the_machine() {
    let nonsense: [&[u8]; 2] = [b"garbage", &frame::encode(&FromCoordinator::Pong).unwrap()];
    for frame in nonsense {
        let mut script = Script::new(2);
        let first = script.dialled();
        assert!(script.session.handle_frame(0, frame).is_err());
        assert_eq!(script.outputs(), [Output::Disconnect(Parting::Fault)]);
        assert_ne!(script.dialled_later(), first);
    }
    let (mut script, node) = Script::ready(2);
    let again = Welcome { protocol: version::NEWEST, node, leader: None };
    assert!(matches!(script.hear(&FromCoordinator::Welcome(again)), Err(Error::OutOfTurn { .. })));
}

#[test]
fn a_coordinator_too_old_to_talk_to_is_left() {
    let mut script = Script::new(1);
    let node = script.dialled();
    let welcome = Welcome { protocol: 0, node, leader: None };
    assert!(matches!(script.hear(&FromCoordinator::Welcome(welcome)), Err(Error::ProtocolTooOld { .. })));
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::Fault)]);
}

#[test]
fn a_farewell_moves_the_session_on() {
    let (mut script, first) = Script::ready(2);
    let notice = Notice::Closing { reason: "shutting down".to_owned() };
    script.hear(&FromCoordinator::Notice(notice.clone())).unwrap();
    assert_eq!(script.outputs(), [Output::Notice(notice), Output::Disconnect(Parting::Farewell)]);
    assert_ne!(script.dialled_later(), first);
}

#[test]
fn a_hint_from_a_coordinator_that_was_left_changes_nothing() {
    let (mut script, node) = Script::ready(3);
    let other = others(3, node);
    script.session.handle_leader_hint(script.now_ms, other, Some(other));
    assert_eq!(script.outputs(), []);
    script.session.handle_leader_hint(script.now_ms, node, Some(other));
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::NotLeader), Output::Connect(other)]);
}

#[test]
fn no_more_requests_are_under_way_than_the_coordinator_takes_and_none_is_forgotten() {
    let (mut script, _) = Script::ready(1);
    let n_asked = limits::REQUESTS_IN_FLIGHT + 10;
    let asked: Vec<_> = (0..n_asked).map(|_| script.ask()).collect();
    let sent: Vec<_> = script.sent().into_keys().collect();
    assert_eq!(sent, asked[..limits::REQUESTS_IN_FLIGHT]);
    let mut answered = 0;
    let mut waiting = VecDeque::from(sent);
    while let Some(id) = waiting.pop_front() {
        script.answer(id, Ok(Reply::Released));
        for output in script.outputs() {
            match output {
                Output::Answer { .. } => answered += 1,
                Output::Send(frame) => match frame::decode(&frame).unwrap() {
                    ToCoordinator::Request { id, .. } => waiting.push_back(id),
                    ToCoordinator::Ping => {}
                },
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(answered, n_asked);
}

#[test]
fn a_cancelled_request_is_neither_sent_again_nor_answered() {
    let (mut script, _) = Script::ready(1);
    let id = script.ask();
    script.sent();
    script.session.handle_cancel(id);
    script.answer(id, Ok(Reply::Released));
    assert_eq!(script.outputs(), []);
    script.session.handle_disconnected(script.now_ms);
    let node = script.dialled_later();
    script.welcome(node, Some(node));
    assert_eq!(script.outputs(), []);
}

#[test]
fn every_request_has_a_key_of_its_own() {
    let (mut script, _) = Script::ready(1);
    for _ in 0..50 {
        script.ask();
    }
    assert_eq!(script.sent().into_values().collect::<BTreeSet<_>>().len(), 50);
}

#[test]
fn a_silent_coordinator_costs_a_second_at_first_and_more_in_later_rounds() {
    let mut script = Script::new(1);
    let mut waited_ms = Vec::new();
    for _ in 0..5 {
        script.dialled();
        let dialled_ms = script.now_ms;
        script.pass_until_due();
        waited_ms.push(script.now_ms - dialled_ms);
        assert_eq!(script.outputs(), [Output::Disconnect(Parting::Silence)]);
        script.pass_until_due();
    }
    assert_eq!(waited_ms, [1_000, 2_000, 4_000, 6_000, 6_000]);
}

#[test]
fn what_the_coordinator_has_no_word_for_is_not_sent_and_answered_with_what_to_do() {
    let mut script = Script::new(1);
    let node = script.dialled();
    let new = script.session.handle_request(0, Request::ListMembers).unwrap();
    let old = script.ask();
    script.hear(&FromCoordinator::Welcome(Welcome { protocol: 1, node, leader: Some(node) })).unwrap();
    let outputs = script.outputs();
    let [Output::Answer { id, result: Err(Refusal::Invalid { reason }) }, Output::Send(frame)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert!(*id == new && reason.contains("upgrade"), "{reason}");
    assert!(matches!(frame::decode(frame).unwrap(), ToCoordinator::Request { id, .. } if id == old));
    assert!(script.session.poll_timeout().is_some());
}

#[test]
fn the_session_follows_to_coordinators_that_were_added_and_leaves_those_that_were_removed() {
    let (mut script, node) = Script::ready(1);
    let (second, third) = (NodeId::new(2).unwrap(), NodeId::new(3).unwrap());
    let addresses = BTreeMap::from([(second, "h2:1".to_owned()), (third, "h3:1".to_owned())]);
    script.hear(&FromCoordinator::Notice(Notice::MembersChanged { addresses: addresses.clone() })).unwrap();
    assert_eq!(script.outputs(), [Output::Notice(Notice::MembersChanged { addresses })]);
    script.hear(&FromCoordinator::Notice(Notice::LeaderChanged { leader: Some(third) })).unwrap();
    assert_eq!(script.outputs(), [Output::Disconnect(Parting::NotLeader), Output::Connect(third)]);
    script.session.handle_disconnected(script.now_ms);
    let next = script.dialled_later();
    assert!(next == second && next != node, "{next}");
}

/// Found by the simulation (seed 407): the session stood with a coordinator that was removed and left only one other, passed
/// that one over, and dialled the removed one for ever.
#[test]
fn a_session_whose_coordinator_was_removed_goes_to_the_only_one_left() {
    let (mut script, node) = Script::ready(1);
    let left = NodeId::new(2).unwrap();
    let addresses = BTreeMap::from([(left, "h2:1".to_owned())]);
    script.hear(&FromCoordinator::Notice(Notice::MembersChanged { addresses })).unwrap();
    script.outputs();
    script.session.handle_disconnected(script.now_ms);
    assert_ne!(node, left);
    assert_eq!(script.dialled_later(), left);
}

/// Two lists of founders without a node in common never hear of each other; whoever is with one goes to no other.
#[test]
fn a_coordinator_of_another_cluster_is_left_in_words_and_one_that_was_added_is_not() {
    let node = |id| NodeId::new(id).unwrap();
    let list = |ids: &[u64], host: &str| ids.iter().map(|id| (node(*id), format!("{host}{id}:1"))).collect();
    let begun = |strangers: &[u64]| {
        let mut config = SessionConfig::new(BTreeSet::from([node(1)]), "test");
        let strangers = strangers.iter().map(|id| node(*id)).collect();
        config.known = Known { coordinators: list(&[1, 2, 3], "h"), strangers };
        let mut script = Script { session: SiteSession::new(config, [7; 32], 0), now_ms: 0 };
        let dialled = script.dialled();
        script.welcome(dialled, Some(dialled));
        script
    };
    let tell = |script: &mut Script, addresses: BTreeMap<NodeId, String>| {
        script.hear(&FromCoordinator::Notice(Notice::MembersChanged { addresses }))
    };
    // The same numbers elsewhere are others.
    let mut script = begun(&[1]);
    let error = tell(&mut script, list(&[1, 2, 3], "elsewhere")).unwrap_err();
    assert!(matches!(error, Error::AnotherCluster { .. }) && error.to_string().contains("elsewhere2:1"), "{error}");
    assert_eq!(script.outputs().last(), Some(&Output::Disconnect(Parting::Fault)));
    assert_eq!(script.session.node(), None);
    // A new one names one that was known; and those that were known may all be replaced, if one of them says so.
    tell(&mut begun(&[1]), list(&[3, 4, 5], "h")).unwrap();
    let mut script = begun(&[]);
    tell(&mut script, list(&[4, 5], "h")).unwrap();
    tell(&mut script, list(&[6], "h")).unwrap();
}
