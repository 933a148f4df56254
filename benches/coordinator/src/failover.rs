//! From the death of the leader to the next acknowledged write of a client that was connected to it. The campaign measures
//! the same over many more kills, under load.

use std::time::{Duration, Instant};

use anyhow::Result;
use archipelago_processes::consortium::wait_for_leader;
use archipelago_protocol::message::Request;

use crate::{
    Setting,
    cluster::Cluster,
    table::{Goal, Table, quantile, say},
};

const PART: &str = "failover";

pub(crate) async fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let n_kills = (30 / setting.scale_down).max(1);
    say(&format!("failover: {n_kills} kills of the leader of three nodes, otherwise idle"));
    let mut cluster = Cluster::start(&setting.scratch, 3)?;
    let operator = cluster.client("operator/anna").await?;
    let write =
        async || operator.request(Request::AddSite { site: "probe".parse()? }).await.map_err(anyhow::Error::from);
    let mut failovers_ms = Vec::new();
    for _ in 0..n_kills {
        let leader = wait_for_leader(&mut cluster.consortium, PATIENCE)?;
        // Connected to the leader from here on.
        write().await?;
        let begun = Instant::now();
        cluster.consortium.kill(leader)?;
        write().await?;
        failovers_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        cluster.consortium.start(leader)?;
    }
    table.row(PART, format!("p50 of {n_kills}"), quantile(&mut failovers_ms, 0.5), "ms", Goal::AtMost(1_500.0));
    table.row(PART, format!("p99 of {n_kills}"), quantile(&mut failovers_ms, 0.99), "ms", Goal::AtMost(3_000.0));
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(60);
