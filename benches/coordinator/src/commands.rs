//! Acknowledged commands: each committed on three nodes, fsynced on a majority, applied, answered.

use std::time::{Duration, Instant};

use anyhow::Result;
use archipelago_client::Client;
use archipelago_protocol::message::Request;
use tokio::task::JoinSet;

use crate::{
    Setting,
    cluster::Cluster,
    table::{Goal, Table, quantile, say},
};

const PART: &str = "commands";

pub(crate) async fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let seconds = (10 / setting.scale_down).max(1);
    say(&format!("commands: three nodes, {seconds} s each"));
    let cluster = Cluster::start(&setting.scratch, 3)?;
    for n_sessions in [1, 8] {
        let mut clients = Vec::new();
        for i in 0..n_sessions {
            clients.push(cluster.client(&format!("operator/op{i}")).await?);
        }
        let n_in_flight = if n_sessions == 1 { 1 } else { 32 };
        let mut waiting = JoinSet::new();
        let until = Instant::now() + Duration::from_secs(seconds);
        for client in &clients {
            for i in 0..n_in_flight {
                waiting.spawn(ask_until(client.clone(), i, until));
            }
        }
        let (begun, mut latencies_s) = (Instant::now(), Vec::new());
        while let Some(done) = waiting.join_next().await {
            latencies_s.extend(done??);
        }
        let rate = latencies_s.len() as f64 / begun.elapsed().as_secs_f64();
        let how = format!("{n_sessions} × {n_in_flight} in flight");
        table.row(PART, format!("acknowledged per second, {how}"), rate, "1/s", Goal::None);
        table.row(PART, format!("p50, {how}"), quantile(&mut latencies_s, 0.5) * 1e3, "ms", Goal::None);
        table.row(PART, format!("p99, {how}"), quantile(&mut latencies_s, 0.99) * 1e3, "ms", Goal::None);
    }
    Ok(())
}

/// Enrols a site again and again, which passes through the log each time; the seconds of each.
async fn ask_until(client: Client, i: usize, until: Instant) -> Result<Vec<f64>> {
    let mut seconds = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        client.request(Request::AddSite { site: format!("site{i}").parse()? }).await?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    Ok(seconds)
}
