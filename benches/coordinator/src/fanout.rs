//! A reference of atlas size to six sites at once, and what the coordinator needs for it.

use std::{
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use archipelago_client::Source;
use archipelago_common::{BlobRef, NodeId, limits};
use archipelago_protocol::{
    ChunkReceiver,
    frame::{self, Message as _},
    message::{Chunk, GetReply, StreamOpen},
};
use archipelago_transport::{Credentials, Transport as _, quic::QuicTransport};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use tokio::task::JoinSet;

use crate::{
    Setting,
    cluster::{self, Cluster},
    process_stats::ProcessStats,
    table::{Goal, Table, say},
};

const PART: &str = "fanout";

pub(crate) async fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let n_bytes = BASE_BYTES / setting.scale_down;
    say(&format!("fanout: a base of {} MB to {SITES} sites, one node", n_bytes / 1_000_000));
    let cluster = Cluster::start(&setting.scratch, 1)?;
    let node = ProcessStats::of(cluster.consortium.pid(1).context("the node runs")?);
    let operator = cluster.client("operator/anna").await?;
    let dir = tempfile::tempdir_in(&setting.scratch)?;
    let path = dir.path().join("base.safetensors");
    write_base(&path, n_bytes)?;
    let blob = Source::File(&path).blob()?;
    let begun = Instant::now();
    operator.put_blob(blob, Source::File(&path), |_| ()).await?;
    let up = blob.size as f64 / 1e6 / begun.elapsed().as_secs_f64();
    table.row(PART, format!("upload of {:.2} GB", blob.size as f64 / 1e9), up, "MB/s", Goal::None);
    table.row(PART, "peak memory of the node during the upload", node.peak_mb()?, "MB", Goal::AtMost(512.0));
    std::fs::remove_file(&path)?;
    cluster.publish(&operator, blob).await?;

    node.reset_peak()?;
    let (cpu, begun) = (node.cpu_s()?, Instant::now());
    let mut fetching = JoinSet::new();
    for i in 0..SITES {
        let site = format!("site{i}");
        operator.request(archipelago_protocol::message::Request::AddSite { site: site.parse()? }).await?;
        let credentials = cluster.credentials(&format!("site/{site}"))?;
        let (&node, address) = cluster.addresses().first_key_value().context("there is a node")?;
        fetching.spawn(fetch(credentials, node, address.clone(), blob));
    }
    while let Some(done) = fetching.join_next().await {
        done??;
    }
    let took_s = begun.elapsed().as_secs_f64();
    let total = (blob.size * SITES) as f64 / 1e6;
    table.row(PART, format!("all {SITES} sites have it, verified, after"), took_s, "s", Goal::None);
    table.row(PART, "to all together", total / took_s, "MB/s", Goal::None);
    table.row(PART, "processor of the node meanwhile", (node.cpu_s()? - cpu) / took_s * 100.0, "% of 1", Goal::None);
    table.row(PART, "peak memory of the node meanwhile", node.peak_mb()?, "MB", Goal::AtMost(512.0));
    Ok(())
}

/// Downloads as a site does, with the product's transport and verification, but forgets the bytes: six copies would measure
/// this machine's disk.
async fn fetch(credentials: Credentials, node: NodeId, address: String, blob: BlobRef) -> Result<()> {
    let transport = QuicTransport::new(credentials);
    let connection = transport.dial(&address, node).await?;
    let mut receiver = ChunkReceiver::new(blob)?;
    let mut stream = connection.open_stream().await?;
    stream.send_frame(&frame::encode(&StreamOpen::Get { blob, from_chunk: 0 })?).await?;
    stream.finish().await?;
    let reply = tokio::time::timeout(STALL, stream.recv_frame(GetReply::LIMIT)).await??.context("a reply comes")?;
    match frame::decode(&reply)? {
        GetReply::Sending => {}
        GetReply::Refused(refusal) => bail!("the download was refused: {refusal}"),
        GetReply::SendingPart { n_chunks } => bail!("only {n_chunks} chunks are there"),
    }
    while !receiver.is_complete() {
        let next = tokio::time::timeout(STALL, stream.recv_frame(Chunk::LIMIT)).await??.context("a chunk comes")?;
        receiver.handle_chunk(&frame::decode(&next)?)?;
    }
    ensure!(receiver.finish()? == blob, "another blob came");
    Ok(())
}

/// A base file whose only tensor has about so many random bytes, written piece by piece.
fn write_base(path: &Path, n_bytes: u64) -> Result<()> {
    let card = serde_json::to_string(&cluster::card())?;
    let tensor = serde_json::json!({ "dtype": "U8", "shape": [n_bytes], "data_offsets": [0, n_bytes] });
    let mut header = serde_json::json!({ "__metadata__": { "archipelago": card }, "weight": tensor }).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut piece = vec![0; limits::CHUNK_BYTES as usize];
    let mut left = n_bytes;
    while left > 0 {
        let size = left.min(limits::CHUNK_BYTES) as usize;
        rng.fill_bytes(&mut piece[..size]);
        file.write_all(&piece[..size])?;
        left -= size as u64;
    }
    Ok(file.flush()?)
}

/// A full reference of an atlas.
const BASE_BYTES: u64 = 3_350_000_000;
const SITES: u64 = 6;
const STALL: Duration = Duration::from_secs(60);
