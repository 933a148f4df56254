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
/// failures than the odd number below it. Run again with the same arguments, it says that the node is there.
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
    fs::create_dir(&args.out)?;
    let out = absolute(&args.out)?;
    // Within the node's folder relative, so that it works where it is put.
    let credential = |name: &str| {
        let path = absolute(&args.credentials.join(name))?;
        Ok::<_, Error>(path.strip_prefix(&out).map(Path::to_owned).unwrap_or(path))
    };
    let config = NodeConfig {
        node: args.node,
        listen,
        transport: None,
        ops: args.ops,
        ops_names: false,
        data_dir: "data".into(),
        ca: credential(CA)?,
        certificate: credential(CERTIFICATE)?,
        key: credential(KEY)?,
        peers: args.peers.clone(),
        storage: Storage::default(),
        quotas: Limits::default(),
    };
    if is_there(&args.out, &config) {
        let path = args.out.join(NODE_FILE);
        output.show(&Founded { config: path.clone(), node: args.node }, format!("{} is there", path.display()));
        return Ok(());
    }
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

/// Whether this very node was founded before: who starts nodes by a script need not ask.
fn is_there(out: &Path, config: &NodeConfig) -> bool {
    let resolved = NodeConfig { data_dir: out.join(&config.data_dir), ..config.clone() };
    let written = toml::to_string(config).unwrap_or_default();
    resolved.log_path().exists() && std::fs::read_to_string(out.join(NODE_FILE)).is_ok_and(|found| found == written)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn a_node_can_be_moved_with_its_credentials_and_is_founded_once() {
        let dir = tempfile::tempdir().unwrap();
        let (out, elsewhere) = (dir.path().join("node1"), dir.path().join("elsewhere"));
        for folder in [&out, &elsewhere] {
            std::fs::create_dir(folder).unwrap();
            for name in [CA, CERTIFICATE, KEY] {
                std::fs::write(folder.join(name), name).unwrap();
            }
        }
        let args = |credentials: &Path, peers: &str| InitArgs {
            node: NodeId::new(1).unwrap(),
            peers: peers.parse().unwrap(),
            join: false,
            listen: None,
            ops: None,
            credentials: credentials.to_owned(),
            out: out.clone(),
        };
        let output = Output { format: Format::Text, is_quiet: true };
        let peers = "1=127.0.0.1:7101";
        run(&args(&out, peers), &output).unwrap();
        let text = std::fs::read_to_string(out.join(NODE_FILE)).unwrap();
        assert!(text.contains("ca = \"ca.pem\"") && !text.contains(&*dir.path().to_string_lossy()), "{text}");

        let log = std::fs::read(out.join("data/log.redb")).unwrap();
        run(&args(&out, peers), &output).unwrap();
        assert_eq!(std::fs::read(out.join("data/log.redb")).unwrap(), log, "it was there, and stays as it was");
        for other in [args(&out, "1=127.0.0.1:7102"), args(&elsewhere, peers)] {
            assert!(matches!(run(&other, &output), Err(Error::LogExists { .. })), "{other:?}");
        }
    }
}
