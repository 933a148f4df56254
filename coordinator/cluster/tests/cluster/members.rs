//! Who is a member of the cluster.

use archipelago_cluster::{Outcome, Refusal};
use archipelago_common::{NodeId, member::MemberRole};

use crate::script::{Script, principal};

const FOUNDED: &str = "@1000 coordinator/1 adopt-members 1@h1:1 2@h2:1 3@h3:1";

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().map(|id| NodeId::new(*id).unwrap()).collect()
}

#[track_caller]
fn check_refused(script: &mut Script, line: &str, expected: &str) {
    match script.ask(line) {
        Err(Refusal::Conflict { reason } | Refusal::Invalid { reason } | Refusal::NotFound { what: reason }) => {
            assert!(reason.contains(expected), "`{line}`: {reason}");
        }
        other => panic!("`{line}` gave {other:?}"),
    }
}

#[track_caller]
fn check_members(script: &Script, voters: &[u64], learners: &[u64]) {
    assert_eq!(script.cluster.voters().into_iter().collect::<Vec<_>>(), ids(voters));
    assert_eq!(script.cluster.learners().into_iter().collect::<Vec<_>>(), ids(learners));
}

#[test]
fn the_founders_are_written_down_once() {
    let mut script = Script::after(FOUNDED);
    check_members(&script, &[1, 2, 3], &[]);
    script.run("coordinator/2 adopt-members 2@elsewhere:1");
    check_members(&script, &[1, 2, 3], &[]);
    assert_eq!(script.cluster.member(NodeId::new(2).unwrap()).unwrap().address, "h2:1");
}

#[test]
fn a_lost_disk_is_replaced_under_a_new_id() {
    let mut script = Script::after(FOUNDED);
    script.run("operator/anna add-member 4@h4:1");
    check_members(&script, &[1, 2, 3], &[4]);
    script.run("operator/anna promote-member 4\n operator/anna remove-member 3");
    check_members(&script, &[1, 2, 4], &[]);
    // The same machine, with a new disk.
    script.run("operator/anna add-member 5@h3:1");
    check_members(&script, &[1, 2, 4], &[5]);
}

#[test]
fn an_id_is_never_reused_and_the_refusal_names_a_free_one() {
    let mut script = Script::after(FOUNDED);
    script.run("operator/anna add-member 9@h9:1\n operator/anna remove-member 9");
    check_refused(&mut script, "operator/anna add-member 9@h9:1", "was a member already, and ids are never reused");
    check_refused(&mut script, "operator/anna add-member 2@other:1", "add it as node 10");
    check_refused(&mut script, "operator/anna promote-member 9", "was removed");
    check_refused(&mut script, "operator/anna add-member 4@h1:1", "is the address of node 1");
    check_refused(&mut script, "operator/anna add-member 4@nowhere", "`<host>:<port>`");
    check_refused(&mut script, "operator/anna remove-member 7", "coordinator 7");
}

#[test]
fn the_last_voter_stays() {
    let mut script = Script::after(FOUNDED);
    script.run("operator/anna remove-member 1\n operator/anna remove-member 2\n operator/anna add-member 4@h4:1");
    check_refused(&mut script, "operator/anna remove-member 3", "is the last voter");
    script.run("operator/anna remove-member 4");
    check_members(&script, &[3], &[]);
}

#[test]
fn asked_again_the_answer_is_the_same_and_nothing_changes() {
    let mut script = Script::after(FOUNDED);
    for line in ["add-member 4@h4:1", "promote-member 4", "remove-member 3"] {
        let line = format!("operator/anna {line}");
        script.run(&line);
        let before: Vec<_> = script.cluster.members().cloned().collect();
        assert_eq!(script.ask(&line), Ok(Outcome::Members));
        assert_eq!(script.cluster.members().cloned().collect::<Vec<_>>(), before);
    }
}

#[test]
fn only_an_operator_changes_members_and_only_once_the_founders_are_known() {
    let mut script = Script::default();
    check_refused(&mut script, "operator/anna add-member 4@h4:1", "not written down yet");
    script.run(FOUNDED);
    for line in ["site/a remove-member 1", "coordinator/1 add-member 4@h4:1", "operator/anna adopt-members 1@h:1"] {
        assert!(matches!(script.ask(line), Err(Refusal::Forbidden { .. })), "{line}");
    }
}

#[test]
fn there_are_no_more_voters_than_help() {
    let mut script = Script::after(FOUNDED);
    for node in 4..=8 {
        script.run(&format!("operator/anna add-member {node}@h{node}:1"));
    }
    script.run("operator/anna promote-member 4\n operator/anna promote-member 5");
    script.run("operator/anna promote-member 6\n operator/anna promote-member 7");
    check_refused(&mut script, "operator/anna promote-member 8", "there are 7 voters");
}

#[test]
fn a_removed_coordinator_is_not_let_in() {
    let mut script = Script::after(FOUNDED);
    script.run("operator/anna remove-member 3");
    assert!(matches!(script.cluster.admit(&principal("coordinator/3")), Err(Refusal::Forbidden { .. })));
    assert_eq!(script.cluster.admit(&principal("coordinator/2")), Ok(()));
    assert_eq!(script.cluster.admit(&principal("coordinator/4")), Ok(()), "it may have been added just now");
    assert_eq!(script.cluster.member(NodeId::new(3).unwrap()).unwrap().role, MemberRole::Removed);
}

/// Today's fault: a node whose disk was lost came back under its old id, and acknowledged writes were gone.
#[test]
fn a_member_is_one_life_of_its_log() {
    let mut script = Script::default();
    let recognised = |script: &Script, node: &str, life| {
        script
            .cluster
            .recognise(node.parse().unwrap(), archipelago_common::member::Incarnation(life))
            .map_err(|e| e.to_string())
    };
    assert_eq!(recognised(&script, "3", 9), Ok(()), "while nobody is known, nobody can be told from another");
    script.run("coordinator/1 adopt-members 1@h1:1 2@h2:1 3@h3:1\n coordinator/1 introduce 3=7");
    assert_eq!((recognised(&script, "3", 7), recognised(&script, "2", 5)), (Ok(()), Ok(())));
    let refused = recognised(&script, "3", 8).unwrap_err();
    assert!(refused.contains("is not the node 3 we know") && refused.contains("add it as node 4"), "{refused}");
    assert!(script.ask("coordinator/1 introduce 3=8").is_err());
    assert!(recognised(&script, "9", 1).is_err(), "one that never was a member");
    script.run("operator/anna remove-member 3");
    assert!(recognised(&script, "3", 7).unwrap_err().contains("was removed"));
}
