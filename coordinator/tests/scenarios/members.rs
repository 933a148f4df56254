//! Coordinators come and go, and the cluster stays.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use archipelago_common::NodeId;
use archipelago_coordinator::raft::log_store::LogStore;
use archipelago_protocol::{
    frame::{self, Message as _},
    message::{Greeting, PeerAsk, PeerReply, Presentation, Request, StreamOpen},
};
use archipelago_transport::{
    Connection, Error as TransportError, Transport as _,
    net::{NetTransport, Network},
};

use crate::consortium::{Consortium, wait_until};

/// Promotes a learner as soon as the cluster lets it.
fn promote(consortium: &Consortium, node: &str) {
    wait_until("the learner is promoted", 30, || {
        let output = consortium.try_ask(&["members", "promote", node]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || error.contains("behind") || error.contains("heard of"), "{error}");
        output.status.success()
    });
}

/// The id and role of every member.
fn roles(members: &serde_json::Value) -> Vec<(u64, String)> {
    let members = members["members"].as_array().unwrap().iter();
    members.map(|m| (m["member"]["node"].as_u64().unwrap(), m["member"]["role"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_node_that_lost_its_disk_is_replaced_under_a_new_id() {
    let mut consortium = Consortium::new(3);
    let dir = consortium.write_reference("reference");
    consortium.ask(&["reference", "publish", "lung", "reference"]);
    let lost = consortium.nodes().find(|node| *node != consortium.leader()).unwrap();
    consortium.kill(lost);
    std::fs::remove_dir_all(consortium.path(&format!("node{lost}/data"))).unwrap();
    let again = consortium.command(&["serve", "--config", &format!("node{lost}/node.toml")]).output().unwrap();
    let error = String::from_utf8(again.stderr).unwrap();
    assert!(!again.status.success() && error.contains("must not return under its old id"), "{error}");

    let address = Consortium::free_address();
    consortium.ask(&["members", "add", "4", &address]);
    let error = consortium.refused(&["members", "promote", "4"]);
    assert!(error.contains("node 4 has not been heard of"), "{error}");
    consortium.join(4, &address);
    promote(&consortium, "4");
    let left = consortium.ask(&["members", "remove", &lost.to_string()]);
    let mut expected: Vec<_> = (1..=4).map(|node| (node, "voter".to_owned())).collect();
    expected[lost as usize - 1].1 = "removed".to_owned();
    assert_eq!(roles(&left), expected);
    let error = consortium.refused(&["members", "add", &lost.to_string(), "127.0.0.1:9"]);
    assert!(error.contains("ids are never reused; add it as node 5"), "{error}");
    let n_blobs = dir.version().blobs().count() as f64;
    assert_eq!(consortium.metric(4, "archipelago_blob_objects"), Some(n_blobs), "a voter has every blob");

    // Another one dies, and the new one counts. Whoever knows only the founders finds it.
    let leader = consortium.leader();
    let dies = if leader == 4 { consortium.nodes().find(|node| *node != lost).unwrap() } else { leader };
    consortium.kill(dies);
    assert_eq!(consortium.ask(&["site", "add", "north"])["site"], "north");
    consortium.ask(&["reference", "fetch", "lung", "--out", "fetched"]);
    // A founder that was away while all this happened finds its way back.
    consortium.start(dies);
    consortium.leader();
}

#[test]
fn a_rolling_restart_fails_no_request() {
    let mut consortium = Consortium::new(3);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let anna = runtime.block_on(consortium.client("anna")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let stop = stop.clone();
        runtime.spawn(async move {
            let mut n_added = 0;
            while !stop.load(Ordering::Relaxed) {
                let site = format!("site-{n_added}").parse().unwrap();
                anna.request(Request::AddSite { site }).await.unwrap();
                n_added += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            n_added
        })
    };
    for node in consortium.nodes() {
        assert!(consortium.stop(node), "a stop that was asked for is no failure");
        consortium.start(node);
        consortium.leader();
    }
    stop.store(true, Ordering::Relaxed);
    let n_added: usize = runtime.block_on(asking).unwrap();
    assert!(n_added > 0);
    assert_eq!(consortium.ask(&["site", "list"]).as_array().unwrap().len(), n_added);
}

#[test]
fn the_leadership_goes_where_it_is_sent_and_nowhere_else() {
    let consortium = Consortium::new(3);
    let old = consortium.leader();
    let to = consortium.nodes().find(|node| *node != old).unwrap();
    let members = consortium.ask(&["members", "transfer", "--to", &to.to_string()]);
    assert_eq!(members["leader"], to);
    assert_eq!(consortium.leader(), to);
    let error = consortium.refused(&["members", "transfer", "--to", "9"]);
    assert!(error.contains("node 9 is not a voter"), "{error}");
    let error = consortium.refused(&["members", "remove", "9"]);
    assert!(error.contains("there is no coordinator 9"), "{error}");
}

/// Whoever has a removed coordinator's key and certificate, and a connection from before.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_cuts_the_connection_that_is_open_and_lets_no_other_in() {
    let mut consortium = Consortium::new(3);
    let leader = consortium.leader();
    let removed = consortium.nodes().find(|node| *node != leader).unwrap();
    consortium.kill(removed);
    let [leader_id, removed_id] = [leader, removed].map(|node| NodeId::new(node).unwrap());
    let own = {
        let log = consortium.path(&format!("node{removed}/data/log.redb"));
        let store = LogStore::open(&log, removed_id).unwrap();
        let greeting = Greeting { incarnation: store.incarnation(), last_index: u64::MAX, edition: 4 };
        Presentation { greeting, origin: store.origin() }
    };
    let transport = NetTransport::new(consortium.credentials(&format!("node{removed}")), Network::default());
    let connection = transport.dial(&consortium.addresses()[&leader_id], leader_id).await.unwrap();
    assert!(matches!(ask(&connection, PeerAsk::Present(own)).await, Ok(PeerReply::Presentation(_))));
    assert!(matches!(ask(&connection, PeerAsk::Marks).await, Ok(PeerReply::Marks(_))), "a member is answered");

    consortium.ask(&["members", "remove", &removed.to_string()]);
    let ended = tokio::time::timeout(Duration::from_secs(20), connection.closed()).await.expect("it is cut");
    let reason = format!("coordinator {removed} was removed");
    assert!(matches!(&ended, TransportError::Refused { reason: found } if *found == reason), "{ended}");
    let again = transport.dial(&consortium.addresses()[&leader_id], leader_id).await;
    let error = match again {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    assert!(matches!(&error, TransportError::Refused { reason: found } if found.ends_with(&reason)), "{error}");
}

async fn ask(connection: &Connection, ask: PeerAsk) -> Result<PeerReply, TransportError> {
    let mut stream = connection.open_stream().await?;
    stream.send_frame(&frame::encode(&StreamOpen::Peer(ask)).unwrap()).await?;
    let answer = stream.recv_frame(PeerReply::LIMIT).await?.expect("an answer");
    Ok(frame::decode(&answer).unwrap())
}
