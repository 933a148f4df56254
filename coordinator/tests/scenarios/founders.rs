//! Founders that were not given the same list of members, as real processes.

use crate::consortium::{Consortium, wait_until};

#[test]
fn of_two_lists_that_share_a_founder_one_becomes_a_cluster() {
    let mut consortium = Consortium::founded(5, |node| if node < 3 { 1..=3 } else { 3..=5 });
    consortium.nodes().for_each(|node| consortium.start(node));
    let (shorted, whole) = (consortium.peers_among(1..=2), consortium.peers_among(3..=5));
    wait_until("the list that all of its founders have becomes a cluster", 20, || {
        consortium.try_ask_at(&whole, &["site", "add", "north"]).status.success()
    });
    let refused = consortium.try_ask_at(&shorted, &["site", "add", "north"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("were founded with other members (`--peers`)"), "{error}");
    let says_so = |node: u64| {
        let log = std::fs::read_to_string(consortium.path(&format!("node{node}.log"))).unwrap();
        log.contains("would be of two clusters")
    };
    assert!(says_so(3), "whoever is on both lists says so");
    assert!(says_so(1) || says_so(2), "whoever waits for it says so");
}

/// Such lists never hear of each other, and each becomes a cluster. Whoever is with one goes to no other.
#[test]
fn of_two_lists_without_a_founder_in_common_an_operator_stays_with_the_one_it_knows() {
    let mut consortium = Consortium::founded(4, |node| if node < 3 { 1..=2 } else { 3..=4 });
    consortium.nodes().for_each(|node| consortium.start(node));
    let (first, second, both) =
        (consortium.peers_among(1..=2), consortium.peers_among(3..=4), consortium.peers_among(1..=4));
    wait_until("the first becomes a cluster", 60, || {
        consortium.try_ask_at(&first, &["site", "add", "north"]).status.success()
    });
    // A command that came as early as the first one may have been answered before it was said who the coordinators are.
    wait_until("the operator knows the first", 60, || {
        let asked = consortium.try_ask_at(&first, &["site", "list"]);
        asked.status.success() && consortium.path("anna/coordinators.known").exists()
    });
    wait_until("the second, which is one too, is told from it", 60, || {
        let refused = consortium.try_ask_at(&second, &["site", "list"]);
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("is of another cluster")
    });
    // Whichever of all is dialled first.
    for _ in 0..4 {
        let asked = consortium.try_ask_at(&both, &["site", "list"]);
        let found = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert!(asked.status.success() && found.contains("north"), "{found}");
    }
    // What is remembered can be given up.
    std::fs::remove_file(consortium.path("anna/coordinators.known")).unwrap();
    let asked = consortium.try_ask_at(&second, &["site", "list"]);
    assert!(asked.status.success() && !String::from_utf8_lossy(&asked.stdout).contains("north"));
}

#[test]
fn a_new_cluster_waits_for_all_of_its_founders_and_then_for_no_one() {
    let mut consortium = Consortium::founded(3, |_| 1..=3);
    let n_members = |consortium: &Consortium| {
        let known = consortium.ask(&["members", "list"]);
        known["members"].as_array().map(Vec::len)
    };
    (1..=2).for_each(|node| consortium.start(node));
    let waits =
        |node: u64| std::fs::read_to_string(consortium.path(&format!("node{node}.log"))).unwrap().contains(AWAITED);
    wait_until("both say whom they wait for", 20, || waits(1) && waits(2));
    assert!((1..=2).all(|node| consortium.leader_of(node).is_none()), "nobody is elected without the third");
    consortium.start(3);
    wait_until("the founders are written down", 20, || n_members(&consortium) == Some(3));
    consortium.kill(3);
    consortium.leader();
    consortium.ask(&["site", "add", "north"]);
}

/// Of the log of a founder that waits for another.
const AWAITED: &str = "a new consortium begins when this founder has said";
