//! One blob up and down over loopback, fsync and verification included, beside a bare quinn loop in the same run.

use std::time::Instant;

use anyhow::{Context as _, Result};
use archipelago_client::Source;
use archipelago_common::{BlobRef, limits};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};

use crate::{
    Setting, bare,
    cluster::{self, Cluster},
    table::{Goal, Table, quantile, say},
};

const PART: &str = "transfer";

pub(crate) async fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let n_bytes = (1 << 30) / setting.scale_down;
    say(&format!("transfer: {} MB, {ROUNDS} rounds, one node", n_bytes / 1_000_000));
    let cluster = Cluster::start(&setting.scratch, 1)?;
    let operator = cluster.client("operator/anna").await?;
    let dir = tempfile::tempdir_in(&setting.scratch)?;
    let (mut bare_mbs, mut up_mbs, mut down_mbs, mut disk_mbs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // In turns, so that whatever else the machine does falls on all of them.
    for round in 0..ROUNDS {
        bare_mbs.push(bare::measure(n_bytes).await?);
        let path = dir.path().join("blob");
        disk_mbs.push(write_random(&path, round, n_bytes)?);
        let blob: BlobRef = Source::File(&path).blob()?;
        let begun = Instant::now();
        operator.put_blob(blob, Source::File(&path), |_| ()).await?;
        up_mbs.push(rate(n_bytes, begun));
        let fetched = dir.path().join("fetched");
        let begun = Instant::now();
        operator.get_blob(blob, &fetched, |_| ()).await?;
        down_mbs.push(rate(n_bytes, begun));
        anyhow::ensure!(archipelago_common::fs::blob_ref(&fetched)? == blob, "the blob came back with other bytes");
        std::fs::remove_file(&fetched)?;
        std::fs::remove_file(&path)?;
    }
    let median = |samples: &mut Vec<f64>| quantile(samples, 0.5);
    let (bare, up, down, disk) =
        (median(&mut bare_mbs), median(&mut up_mbs), median(&mut down_mbs), median(&mut disk_mbs));
    // Every byte passes both.
    let bound = bare.min(disk);
    table.row(PART, "bare quinn loop, same windows, nothing hashed or written", bare, "MB/s", Goal::None);
    table.row(PART, "the disk: write and fsync of the same bytes", disk, "MB/s", Goal::None);
    table.row(PART, "upload, verified twice, fsynced", up, "MB/s", Goal::AtLeast(300.0));
    table.row(PART, "upload beside the bare loop", up / bare * 100.0, "%", Goal::AtLeast(70.0));
    table.row(PART, "upload beside the slower of loop and disk", up / bound * 100.0, "%", Goal::AtLeast(70.0));
    table.row(PART, "download, verified twice, fsynced", down, "MB/s", Goal::AtLeast(300.0));
    table.row(PART, "download beside the bare loop", down / bare * 100.0, "%", Goal::AtLeast(70.0));
    table.row(PART, "download beside the slower of loop and disk", down / bound * 100.0, "%", Goal::AtLeast(70.0));
    let small = cluster::columns(0).to_bytes();
    let begun = Instant::now();
    operator.put_blob(BlobRef::of(&small), Source::Bytes(&small), |_| ()).await?;
    table.row(PART, "columns of one condition", small.len() as f64 / 1e3, "kB", Goal::AtMost(20.0));
    table.row(PART, "their upload", begun.elapsed().as_secs_f64() * 1e3, "ms", Goal::None);
    Ok(())
}

/// Writes random bytes to a file and fsyncs it; the rate of the writing alone.
fn write_random(path: &std::path::Path, seed: u64, n_bytes: u64) -> Result<f64> {
    use std::io::Write as _;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut file = std::fs::File::create(path).with_context(|| format!("failed to create `{}`", path.display()))?;
    let mut chunk = vec![0; limits::CHUNK_BYTES as usize];
    let (mut left, mut seconds) = (n_bytes, 0.0);
    while left > 0 {
        let size = left.min(limits::CHUNK_BYTES) as usize;
        rng.fill_bytes(&mut chunk[..size]);
        let begun = Instant::now();
        file.write_all(&chunk[..size])?;
        seconds += begun.elapsed().as_secs_f64();
        left -= size as u64;
    }
    let begun = Instant::now();
    file.sync_all()?;
    Ok(n_bytes as f64 / 1e6 / (seconds + begun.elapsed().as_secs_f64()))
}

/// Megabytes (10⁶) a second.
pub(crate) fn rate(n_bytes: u64, begun: Instant) -> f64 {
    n_bytes as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

const ROUNDS: u64 = 3;
