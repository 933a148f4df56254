//! Configuration files: a node's, and an operator's. Paths in a file are relative to the file.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use archipelago_common::{NodeId, fs};
use archipelago_transport::net::Ways;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    quota::Limits,
};

/// What a node needs to run; `archipelago-coordinator init` writes it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// This node's id.
    pub node: NodeId,
    /// UDP and TCP address for sites, operators and the other coordinators.
    pub listen: SocketAddr,
    /// Which ways are taken: `auto` for both, `quic` or `tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Ways>,
    /// TCP address for `/metrics`, `/healthz` and `/readyz`; closed if absent.
    #[serde(default)]
    pub ops: Option<SocketAddr>,
    /// Whether `/metrics` says of which site each last contact is, and whose certificate ends when. Whoever reaches `ops` reads it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ops_names: bool,
    /// Where the log and the blobs are.
    pub data_dir: PathBuf,
    /// The consortium's certificate authority, PEM.
    pub ca: PathBuf,
    /// This node's certificate, PEM.
    pub certificate: PathBuf,
    /// This node's private key, PEM.
    pub key: PathBuf,
    /// Every coordinator of the cluster, this one too, as `host:port` by node id. Once the cluster knows its members,
    /// what it knows counts, and this is where a node begins to look.
    pub peers: Peers,
    /// What may be stored here.
    #[serde(default)]
    pub storage: Storage,
    /// What each site may take.
    #[serde(default)]
    pub quotas: Limits,
}

/// What may be stored on a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Bytes that stay free for the log: with less, the node takes no blobs and gives its leadership away.
    pub reserve_bytes: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self { reserve_bytes: 256 << 20 }
    }
}

/// Whom an operator's commands ask, and as whom.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorConfig {
    /// The consortium's certificate authority, PEM.
    pub ca: PathBuf,
    /// The operator's certificate, PEM.
    pub certificate: PathBuf,
    /// The operator's private key, PEM.
    pub key: PathBuf,
    /// The folder with the consortium's authority, where this operator keeps it: `invite` and `approve` certify with it. It is
    /// never on a coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<PathBuf>,
    /// Which ways are taken: `auto` for both, `quic` or `tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Ways>,
    /// The HTTP proxy that TCP goes through, as `http://[user:password@]host:port`; `HTTPS_PROXY` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The coordinators, as `host:port` by node id.
    pub coordinators: Peers,
}

/// Addresses by node id. TOML wants text as keys.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Peers(pub BTreeMap<NodeId, String>);

impl NodeConfig {
    /// Reads a node's configuration.
    ///
    /// # Errors  [`Error::Config`] naming the field, [`Error::Common`] if the file cannot be read
    pub fn read(path: &Path) -> Result<Self> {
        let mut config: Self = read_toml(path)?;
        if !config.peers.0.contains_key(&config.node) {
            return Err(Error::Config {
                place: format!("`peers` in `{}`", path.display()),
                detail: format!("node {} is not among them", config.node),
            });
        }
        let paths = [&mut config.data_dir, &mut config.ca, &mut config.certificate, &mut config.key];
        make_relative_to(path, paths);
        Ok(config)
    }

    /// The replicated log.
    pub fn log_path(&self) -> PathBuf {
        self.data_dir.join("log.redb")
    }

    /// The blob store.
    pub fn blob_dir(&self) -> PathBuf {
        self.data_dir.join("blobs")
    }
}

impl OperatorConfig {
    /// Reads an operator's configuration.
    ///
    /// # Errors  [`Error::Config`] naming the field, [`Error::Common`] if the file cannot be read
    pub fn read(path: &Path) -> Result<Self> {
        let mut config: Self = read_toml(path)?;
        make_relative_to(path, [&mut config.ca, &mut config.certificate, &mut config.key]);
        if let Some(authority) = &mut config.authority {
            make_relative_to(path, [authority]);
        }
        Ok(config)
    }
}

impl TryFrom<BTreeMap<String, String>> for Peers {
    type Error = archipelago_common::Error;
    fn try_from(text: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        text.into_iter().map(|(node, address)| Ok((node.parse()?, address))).collect::<Result<_, _>>().map(Self)
    }
}

impl From<Peers> for BTreeMap<String, String> {
    fn from(peers: Peers) -> Self {
        peers.0.into_iter().map(|(node, address)| (node.to_string(), address)).collect()
    }
}

impl std::str::FromStr for Peers {
    type Err = String;
    /// Reads `1=host:port,2=host:port`.
    fn from_str(text: &str) -> Result<Self, String> {
        let one = |part: &str| {
            let (node, address) = part.split_once('=').ok_or(format!("`{part}` is not `<node id>=<host>:<port>`"))?;
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            port.ok_or(format!("`{address}` is not `<host>:<port>`"))?;
            Ok((node.parse().map_err(|e: archipelago_common::Error| e.to_string())?, address.to_owned()))
        };
        text.split(',').map(one).collect::<Result<_, String>>().map(Self)
    }
}

fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let invalid = |detail: String| Error::Config { place: format!("`{}`", path.display()), detail };
    let bytes = fs::read_bounded(path, MAX_BYTES).map_err(|error| match error {
        archipelago_common::Error::File { source, .. } => invalid(format!("the file cannot be read: {source}")),
        other => invalid(other.to_string()),
    })?;
    let text = String::from_utf8(bytes).map_err(|_| invalid("the file is not UTF-8".to_owned()))?;
    toml::from_str(&text).map_err(|e| invalid(e.to_string().trim_end().to_owned()))
}

fn make_relative_to<const N: usize>(file: &Path, paths: [&mut PathBuf; N]) {
    let beside = file.parent().unwrap_or(Path::new("."));
    for path in paths {
        *path = beside.join(&path);
    }
}

/// No configuration written by hand comes near this.
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = r#"
        node = 1
        listen = "127.0.0.1:7101"
        data_dir = "data"
        ca = "ca.pem"
        certificate = "node.pem"
        key = "node.key"
        [peers]
        1 = "127.0.0.1:7101"
        2 = "127.0.0.1:7102"
    "#;

    fn read(text: &str) -> Result<NodeConfig> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        let config = NodeConfig::read(&path)?;
        assert_eq!(config.data_dir, dir.path().join("data"));
        Ok(config)
    }

    #[test]
    fn a_node_file_is_read_and_written() {
        let config = read(NODE).unwrap();
        assert_eq!(config.peers.0.len(), 2);
        assert_eq!(toml::from_str::<NodeConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, expected) in [
            ("node = 1", "node = 3", "node 3 is not among them"),
            ("node = 1", "node = 0", "node"),
            ("data_dir", "datadir", "datadir"),
            ("2 = \"", "x = \"", "`x` is not a valid node id"),
        ] {
            let error = read(&NODE.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.is_usage());
        }
    }

    #[test]
    fn addresses_on_the_command_line() {
        assert_eq!("1=a:1,2=b:2".parse::<Peers>().unwrap().0.len(), 2);
        for bad in ["", "1", "a:1", "0=a:1", "1=a", "1=a:x"] {
            assert!(bad.parse::<Peers>().is_err(), "{bad}");
        }
    }
}
