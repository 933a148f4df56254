//! A consortium after years: hundreds of sites, thousands of tasks that are done, and what an operator's commands take then.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use archipelago_client::{Client, Source};
use archipelago_common::{BlobRef, Version};
use archipelago_processes::{Running, consortium::http, free_ports, program, wait_until};
use archipelago_protocol::message::Request;
use archipelago_transport::net::Ways;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    Setting,
    cluster::{self, Cluster},
    sessions::{self, Site, Work},
    table::{Goal, Table, quantile, say},
};

const PART: &str = "years";

pub(crate) async fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let n_tasks = (2_000 / setting.scale_down).max(4) as usize;
    let n_sites = (300 / setting.scale_down).max(SITES_EACH as u64) as usize;
    say(&format!("years: {n_tasks} tasks, {n_sites} sites, three nodes"));
    let cluster = Arc::new(Cluster::start(&setting.scratch, 3)?);
    let operator = cluster.client("operator/anna").await?;
    let base = cluster::small_base().to_bytes()?;
    operator.put_blob(BlobRef::of(&base), Source::Bytes(&base), |_| ()).await?;
    let version = cluster.publish(&operator, BlobRef::of(&base)).await?;
    let (sites, ..) = sessions::connect(&cluster, Ways::default(), &operator, n_sites).await?;
    let begun = Instant::now();
    live(&cluster, &operator, &version, &sites, n_tasks).await?;
    table.row(
        PART,
        format!("{n_tasks} tasks done by {SITES_EACH} sites each"),
        begun.elapsed().as_secs_f64(),
        "s",
        Goal::None,
    );
    ask(&cluster, table, n_tasks)?;
    look(&cluster, table, n_tasks)
}

/// Publishes every task, has some sites do it, and closes it.
async fn live(
    cluster: &Arc<Cluster>,
    operator: &Client,
    version: &Version,
    sites: &[Site],
    n_tasks: usize,
) -> Result<()> {
    let (at_once, mut working) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for i in 0..n_tasks {
        let (cluster, operator, version) = (cluster.clone(), operator.clone(), version.clone());
        let of_task = (0..SITES_EACH).map(|j| i * SITES_EACH + j);
        let of_task: Vec<_> = of_task.map(|n| (n, sites[n % sites.len()].clone())).collect();
        let permit = at_once.clone().acquire_owned().await?;
        working.spawn(async move {
            let _permit = permit;
            let task = cluster.publish_task(&operator, &version).await?;
            for (n, (site, client)) in of_task {
                let work = Work { task, version: version.id(), batch: format!("t{i}"), columns: n };
                sessions::submit(&site, &client, &work).await?;
            }
            operator.request(Request::CloseTask { task }).await?;
            anyhow::Ok(())
        });
    }
    while let Some(done) = working.join_next().await {
        done??;
    }
    Ok(())
}

/// What an operator's commands take: whole processes, from start to end.
fn ask(cluster: &Cluster, table: &mut Table, n_tasks: usize) -> Result<()> {
    let config = cluster.operator_file("anna")?;
    let middle = (n_tasks / 2).to_string();
    let commands: [&[&str]; 8] = [
        &["status"],
        &["site", "list"],
        &["task", "list"],
        &["task", "show", &middle],
        &["reference", "list"],
        &["reference", "show", cluster::REFERENCE],
        &["requests"],
        &["audit", "list"],
    ];
    for command in commands {
        let words = [command, &["--config", &config]].concat();
        let mut seconds = Vec::new();
        for _ in 0..ASKED {
            let begun = Instant::now();
            cluster.consortium.run(&words).with_context(|| format!("`{}`", command.join(" ")))?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        table.row(
            PART,
            format!("`{}`", command.join(" ")),
            quantile(&mut seconds, 0.5),
            "s",
            Goal::AtMost(ANSWERED.as_secs_f64()),
        );
    }
    Ok(())
}

/// What the pages take that `archipelago-coordinator page` serves, once it has begun.
fn look(cluster: &Cluster, table: &mut Table, n_tasks: usize) -> Result<()> {
    let config = cluster.operator_file("eve")?;
    let port = free_ports(1)?[0];
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let (program, log) = (program("archipelago-coordinator")?, cluster.consortium.dir().join("page.log"));
    let config = cluster.consortium.dir().join(config);
    let listen = address.to_string();
    let words = ["page", "--listen", &listen, "--config", config.to_str().context("the folder has a plain name")?];
    let _page = Running::start("page", &program, &words, &log)?;
    let get = |path: &str| http(address, path).filter(|answer| answer.starts_with("HTTP/1.1 200"));
    wait_until("the page is served", PATIENCE, || Ok(get("/")))?;
    for path in ["/", "/tasks", &format!("/tasks/{}", n_tasks / 2), "/references/lung", "/sites/site1", "/events"] {
        let mut seconds = Vec::new();
        for _ in 0..ASKED {
            // Longer than what was seen is shown again.
            std::thread::sleep(Duration::from_millis(1_100));
            let begun = Instant::now();
            get(path).with_context(|| format!("no answer to {path}"))?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        table.row(
            PART,
            format!("the page {path}"),
            quantile(&mut seconds, 0.5),
            "s",
            Goal::AtMost(ANSWERED.as_secs_f64()),
        );
    }
    Ok(())
}

/// Until the page has seen the consortium for the first time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Sites that do a task.
const SITES_EACH: usize = 3;
/// Tasks that are under way at once.
const AT_ONCE: usize = 16;
/// Times that each command is run; the median counts.
const ASKED: usize = 5;
/// Nobody waits longer for a list.
const ANSWERED: Duration = Duration::from_secs(1);
