//! `found`: everything that a new consortium needs, in one go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use archipelago_cluster::Cluster;
use archipelago_common::{Name, NodeId, Principal, fs, limits, member};
use archipelago_transport::{
    Credentials,
    ca::{Authority, Validity},
};
use clap::Args;
use serde::Serialize;

use super::{
    ca::{self, CA, CA_KEY, CERTIFICATE, KEY},
    init::{self, NODE_FILE},
};
use crate::{
    config::{NodeConfig, OperatorConfig, Peers, Storage},
    error::{Error, Result},
    output::Output,
    quota::Limits,
    raft::log_store::Beginning,
};

/// Found a consortium: its authority, a folder for each node, and an operator's file.
///
/// Writes one folder. `node1`, `node2` … go to the machines of the nodes, as they are; `operator` stays with the operator, with the
/// authority in it: whoever has its ca.key can be anybody, and no coordinator needs it. `officers/ben` goes to ben. Run again, it says what is there. One,
/// three and five nodes work; an even number tolerates no more failures than the odd number below it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-coordinator found lung --nodes a.example.org:7101,b.example.org:7101,c.example.org:7101 --operator atlas-team\n  \
    archipelago-coordinator found lung --nodes a.example.org:7101 --operator anna --officer publisher/ben --officer auditor/eva\n  \
    archipelago-coordinator serve --config lung/node1/node.toml      # on each node, with its own folder")]
pub struct FoundArgs {
    /// The consortium's name.
    consortium: Name,
    /// The nodes as others reach them, `host:port`, separated by commas; they are numbered from 1.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', required = true)]
    nodes: Vec<String>,
    /// The first operator's name.
    #[arg(long, value_name = "NAME")]
    operator: Name,
    /// Somebody with some of an operator's roles, such as publisher/ben or enroller+auditor/eva; may be given several times.
    #[arg(long = "officer", value_name = "ROLES/NAME")]
    officers: Vec<Principal>,
    /// The folder to write [default: the consortium's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// TCP address of each node for /metrics, /healthz and /readyz, such as 127.0.0.1:9101 [default: closed]
    #[arg(long, value_name = "ADDRESS")]
    ops: Option<SocketAddr>,
    /// How long the certificates of nodes and operator are valid.
    #[arg(long, default_value_t = 365)]
    days: u32,
}

/// What there is of a consortium.
#[derive(Serialize)]
struct Founded {
    consortium: Name,
    /// Whether it was there before.
    existed: bool,
    authority: PathBuf,
    operator: PathBuf,
    /// The files of those with some of an operator's roles that are here.
    officers: BTreeMap<String, PathBuf>,
    /// The configurations that are here; that of a node that was moved away is not.
    nodes: BTreeMap<NodeId, PathBuf>,
}

/// Runs the command.
///
/// # Errors  [`Error::Config`] for addresses that are none and for another consortium in this place; files that cannot be written
pub fn run(args: &FoundArgs, output: &Output) -> Result<()> {
    let peers = peers(&args.nodes)?;
    check_officers(&args.officers)?;
    let out = args.out.clone().unwrap_or_else(|| args.consortium.as_str().into());
    let existed = out.exists();
    if !existed {
        write_all(args, &peers, &out)?;
    }
    let founded = Founded { existed, ..look(args, &peers, &out)? };
    output.show(&founded, text(&founded, &peers));
    Ok(())
}

fn peers(nodes: &[String]) -> Result<Peers> {
    let wrong = |detail: String| Error::Config { place: "--nodes".to_owned(), detail };
    if nodes.len() > limits::VOTERS {
        return Err(wrong(format!("there are {}, expected at most {}", nodes.len(), limits::VOTERS)));
    }
    let mut peers = BTreeMap::new();
    for (id, address) in (1..).zip(nodes) {
        member::check_address(address).map_err(|e| wrong(e.to_string()))?;
        if peers.values().any(|other| other == address) {
            return Err(wrong(format!("`{address}` is there twice")));
        }
        peers.extend(NodeId::new(id).map(|node| (node, address.clone())));
    }
    Ok(Peers(peers))
}

/// Each has a folder of their name.
fn check_officers(officers: &[Principal]) -> Result<()> {
    let wrong = |who: &Principal, detail: &str| Error::Config {
        place: "--officer".to_owned(),
        detail: format!("`{who}` {detail}"),
    };
    let mut names = BTreeSet::new();
    for who in officers {
        match who {
            Principal::Officer(_, name) | Principal::Auditor(name) if names.insert(name) => {}
            Principal::Officer(..) | Principal::Auditor(_) => {
                return Err(wrong(who, "has a name that another has; one certificate may name several roles"));
            }
            _ => {
                return Err(wrong(
                    who,
                    "is none; expected publisher, enroller, auditor, administrator or several of them",
                ));
            }
        }
    }
    Ok(())
}

/// Writes the folder beside its place and moves it there: it is whole, or not there.
fn write_all(args: &FoundArgs, peers: &Peers, out: &Path) -> Result<()> {
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| Error::Config {
        place: "--out".to_owned(),
        detail: format!("`{}` is no name of a folder", out.display()),
    })?;
    let part = out.with_file_name(format!(".{name}.part"));
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| archipelago_common::Error::File { action, path, source }
    };
    if part.exists() {
        // What an interrupted run has left; nothing of it was ever used.
        std::fs::remove_dir_all(&part).map_err(failed("remove", &part))?;
    }
    fs::create_private_dir(&part)?;
    let (operator, authority_dir) = (part.join(OPERATOR), part.join(OPERATOR).join(AUTHORITY));
    fs::create_private_dir(&operator)?;
    fs::create_private_dir(&authority_dir)?;
    let (authority, issued) = Authority::create(args.consortium.clone(), Validity::days(AUTHORITY_DAYS))?;
    issued.write(&authority_dir.join(CA), &authority_dir.join(CA_KEY))?;
    issue(&authority, &Principal::Operator(args.operator.clone()), args.days, &operator)?;
    write_config(peers, Some(AUTHORITY), &operator)?;
    if !args.officers.is_empty() {
        fs::create_private_dir(&part.join(OFFICERS))?;
    }
    for who in &args.officers {
        let dir = officer_dir(&part, who);
        fs::create_private_dir(&dir)?;
        issue(&authority, who, args.days, &dir)?;
        write_config(peers, None, &dir)?;
    }
    let beginning = Beginning::of_founders(&peers.0, Cluster::founded().snapshot()?);
    for (node, address) in &peers.0 {
        let dir = part.join(folder(*node));
        fs::create_private_dir(&dir)?;
        issue(&authority, &Principal::Coordinator(*node), args.days, &dir)?;
        init::begin(&dir, &node_config(args, peers, *node, address), &beginning)?;
    }
    std::fs::rename(&part, out).map_err(failed("move into place", out))?;
    Ok(())
}

/// Where somebody's commands find the coordinators, and who they are.
fn write_config(peers: &Peers, authority: Option<&str>, dir: &Path) -> Result<()> {
    let config = OperatorConfig {
        ca: CA.into(),
        certificate: CERTIFICATE.into(),
        key: KEY.into(),
        authority: authority.map(Into::into),
        transport: None,
        proxy: None,
        coordinators: peers.clone(),
    };
    let text = toml::to_string(&config)
        .map_err(|e| Error::Config { place: OPERATOR_FILE.to_owned(), detail: e.to_string() })?;
    Ok(fs::write_atomic(&dir.join(OPERATOR_FILE), text.as_bytes())?)
}

fn officer_dir(out: &Path, who: &Principal) -> PathBuf {
    out.join(OFFICERS).join(who.person().map_or("", Name::as_str))
}

fn issue(authority: &Authority, principal: &Principal, days: u32, dir: &Path) -> Result<()> {
    authority.issue(principal, Validity::days(days))?.write(&dir.join(CERTIFICATE), &dir.join(KEY))?;
    Ok(fs::write_atomic(&dir.join(CA), authority.certificate().as_bytes())?)
}

fn node_config(args: &FoundArgs, peers: &Peers, node: NodeId, address: &str) -> NodeConfig {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
    NodeConfig {
        node,
        // A name may lead to an address that is not the machine's own; then it listens on all it has.
        listen: address.parse().unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, port).into()),
        transport: None,
        ops: args.ops,
        ops_names: false,
        data_dir: "data".into(),
        ca: CA.into(),
        certificate: CERTIFICATE.into(),
        key: KEY.into(),
        peers: peers.clone(),
        storage: Storage::default(),
        quotas: Limits::default(),
    }
}

/// What is there, which must be what was asked for.
fn look(args: &FoundArgs, peers: &Peers, out: &Path) -> Result<Founded> {
    let other = |found: String, expected: String| Error::Config {
        place: format!("`{}`", out.display()),
        detail: format!("it holds {found}, expected {expected}; give another --out, or what it was founded with"),
    };
    let (operator, authority) = (out.join(OPERATOR).join(OPERATOR_FILE), out.join(OPERATOR).join(AUTHORITY));
    let config = OperatorConfig::read(&operator)?;
    let found = Credentials::load(&config.ca, &config.certificate, &config.key)?.identity().to_string();
    let expected = archipelago_common::Identity {
        consortium: ca::load(&authority)?.consortium().clone(),
        principal: Principal::Operator(args.operator.clone()),
    };
    if expected.consortium != args.consortium {
        return Err(other(format!("the consortium `{}`", expected.consortium), format!("`{}`", args.consortium)));
    }
    if found != expected.to_string() {
        return Err(other(format!("operator `{found}`"), format!("`{expected}`")));
    }
    let mut nodes = BTreeMap::new();
    for node in peers.0.keys() {
        let path = out.join(folder(*node)).join(NODE_FILE);
        if path.exists() {
            check_node(&NodeConfig::read(&path)?, peers, &other)?;
            nodes.insert(*node, path);
        }
    }
    if config.coordinators != *peers {
        return Err(other(format!("nodes at {}", listed(&config.coordinators)), listed(peers)));
    }
    let mut officers = BTreeMap::new();
    for who in &args.officers {
        let path = officer_dir(out, who).join(OPERATOR_FILE);
        if path.exists() {
            let config = OperatorConfig::read(&path)?;
            let found = Credentials::load(&config.ca, &config.certificate, &config.key)?.identity().principal.clone();
            if found != *who {
                return Err(other(format!("officer `{found}`"), format!("`{who}`")));
            }
            officers.insert(who.to_string(), path);
        }
    }
    Ok(Founded { consortium: args.consortium.clone(), existed: true, authority, operator, officers, nodes })
}

fn check_node(config: &NodeConfig, peers: &Peers, other: &dyn Fn(String, String) -> Error) -> Result<()> {
    match config.peers == *peers {
        true => Ok(()),
        false => Err(other(format!("node {} with nodes at {}", config.node, listed(&config.peers)), listed(peers))),
    }
}

fn listed(peers: &Peers) -> String {
    peers.0.values().map(|address| format!("`{address}`")).collect::<Vec<_>>().join(", ")
}

fn text(founded: &Founded, peers: &Peers) -> String {
    let Founded { consortium, existed, authority, operator, officers, nodes } = founded;
    let said = if *existed { "is there already" } else { "is founded" };
    let mut text = format!(
        "the consortium `{consortium}` {said}\n\
         authority   {}: whoever has its ca.key can be anybody; keep it with the operator, never on a coordinator\n\
         operator    {}\n",
        authority.display(),
        operator.display()
    );
    for (who, path) in officers {
        text += &format!("{who}  {}\n", path.display());
    }
    for (node, address) in &peers.0 {
        text += &match nodes.get(node) {
            Some(path) => {
                format!("node {node}      {address}: archipelago-coordinator serve --config {}\n", path.display())
            }
            None => format!("node {node}      {address}: its folder is not here any more\n"),
        };
    }
    text + &format!(
        "next        export ARCHIPELAGO_CONFIG={}, start the nodes, then `invite` sites",
        operator.display()
    )
}

fn folder(node: NodeId) -> String {
    format!("node{node}")
}

/// The operator's folder.
const OPERATOR: &str = "operator";
/// An operator's configuration.
const OPERATOR_FILE: &str = "operator.toml";
/// The folder of those with some of an operator's roles.
const OFFICERS: &str = "officers";
/// The authority's folder, in the operator's.
const AUTHORITY: &str = "authority";
/// As `ca init` makes it.
const AUTHORITY_DAYS: u32 = 3650;

#[cfg(test)]
mod tests {
    use super::*;

    fn args(out: &Path, nodes: &[&str]) -> FoundArgs {
        FoundArgs {
            consortium: "lung".parse().unwrap(),
            nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
            operator: "anna".parse().unwrap(),
            officers: Vec::new(),
            out: Some(out.to_owned()),
            ops: None,
            days: 365,
        }
    }

    fn found(args: &FoundArgs) -> Result<Founded> {
        let (peers, out) = (peers(&args.nodes)?, args.out.clone().unwrap());
        if !out.exists() {
            write_all(args, &peers, &out)?;
        }
        look(args, &peers, &out)
    }

    const NODES: [&str; 3] = ["a.example.org:7101", "10.0.0.2:7102", "[::1]:7103"];

    #[test]
    fn what_is_founded_can_be_moved_and_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (first, moved) = (dir.path().join("lung"), dir.path().join("elsewhere"));
        std::fs::create_dir(dir.path().join(".lung.part")).unwrap();
        std::fs::write(dir.path().join(".lung.part/half"), "of an interrupted run").unwrap();
        assert_eq!(found(&args(&first, &NODES)).unwrap().nodes.len(), 3);
        assert!(!dir.path().join(".lung.part").exists() && !first.join("half").exists());
        std::fs::rename(&first, &moved).unwrap();
        std::fs::rename(moved.join("node2"), dir.path().join("machine2")).unwrap();
        let found = found(&args(&moved, &NODES)).unwrap();
        assert_eq!(found.nodes.keys().map(|node| node.as_u64()).collect::<Vec<_>>(), [1, 3]);
        let listens = |node: &Path| NodeConfig::read(&node.join(NODE_FILE)).unwrap().listen.to_string();
        assert_eq!(listens(&moved.join("node1")), "0.0.0.0:7101", "a name may lead anywhere");
        assert_eq!(listens(&dir.path().join("machine2")), "10.0.0.2:7102");
        let config = NodeConfig::read(&dir.path().join("machine2/node.toml")).unwrap();
        assert!(config.log_path().exists());
        Credentials::load(&config.ca, &config.certificate, &config.key).unwrap();
    }

    #[test]
    fn officers_have_a_file_each_and_it_names_no_authority() {
        let dir = tempfile::tempdir().unwrap();
        let officers = |all: &[&str]| all.iter().map(|who| who.parse().unwrap()).collect::<Vec<Principal>>();
        let all = officers(&["publisher+auditor/ben", "auditor/eva"]);
        let args = FoundArgs { officers: all.clone(), ..args(&dir.path().join("lung"), &NODES) };
        let founded = found(&args).unwrap();
        for who in &all {
            let config = OperatorConfig::read(&founded.officers[&who.to_string()]).unwrap();
            let credentials = Credentials::load(&config.ca, &config.certificate, &config.key).unwrap();
            assert_eq!(credentials.identity().principal, *who);
            assert!(config.authority.is_none() && config.coordinators.0.len() == 3);
        }
        let other = FoundArgs { officers: officers(&["publisher/ben"]), ..args };
        assert!(found(&other).err().unwrap().to_string().contains("officer `publisher+auditor/ben`"));
        for bad in [&["publisher/ben", "enroller/ben"][..], &["operator/ben"], &["site/ben"]] {
            assert!(check_officers(&officers(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn another_consortium_in_its_place_and_addresses_that_are_none_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("lung");
        found(&args(&out, &NODES)).unwrap();
        let refused = |args: &FoundArgs, why: &str| {
            let error = found(args).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(why), "{error}");
        };
        refused(&args(&out, &NODES[..2]), "expected `a.example.org:7101`, `10.0.0.2:7102`; give another --out");
        refused(&FoundArgs { operator: "ben".parse().unwrap(), ..args(&out, &NODES) }, "operator/anna");
        refused(
            &FoundArgs { consortium: "liver".parse().unwrap(), ..args(&out, &NODES) },
            "it holds the consortium `lung`",
        );
        let other = dir.path().join("other");
        refused(&args(&other, &["a"]), "`<host>:<port>`");
        refused(&args(&other, &["a:1", "a:1"]), "is there twice");
        refused(&args(&other, &["a:1", "a:2", "a:3", "a:4", "a:5", "a:6", "a:7", "a:8"]), "expected at most 7");
        assert!(!other.exists());
    }
}
