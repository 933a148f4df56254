//! The record of acts: what is in it, who sees it, and that it stays a chain.

use archipelago_cluster::{Cluster, Room};
use archipelago_common::{
    Digest, Principal,
    act::{Act, Anchored, Follower},
    limits,
};

use crate::script::Script;

const PUBLISHED: &str = "
    @1000 operator/anna add-site charite
    operator/anna publish-reference atlas anna/lung/ref=r
    operator/anna publish-task atlas lease=60000
    site/charite claim 1
    site/charite submit 1 1 charite/lung/b1=c1";

fn acts(cluster: &Cluster, who: &str, after: u64) -> Vec<Act> {
    cluster.act_page(Room::default(), &who.parse::<Principal>().unwrap(), after).items
}

fn told(script: &Script, who: &str) -> Vec<String> {
    let told = |act: Act| format!("{} {} {}: {}", act.who, act.what, act.about, act.outcome);
    acts(&script.cluster, who, 0).into_iter().map(told).collect()
}

fn anchored(script: &Script) -> Anchored {
    script.cluster.anchored(&"charite".parse().unwrap())
}

#[test]
fn every_act_that_was_carried_out_is_in_the_record_once_with_what_came_of_it() {
    let mut script = Script::after(PUBLISHED);
    script.ask("site/charite withdraw atlas anna").unwrap_err();
    script.run("operator/anna close-task 1 key=9\n coordinator/1 tick");
    script.run("operator/anna close-task 1 key=9");
    let current = script.current();
    assert_eq!(
        told(&script, "auditor/eva"),
        [
            "operator/anna add-site charite: done".to_owned(),
            format!("operator/anna publish-reference atlas: version {}", first(&script)),
            "operator/anna publish-task reference atlas: task 1".to_owned(),
            "site/charite claim task 1: epoch 1".to_owned(),
            format!("site/charite submit task 1, 1 conditions: accepted, version {current}"),
            "operator/anna close-task task 1: task 1".to_owned(),
        ]
    );
    assert_eq!(told(&script, "site/charite").len(), 2, "a site sees its own");
    let mut follower = Follower::default();
    acts(&script.cluster, "auditor/eva", 0).iter().try_for_each(|act| follower.follow(act)).unwrap();
    acts(&script.cluster, "auditor/eva", 4).iter().try_for_each(|act| Follower::default().follow(act)).unwrap();
    assert_eq!(Cluster::restore(&script.cluster.snapshot().unwrap()).unwrap(), script.cluster);
}

fn first(script: &Script) -> archipelago_common::VersionId {
    script.cluster.reference(&"atlas".parse().unwrap()).unwrap().changes()[0].version
}

#[test]
fn an_act_says_with_which_key_it_was_done() {
    let mut script = Script::after("coordinator/1 note operator/anna annas 9000000\n operator/anna add-site charite");
    let key = acts(&script.cluster, "auditor/eva", 0)[1].key;
    assert_eq!(
        key,
        script.cluster.standing(&"operator/anna".parse().unwrap()).certified.map(|certified| certified.key)
    );
    assert!(key.is_some());
    script.run("operator/ben add-site pasteur");
    assert_eq!(acts(&script.cluster, "auditor/eva", 2)[0].key, None, "nobody has noted one");
}

#[test]
fn a_log_that_does_not_follow_what_was_anchored_stands_in_the_record_as_such() {
    let mut script = Script::after(PUBLISHED);
    assert_eq!(anchored(&script), Anchored::default());
    script.run("site/charite anchor 0 r1 r2\n site/charite anchor 2 r3 head=r2");
    assert_eq!(anchored(&script), Anchored { n_records: 3, head: Digest::of(b"r3") });
    // Emptied, rewritten, or cut and gone on with.
    script.run("site/charite anchor 0 x1\n site/charite anchor 1 x2 head=y\n site/charite anchor 2 x3 head=x2");
    let follows: Vec<_> =
        acts(&script.cluster, "auditor/eva", 5).into_iter().map(|act| act.anchor.unwrap().follows).collect();
    assert_eq!(follows, [true, true, false, false, true]);
    for line in ["site/stranger anchor 0 r1", "operator/anna anchor 0 r1", "site/charite anchor 0"] {
        script.ask(line).unwrap_err();
    }
}

#[test]
fn what_is_kept_is_bounded_and_ends_the_chain() {
    let mut script = Script::after(PUBLISHED);
    let hashes: String = (0..limits::ANCHOR_HASHES).map(|i| format!(" r{i}")).collect();
    for _ in 0..300 {
        script.quiet(&format!("site/charite anchor 0{hashes}"));
    }
    let seen = acts(&script.cluster, "auditor/eva", 0);
    assert!(seen[0].seq > 1, "the first are gone");
    assert_eq!(acts(&script.cluster, "auditor/eva", seen[0].seq)[0].seq, seen[0].seq + 1);
    let bytes = script.cluster.snapshot().unwrap().len() as u64;
    assert!((limits::ACT_BYTES / 2..limits::ACT_BYTES + (1 << 20)).contains(&bytes), "{bytes}");
    archipelago_cluster::invariants::check(&script.cluster).unwrap();
}
