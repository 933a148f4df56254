//! `init`: founds a node of a new cluster.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use archipelago_cluster::Cluster;
use archipelago_common::{NodeId, fs};
use clap::Args;
use serde::Serialize;

use super::ca::{CA, CERTIFICATE, KEY};
use crate::{
    config::{NodeConfig, Peers, Storage},
    error::{Error, Result},
    output::Output,
    quota::Limits,
    raft::log_store::{Beginning, LogStore},
};

/// Found a node of a new cluster: its configuration and its empty log.
///
/// With --join, make a node that is added to a running cluster instead: first `members add`, then this, then `serve`.
///
/// Run it once for each founder, with the same --peers: a new cluster begins when all of them have been started and have told
/// each other that they have the same list. One, three and five nodes work; an even number tolerates no more
/// failures than the odd number below it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-coordinator init --node 1 --peers 1=10.0.0.1:7101,2=10.0.0.2:7101,3=10.0.0.3:7101 \\\n    \
        --listen 0.0.0.0:7101 --ops 127.0.0.1:9101 --credentials node1 --out node1\n  \
    archipelago-coordinator init --join --node 4 --peers 1=10.0.0.1:7101,2=10.0.0.2:7101,4=10.0.0.4:7101 \\\n    \
        --credentials node4 --out node4")]
pub struct InitArgs {
    /// This node's id, from 1.
    #[arg(long)]
    node: NodeId,
    /// Every coordinator of the cluster, this one too, as others reach it: `1=host:port,2=host:port`.
    #[arg(long, value_name = "ADDRESSES")]
    peers: Peers,
    /// Join a running cluster, which has been told with `members add`, instead of founding one.
    #[arg(long)]
    join: bool,
    /// UDP and TCP address to listen on [default: this node's address in --peers]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// TCP address for /metrics, /healthz and /readyz [default: closed]
    #[arg(long, value_name = "ADDRESS")]
    ops: Option<SocketAddr>,
    /// The folder that `ca issue` wrote.
    #[arg(long, value_name = "DIR")]
    credentials: PathBuf,
    /// The folder to write node.toml and the data to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What was founded.
#[derive(Serialize)]
struct Founded {
    config: PathBuf,
    node: NodeId,
}

/// Runs the command.
///
/// # Errors  [`Error::Config`], [`Error::LogExists`], files that cannot be written
pub fn run(args: &InitArgs, output: &Output) -> Result<()> {
    let own_address = args.peers.0.get(&args.node).ok_or_else(|| Error::Config {
        place: "--peers".to_owned(),
        detail: format!("node {} is not among them", args.node),
    })?;
    let listen = match args.listen {
        Some(listen) => listen,
        None => own_address.parse().map_err(|_| Error::Config {
            place: "--listen".to_owned(),
            detail: format!("it is missing, and `{own_address}` in --peers is not an IP address to listen on"),
        })?,
    };
    let credential = |name: &str| absolute(&args.credentials.join(name));
    let config = NodeConfig {
        node: args.node,
        listen,
        transport: None,
        ops: args.ops,
        data_dir: "data".into(),
        ca: credential(CA)?,
        certificate: credential(CERTIFICATE)?,
        key: credential(KEY)?,
        peers: args.peers.clone(),
        storage: Storage::default(),
        quotas: Limits::default(),
    };
    let state = Cluster::founded().snapshot()?;
    let beginning = match args.join {
        true => Beginning::joining(state),
        false => Beginning::of_founders(&args.peers.0, state),
    };
    let path = begin(&args.out, &config, &beginning)?;
    let text = format!("wrote {0}\nstart it with `archipelago-coordinator serve --config {0}`", path.display());
    output.show(&Founded { config: path, node: args.node }, text);
    Ok(())
}

/// Makes a node's folder: its configuration, which is returned, and its log.
pub(super) fn begin(out: &Path, config: &NodeConfig, beginning: &Beginning) -> Result<PathBuf> {
    fs::create_dir(out)?;
    let path = out.join(NODE_FILE);
    let resolved = NodeConfig { data_dir: out.join(&config.data_dir), ..config.clone() };
    fs::create_private_dir(&resolved.data_dir)?;
    LogStore::create(&resolved.log_path(), config.node, beginning)?;
    let text =
        toml::to_string(config).map_err(|e| Error::Config { place: NODE_FILE.to_owned(), detail: e.to_string() })?;
    fs::write_atomic(&path, text.as_bytes())?;
    Ok(path)
}

/// A node's configuration.
pub(super) const NODE_FILE: &str = "node.toml";

fn absolute(path: &Path) -> Result<PathBuf> {
    let failed = |source| archipelago_common::Error::File { action: "find", path: path.to_owned(), source };
    Ok(path.canonicalize().map_err(failed)?)
}
