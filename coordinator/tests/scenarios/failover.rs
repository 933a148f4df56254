//! Leaders die; what was acknowledged stays.

use crate::consortium::{Consortium, wait_until};

#[test]
fn a_published_reference_survives_the_death_of_each_node_in_turn() {
    let mut consortium = Consortium::new(3);
    let dir = consortium.write_reference("reference");
    let id = serde_json::to_value(dir.version().id()).unwrap();
    let published = consortium.ask(&["reference", "publish", "lung", "reference"]);
    assert_eq!(published["current"], id);

    for turn in 0..3 {
        let leader = consortium.leader();
        consortium.kill(leader);
        // The command goes on asking until another leads; how long that takes is measured by a bench and the campaign.
        let site = format!("site-{turn}");
        assert_eq!(consortium.ask(&["site", "add", &site])["site"], site);
        let shown = consortium.ask(&["reference", "show", "lung"]);
        assert_eq!(shown["current"], id);
        consortium.start(leader);
        consortium.leader();
    }
    assert_eq!(consortium.ask(&["site", "list"]).as_array().unwrap().len(), 3);

    consortium.ask(&["reference", "fetch", "lung", "--out", "fetched"]);
    let fetched = archipelago_common::reference_dir::ReferenceDir::open(&consortium.path("fetched")).unwrap();
    assert_eq!(fetched.version(), dir.version());
}

#[test]
fn a_node_that_was_away_fetches_the_blobs_it_missed() {
    let mut consortium = Consortium::new(3);
    let away = consortium.nodes().find(|node| *node != consortium.leader()).unwrap();
    consortium.kill(away);
    let dir = consortium.write_reference("reference");
    consortium.ask(&["reference", "publish", "lung", "reference"]);
    consortium.start(away);
    let n_blobs = dir.version().blobs().count() as f64;
    wait_until("all blobs are on the node", 20, || {
        consortium.metric(away, "archipelago_blob_objects") == Some(n_blobs)
    });
}

#[test]
fn all_nodes_die_at_once_and_come_back_with_everything() {
    let mut consortium = Consortium::new(3);
    consortium.ask(&["site", "add", "north"]);
    consortium.nodes().for_each(|node| consortium.kill(node));
    consortium.nodes().for_each(|node| consortium.start(node));
    consortium.leader();
    assert_eq!(consortium.ask(&["site", "list"])[0]["site"], "north");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_behind_refuses_nobody_whom_the_others_let_in() {
    let mut consortium = Consortium::new(3);
    let away = consortium.nodes().find(|node| *node != consortium.leader()).unwrap();
    consortium.kill(away);
    consortium.issue("site/north", "north");
    consortium.ask(&["site", "add", "north"]);
    let others: Vec<_> = consortium.nodes().filter(|node| *node != away).collect();
    others.iter().for_each(|node| consortium.kill(*node));
    consortium.start(away);
    let said = consortium.client("north").await.err().unwrap().to_string();
    assert!(!said.contains("not enrolled"), "{said}");
    consortium.start(others[0]);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while let Err(error) = consortium.client("north").await {
        assert!(!error.to_string().contains("not enrolled") && std::time::Instant::now() < until, "{error}");
    }
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_over() {
    let mut consortium = Consortium::new(3);
    let old = consortium.leader();
    assert!(consortium.stop(old), "a stop that was asked for is no failure");
    assert_ne!(consortium.leader(), old);
    consortium.ask(&["site", "add", "north"]);
}

#[test]
fn a_single_node_serves_and_restarts() {
    let mut consortium = Consortium::new(1);
    consortium.write_reference("reference");
    consortium.ask(&["reference", "publish", "lung", "reference"]);
    consortium.kill(1);
    consortium.start(1);
    consortium.leader();
    assert_eq!(consortium.ask(&["reference", "list"])[0]["name"], "lung");
}
