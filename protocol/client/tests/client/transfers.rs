//! Blobs up and down, interrupted in every way.

use std::{path::Path, sync::Arc};

use archipelago_client::{Client, ClientError, Patience, Source};
use archipelago_common::{blob::BlobRef, limits};
use archipelago_transport::{
    faulty::{Faults, FaultyTransport},
    memory::MemoryNetwork,
};

use crate::server::{Cluster, identity, site};

const N_CHUNKS: u64 = 6;

fn bytes() -> Vec<u8> {
    (0..N_CHUNKS * limits::CHUNK_BYTES - 5).map(|i| (i / 11 % 253) as u8).collect()
}

fn files_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_goes_up_and_comes_down_whole() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(2);
    let client = site(&network, &cluster.start_in_memory(&network, 3).await).await;
    let dir = tempfile::tempdir().unwrap();
    for all in [bytes(), Vec::new()] {
        let (up, down) = (dir.path().join("up"), dir.path().join("down"));
        std::fs::write(&up, &all).unwrap();
        let blob = Source::File(&up).blob().unwrap();
        assert_eq!(blob, BlobRef::of(&all));
        let (mut up_to, mut down_to) = (0, 0);
        client.put_blob(blob, Source::File(&up), |n| up_to = n).await.unwrap();
        client.get_blob(blob, &down, |n| down_to = n).await.unwrap();
        assert_eq!((up_to, down_to), (blob.size, blob.size));
        assert_eq!(std::fs::read(&down).unwrap(), all);
        assert_eq!(files_in(dir.path()), ["down", "up"]);
    }
}

#[tokio::test]
async fn an_upload_over_a_breaking_network_sends_at_most_one_chunk_again_per_break() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    let addresses = cluster.start_in_memory(&network, 1).await;
    let chunk = limits::CHUNK_BYTES;
    let faults = Faults { cut_after_bytes: 3 * chunk / 2..5 * chunk / 2, ..Faults::default() };
    let transport = Arc::new(FaultyTransport::new(network.transport(identity("site/a")), faults, 5));
    let client = Client::connect_over(transport, addresses, "test", Patience::Forever).await.unwrap();
    let all = bytes();
    let blob = BlobRef::of(&all);
    client.put_blob(blob, Source::Bytes(&all), |_| {}).await.unwrap();
    let state = cluster.state();
    assert_eq!(state.blobs[&blob], all);
    assert_eq!(state.n_chunks_moved, N_CHUNKS, "a chunk that had arrived was sent again");
}

#[tokio::test]
async fn a_download_over_a_breaking_network_gets_at_most_one_chunk_again_per_break() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    let chunk = limits::CHUNK_BYTES;
    let faults = Faults { cut_after_bytes: 3 * chunk / 2..5 * chunk / 2, ..Faults::default() };
    let transport = FaultyTransport::new(network.transport(identity("coordinator/1")), faults, 5);
    let address = cluster.start(&transport, 1).await;
    let client = site(&network, &[(crate::server::node(1), address)].into()).await;
    let all = bytes();
    let blob = BlobRef::of(&all);
    cluster.state().blobs.insert(blob, all.clone());
    let dir = tempfile::tempdir().unwrap();
    client.get_blob(blob, &dir.path().join("base"), |_| {}).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("base")).unwrap(), all);
    let state = cluster.state();
    let n_breaks = state.gets_from.len() as u64 - 1;
    assert!(n_breaks >= 2, "the network did not break");
    assert!(state.n_chunks_moved <= N_CHUNKS + n_breaks, "{} chunks moved", state.n_chunks_moved);
    assert!(state.gets_from.is_sorted());
}

#[tokio::test]
async fn a_killed_worker_goes_on_where_it_stopped_and_refetches_what_was_damaged() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    let addresses = cluster.start_in_memory(&network, 1).await;
    let all = bytes();
    let blob = BlobRef::of(&all);
    cluster.state().blobs.insert(blob, all.clone());
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("base");
    let interrupt_after = async |n_chunks: u64| {
        let client = site(&network, &addresses).await;
        let (seen, mut watched) = tokio::sync::watch::channel(0);
        tokio::select! {
            done = client.get_blob(blob, &destination, |n| { seen.send_replace(n); }) => panic!("{done:?} too early"),
            _ = watched.wait_for(|n| *n >= n_chunks * limits::CHUNK_BYTES) => {}
        }
    };
    interrupt_after(2).await;
    assert_eq!(files_in(dir.path()), ["base.chunks", "base.part"]);
    interrupt_after(4).await;
    // A power cut may leave any chunk damaged.
    let part = dir.path().join("base.part");
    let mut damaged = std::fs::read(&part).unwrap();
    damaged[3 * limits::CHUNK_BYTES as usize + 17] ^= 1;
    std::fs::write(&part, damaged).unwrap();
    site(&network, &addresses).await.get_blob(blob, &destination, |_| {}).await.unwrap();
    assert_eq!(std::fs::read(&destination).unwrap(), all);
    assert_eq!(files_in(dir.path()), ["base"]);
    let gets_from = cluster.state().gets_from.clone();
    assert!(gets_from[1] >= 2, "began again at chunk {}", gets_from[1]);
    assert_eq!(gets_from[2], 3, "the damaged chunk is the first that is asked for");
}

#[tokio::test]
async fn a_coordinator_that_has_other_bytes_is_found_out_and_leaves_no_file() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    let client = site(&network, &cluster.start_in_memory(&network, 1).await).await;
    let blob = BlobRef::of(b"what was announced");
    cluster.state().blobs.insert(blob, b"what is delivered!".to_vec());
    let dir = tempfile::tempdir().unwrap();
    let error = client.get_blob(blob, &dir.path().join("base"), |_| {}).await.unwrap_err();
    assert!(matches!(&error, ClientError::Transfer { .. }), "{error}");
    assert_eq!(files_in(dir.path()), [""; 0]);
}

#[tokio::test]
async fn where_one_coordinator_has_something_else_or_nothing_another_is_asked() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    let client = site(&network, &cluster.start_in_memory(&network, 3).await).await;
    let (all, dir) = (bytes(), tempfile::tempdir().unwrap());
    let blob = BlobRef::of(&all);
    let destination = dir.path().join("base");
    cluster.state().blobs.insert(blob, all.clone());
    cluster.state().spoilt = [crate::server::node(1)].into();
    cluster.state().bare = [crate::server::node(2)].into();
    client.get_blob(blob, &destination, |_| {}).await.unwrap();
    assert_eq!(std::fs::read(&destination).unwrap(), all);
    assert_eq!(files_in(dir.path()), ["base"]);
    assert_eq!(cluster.state().gets_from, [0, 0], "nothing of what was spoilt is kept");

    cluster.state().spoilt = (1..=3).map(crate::server::node).collect();
    std::fs::remove_file(&destination).unwrap();
    let error = client.get_blob(blob, &destination, |_| {}).await.unwrap_err();
    assert!(matches!(&error, ClientError::Transfer { .. }), "{error}");
    cluster.state().bare = (1..=3).map(crate::server::node).collect();
    let error = client.get_blob(blob, &destination, |_| {}).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(_)), "{error}");
}

#[tokio::test]
async fn a_source_that_is_not_the_blob_is_refused() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    let client = site(&network, &cluster.start_in_memory(&network, 1).await).await;
    let blob = BlobRef::of(b"what was announced");
    let error = client.put_blob(blob, Source::Bytes(b"what is delivered!"), |_| {}).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(_)), "{error}");
    let longer = BlobRef::of(b"longer than what there is");
    let error = client.put_blob(longer, Source::Bytes(b"short"), |_| {}).await.unwrap_err();
    assert!(matches!(&error, ClientError::Transfer { .. }), "{error}");
    let missing = client.put_blob(blob, Source::File(Path::new("/nowhere/base")), |_| {}).await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/base"), "{missing}");
}

#[tokio::test]
async fn a_blob_that_nobody_has_is_said_to_be_missing() {
    let network = MemoryNetwork::default();
    let cluster = Cluster::led_by(1);
    let client = site(&network, &cluster.start_in_memory(&network, 1).await).await;
    let dir = tempfile::tempdir().unwrap();
    let error = client.get_blob(BlobRef::of(b"x"), &dir.path().join("base"), |_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with("there is no blob"), "{error}");
}
