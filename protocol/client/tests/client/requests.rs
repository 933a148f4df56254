//! Requests and the session they travel in.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use archipelago_client::{Client, ClientConfig, ClientError, Patience};
use archipelago_common::TaskId;
use archipelago_protocol::message::{Notice, Reply, Request};
use archipelago_transport::{
    Credentials,
    ca::{Authority, Validity},
    faulty::{Faults, FaultyTransport},
    memory::MemoryNetwork,
    net::Network,
    quic::QuicTransport,
};

use crate::server::{Cluster, identity, node, site};

fn claim() -> Request {
    Request::Claim { task: TaskId(1) }
}

#[tokio::test]
async fn the_leader_is_found_from_wherever_the_session_begins() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(3);
    let addresses = cluster.start_in_memory(&network, 3).await;
    for _ in 0..8 {
        let client = site(&network, &addresses).await;
        assert_eq!(client.request(claim()).await.unwrap(), Reply::Released);
    }
    assert_eq!(cluster.state().carried_out.len(), 8);
}

#[tokio::test]
async fn a_request_survives_the_death_of_the_leader_under_its_first_key() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    let addresses = cluster.start_in_memory(&network, 3).await;
    let client = site(&network, &addresses).await;
    client.request(claim()).await.unwrap();
    cluster.state().hang_up.insert(node(1));
    let asked = client.request(claim());
    tokio::pin!(asked);
    // The leader takes the request and dies with it, again and again, until another leads.
    loop {
        tokio::select! {
            biased;
            answer = &mut asked => panic!("{answer:?} from a dead leader"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        if cluster.state().arrived.len() >= 3 {
            cluster.state().leader = Some(node(2));
            break;
        }
    }
    assert_eq!(asked.await.unwrap(), Reply::Released);
    let state = cluster.state();
    let second = &state.arrived[1..];
    assert!(second.iter().all(|key| *key == second[0]), "the key changed on the way: {second:?}");
    assert_ne!(state.arrived[0], second[0]);
}

#[tokio::test]
async fn requests_get_through_a_network_that_keeps_breaking() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(2);
    let addresses = cluster.start_in_memory(&network, 3).await;
    let faults = Faults { cut_after_bytes: 60..400, max_delay: Duration::from_millis(1), ..Faults::default() };
    let transport = Arc::new(FaultyTransport::new(network.transport(identity("site/a")), faults, 11));
    let client = Client::connect_over(transport, addresses, "test", Patience::Forever).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.request(claim()).await.unwrap(), Reply::Released);
    }
    let state = cluster.state();
    assert_eq!(state.carried_out.len(), 20, "a repeated request came under a new key");
}

#[tokio::test]
async fn coordinators_that_are_down_are_all_named_with_what_they_said() {
    let network = MemoryNetwork::default();
    let addresses = BTreeMap::from([(node(1), "a.example:7001".to_owned()), (node(2), "b.example:7001".to_owned())]);
    let transport = Arc::new(network.transport(identity("operator/anna")));
    let patience = Patience::Within(Duration::from_secs(30));
    let error = Client::connect_over(transport, addresses, "test", patience).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "no coordinator could be reached: coordinator 1 at `a.example:7001`: no answer from `a.example:7001`: nobody \
         listens there; coordinator 2 at `b.example:7001`: no answer from `b.example:7001`: nobody listens there"
    );
    assert!(error.hint().is_some());
    let transport = Arc::new(network.transport(identity("operator/anna")));
    let error = Client::connect_over(transport, BTreeMap::new(), "test", patience).await.err().unwrap();
    assert!(matches!(error, ClientError::NoCoordinators));
}

#[tokio::test]
async fn a_patient_client_waits_for_coordinators_that_start_later() {
    let network = MemoryNetwork::default();
    let addresses = BTreeMap::from([(node(1), "127.0.0.1:1".to_owned())]);
    let client = site(&network, &addresses).await;
    let asked = tokio::spawn(async move { client.request(claim()).await });
    tokio::task::yield_now().await;
    let cluster = Cluster::led_by(1);
    assert_eq!(cluster.start_in_memory(&network, 1).await, addresses);
    assert_eq!(asked.await.unwrap().unwrap(), Reply::Released);
}

#[tokio::test]
async fn a_revoked_site_is_told_so_even_if_it_is_patient() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    cluster.state().refuse = Some("site `a` is revoked".to_owned());
    let addresses = cluster.start_in_memory(&network, 2).await;
    let client = site(&network, &addresses).await;
    let error = client.request(claim()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused by the peer: site `a` is revoked"), "{error}");
}

#[tokio::test]
async fn a_command_does_not_wait_for_a_leader_for_ever() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::default();
    let addresses = cluster.start_in_memory(&network, 1).await;
    let transport = Arc::new(network.transport(identity("operator/anna")));
    let patience = Patience::Within(Duration::from_millis(200));
    let client = Client::connect_over(transport, addresses, "test", patience).await.unwrap();
    let error = client.request(Request::Status).await.unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_is_passed_on() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    let addresses = cluster.start_in_memory(&network, 1).await;
    let error = site(&network, &addresses).await.request(Request::ListSites).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(_)) && error.to_string().contains("not permitted"), "{error}");
}

#[tokio::test]
async fn after_a_reconnection_the_site_is_told_to_look_for_work() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    let addresses = cluster.start_in_memory(&network, 1).await;
    let transport = FaultyTransport::new(network.transport(identity("site/a")), Faults::default(), 1);
    let transport = Arc::new(transport);
    let client = Client::connect_over(transport.clone(), addresses, "test", Patience::Forever).await.unwrap();
    let mut notices = client.notices();
    assert_eq!(notices.next().await, Some(Notice::TasksChanged));
    transport.cut_all();
    assert_eq!(notices.next().await, Some(Notice::TasksChanged));
    drop(client);
    assert_eq!(notices.next().await, None);
}

#[tokio::test]
async fn the_real_transport_carries_requests_too() {
    let (authority, _) = Authority::create("lung".parse().unwrap(), Validity::days(1)).unwrap();
    let credentials = |who: &str| {
        let issued = authority.issue(&who.parse().unwrap(), Validity::days(1)).unwrap();
        Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key).unwrap()
    };
    let cluster = Cluster::led_by(2);
    let mut coordinators = BTreeMap::new();
    for id in 1..=2 {
        let transport = QuicTransport::new(credentials(&format!("coordinator/{id}")));
        coordinators.insert(node(id), cluster.start(&transport, id).await);
    }
    let dir = tempfile::tempdir().unwrap();
    let config = ClientConfig {
        coordinators,
        credentials: credentials("site/a"),
        software: "test".to_owned(),
        patience: Patience::Within(Duration::from_secs(60)),
        known: Some(dir.path().join("known")),
        network: Network::default(),
    };
    let client = Client::connect(config).await.unwrap();
    assert_eq!(client.request(claim()).await.unwrap(), Reply::Released);
    let blob = archipelago_client::Source::Bytes(&[7; 3_000_000]).blob().unwrap();
    client.put_blob(blob, archipelago_client::Source::Bytes(&[7; 3_000_000]), |_| {}).await.unwrap();
    client.get_blob(blob, &dir.path().join("blob"), |_| {}).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("blob")).unwrap(), [7; 3_000_000]);
}
