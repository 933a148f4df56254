//! Many sites on one node: sessions that do nothing, then many of them that hand in work at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use archipelago_client::{Client, Source};
use archipelago_common::{
    BlobRef, ConditionKey, Name, SiteId, TaskId, VersionId,
    record::{Submission, SubmittedCondition},
};
use archipelago_protocol::message::{Reply, Request};
use archipelago_transport::net::Ways;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    Setting,
    cluster::{self, Cluster},
    process_stats::ProcessStats,
    table::{Goal, Table, quantile, say},
};

/// A site and its session.
pub(crate) type Site = (SiteId, Client);

/// What one site does for a task.
pub(crate) struct Work {
    /// The task.
    pub(crate) task: TaskId,
    /// The version it is on.
    pub(crate) version: VersionId,
    /// The batch that is handed in.
    pub(crate) batch: String,
    /// Which columns: [`cluster::columns`].
    pub(crate) columns: usize,
}

pub(crate) async fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let n_sites = (1_000 / setting.scale_down).max(4) as usize;
    let n_submissions = (200 / setting.scale_down).max(2) as usize;
    for (part, ways) in [("sessions", Ways::Quic), ("sessions/tcp", Ways::Tcp)] {
        say(&format!("{part}: {n_sites} sites, {n_submissions} submissions at once, one node"));
        over(setting, (part, ways), (n_sites, n_submissions), table).await?;
    }
    Ok(())
}

async fn over(
    setting: &Setting,
    (part, ways): (&'static str, Ways),
    (n_sites, n_submissions): (usize, usize),
    table: &mut Table,
) -> Result<()> {
    let cluster = Arc::new(Cluster::start(&setting.scratch, 1)?);
    let node = ProcessStats::of(cluster.consortium.pid(1).context("the node runs")?);
    let operator = cluster.client("operator/anna").await?;
    let base = cluster::small_base().to_bytes()?;
    operator.put_blob(BlobRef::of(&base), Source::Bytes(&base), |_| ()).await?;
    let version = cluster.publish(&operator, BlobRef::of(&base)).await?;
    let before_mb = node.resident_mb()?;

    let (sites, mut connect_s, all_s) = connect(&cluster, ways, &operator, n_sites).await?;
    table.row(part, format!("{n_sites} handshakes and welcomes, 32 at once"), all_s, "s", Goal::None);
    table.row(part, "one of them, p99", quantile(&mut connect_s, 0.99) * 1e3, "ms", Goal::None);
    let n_open = cluster.consortium.metric_sum(1, "archipelago_sessions", "role=\"site\"").unwrap_or_default();
    table.row(part, "sessions open", n_open, "", Goal::AtLeast(n_sites as f64));

    // When the coordinators have written down who has come.
    tokio::time::sleep(SETTLED).await;
    let (cpu, begun) = (node.cpu_s()?, Instant::now());
    tokio::time::sleep(IDLE).await;
    let share = (node.cpu_s()? - cpu) / begun.elapsed().as_secs_f64();
    table.row(part, "processor of the node while all are idle", share * 100.0, "% of 1", Goal::None);
    let resident_mb = node.resident_mb()?;
    table.row(part, "memory of the node", resident_mb, "MB", Goal::AtMost(512.0));
    let per_site = (resident_mb - before_mb) * 1e3 / n_sites as f64;
    table.row(part, "memory of the node per idle site", per_site, "kB", Goal::None);

    let task = cluster.publish_task(&operator, &version).await?;
    submit_at_once((part, table), &node, &sites[..n_submissions.min(n_sites)], (task, version.id())).await
}

/// Enrols and connects the sites, 32 at a time; the seconds are those of each and of all.
pub(crate) async fn connect(
    cluster: &Arc<Cluster>,
    ways: Ways,
    operator: &Client,
    n: usize,
) -> Result<(Vec<Site>, Vec<f64>, f64)> {
    let at_once = Arc::new(Semaphore::new(32));
    let mut enrolling = JoinSet::new();
    for i in 0..n {
        let (operator, at_once) = (operator.clone(), at_once.clone());
        enrolling.spawn(async move {
            let _permit = at_once.acquire_owned().await;
            operator.request(Request::AddSite { site: format!("site{i}").parse()? }).await?;
            anyhow::Ok(())
        });
    }
    while let Some(done) = enrolling.join_next().await {
        done??;
    }
    let (mut connecting, all_begun) = (JoinSet::new(), Instant::now());
    for i in 0..n {
        let (cluster, at_once) = (cluster.clone(), at_once.clone());
        connecting.spawn(async move {
            let site: SiteId = format!("site{i}").parse()?;
            let _permit = at_once.acquire_owned().await;
            let begun = Instant::now();
            let client = cluster.client_over(&format!("site/{site}"), ways).await?;
            anyhow::Ok((site, client, begun.elapsed().as_secs_f64()))
        });
    }
    let (mut sites, mut seconds) = (Vec::new(), Vec::new());
    while let Some(done) = connecting.join_next().await {
        let (site, client, took_s) = done??;
        sites.push((site, client));
        seconds.push(took_s);
    }
    Ok((sites, seconds, all_begun.elapsed().as_secs_f64()))
}

/// Every site claims, uploads its columns and submits, all at the same moment.
async fn submit_at_once(
    (part, table): (&'static str, &mut Table),
    node: &ProcessStats,
    sites: &[Site],
    (task, version): (TaskId, VersionId),
) -> Result<()> {
    let (cpu, begun) = (node.cpu_s()?, Instant::now());
    let mut working = JoinSet::new();
    for (i, (site, client)) in sites.iter().cloned().enumerate() {
        working.spawn(async move {
            let begun = Instant::now();
            let work = Work { task, version, batch: "batch".to_owned(), columns: i };
            let submit_s = submit(&site, &client, &work).await?;
            anyhow::Ok((begun.elapsed().as_secs_f64(), submit_s))
        });
    }
    let (mut whole_s, mut submit_s, mut n_errors) = (Vec::new(), Vec::new(), 0);
    while let Some(done) = working.join_next().await {
        match done? {
            Ok((whole, submit)) => {
                whole_s.push(whole);
                submit_s.push(submit);
            }
            Err(error) => {
                n_errors += 1;
                say(&format!("a submission failed: {error:#}"));
            }
        }
    }
    let took_s = begun.elapsed().as_secs_f64();
    table.row(part, format!("{} submissions at once: errors", sites.len()), f64::from(n_errors), "", Goal::AtMost(0.0));
    table.row(part, "all acknowledged after", took_s, "s", Goal::None);
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        let whole = quantile(&mut whole_s, share) * 1e3;
        table.row(part, format!("claim, upload, submit of one site, {name}"), whole, "ms", Goal::None);
        table.row(
            part,
            format!("of it the submission, {name}"),
            quantile(&mut submit_s, share) * 1e3,
            "ms",
            Goal::None,
        );
    }
    table.row(part, "processor time of the node for them", node.cpu_s()? - cpu, "s", Goal::None);
    table.row(part, "peak memory of the node", node.peak_mb()?, "MB", Goal::AtMost(512.0));
    Ok(())
}

/// One site's work; returns the seconds of the submission itself.
pub(crate) async fn submit(site: &SiteId, client: &Client, work: &Work) -> Result<f64> {
    let (task, version) = (work.task, work.version);
    let epoch = cluster::epoch(&client.request(Request::Claim { task }).await?)?;
    let bytes = cluster::columns(work.columns).to_bytes();
    let columns = BlobRef::of(&bytes);
    client.put_blob(columns, Source::Bytes(&bytes), |_| ()).await?;
    let dataset: Name = "data".parse()?;
    let key = ConditionKey::new(site.clone(), dataset, &work.batch)?;
    let conditions = [(key, SubmittedCondition { columns, embeddings: None, metrics: None })].into();
    let begun = Instant::now();
    match client.request(Request::Submit(Submission { task, epoch, version, conditions })).await? {
        Reply::Accepted { .. } => Ok(begun.elapsed().as_secs_f64()),
        reply => anyhow::bail!("a submission was answered with {reply:?}"),
    }
}

/// How long the idle sites are watched: two keep-alives and more.
const IDLE: Duration = Duration::from_secs(15);
const SETTLED: Duration = Duration::from_secs(5);
