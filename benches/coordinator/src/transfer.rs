//! One blob up and down over loopback, fsync and verification included, beside a bare loop of the same way in the same run.

use std::{io::Write as _, path::Path, time::Instant};

use anyhow::{Context as _, Result};
use archipelago_client::{Client, Source};
use archipelago_common::{BlobRef, limits};
use archipelago_transport::{Way, net::Ways};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};

use crate::{
    Setting, bare,
    cluster::{self, Cluster, Place},
    memory::Used,
    table::{Goal, Table, quantile, say},
};

const PART: &str = "transfer";

pub(crate) async fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let n_bytes = (1 << 30) / setting.scale_down;
    say(&format!("transfer: {} MB, {ROUNDS} rounds over each way, one node", n_bytes / 1_000_000));
    let cluster = Cluster::start(&setting.scratch, 1)?;
    for (way, ways) in [(Way::Quic, Ways::Quic), (Way::Tcp, Ways::Tcp)] {
        let operator = cluster.client_over("operator/anna", ways).await?;
        over(way, &operator, (&setting.scratch, n_bytes), table).await?;
        if way == Way::Quic {
            small(&operator, table).await?;
        }
    }
    Ok(())
}

async fn over(way: Way, operator: &Client, (scratch, n_bytes): (&Path, u64), table: &mut Table) -> Result<()> {
    let Rates { bare, up, down, disk } = rates(way, operator, (scratch, n_bytes), &Place::here()).await?;
    // Every byte passes both.
    let bound = bare.min(disk);
    let mut row = |what: &str, value, unit, goal| table.row(PART, format!("{way}: {what}"), value, unit, goal);
    row("bare loop, nothing hashed or written", bare, "MB/s", Goal::None);
    row("the disk: write and fsync of the same bytes", disk, "MB/s", Goal::None);
    row("upload, verified twice, fsynced", up, "MB/s", Goal::AtLeast(300.0));
    row("upload beside the bare loop", up / bare * 100.0, "%", Goal::AtLeast(70.0));
    row("upload beside the slower of loop and disk", up / bound * 100.0, "%", Goal::AtLeast(70.0));
    row("download, verified twice, fsynced", down, "MB/s", Goal::AtLeast(300.0));
    row("download beside the bare loop", down / bare * 100.0, "%", Goal::AtLeast(70.0));
    row("download beside the slower of loop and disk", down / bound * 100.0, "%", Goal::AtLeast(70.0));
    Ok(())
}

/// Medians, in megabytes a second.
pub(crate) struct Rates {
    pub(crate) bare: f64,
    pub(crate) up: f64,
    pub(crate) down: f64,
    pub(crate) disk: f64,
}

/// One blob up and down and the same number of bytes through a bare loop, in turns, so that whatever else the machine does falls on all
/// of them.
pub(crate) async fn rates(
    way: Way,
    operator: &Client,
    (scratch, n_bytes): (&Path, u64),
    place: &Place,
) -> Result<Rates> {
    let dir = tempfile::tempdir_in(scratch)?;
    let (mut bare, mut up, mut down, mut disk) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut used = Vec::new();
    for _ in 0..ROUNDS {
        // The files of the round before took their memory along.
        used.push(Used::all(scratch)?);
        bare.push(bare::measure(way, n_bytes, place).await?);
        let path = dir.path().join("blob");
        disk.push(write_random(&path, n_bytes)?);
        let blob: BlobRef = Source::File(&path).blob()?;
        let begun = Instant::now();
        operator.put_blob(blob, Source::File(&path), |_| ()).await?;
        up.push(rate(n_bytes, begun));
        let fetched = dir.path().join("fetched");
        let begun = Instant::now();
        operator.get_blob(blob, &fetched, |_| ()).await?;
        down.push(rate(n_bytes, begun));
        anyhow::ensure!(archipelago_common::fs::blob_ref(&fetched)? == blob, "the blob came back with other bytes");
        std::fs::remove_file(&fetched)?;
        std::fs::remove_file(&path)?;
    }
    let median = |samples: &mut Vec<f64>| quantile(samples, 0.5);
    Ok(Rates { bare: median(&mut bare), up: median(&mut up), down: median(&mut down), disk: median(&mut disk) })
}

/// What a site hands in.
async fn small(operator: &Client, table: &mut Table) -> Result<()> {
    let columns = cluster::columns(0).to_bytes();
    let begun = Instant::now();
    operator.put_blob(BlobRef::of(&columns), Source::Bytes(&columns), |_| ()).await?;
    table.row(PART, "columns of one condition", columns.len() as f64 / 1e3, "kB", Goal::AtMost(20.0));
    table.row(PART, "their upload", begun.elapsed().as_secs_f64() * 1e3, "ms", Goal::None);
    Ok(())
}

/// Writes random bytes to a file and fsyncs it; the rate of the writing alone.
fn write_random(path: &Path, n_bytes: u64) -> Result<f64> {
    // Others each time: what a coordinator has, it is not sent again.
    let mut rng = ChaCha8Rng::from_os_rng();
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
