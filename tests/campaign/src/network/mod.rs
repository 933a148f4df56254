//! The ways between the parties, and how they are cut: by network namespaces where the machine allows them, else not at all.
//! A party is a name: `node1`, a site's, or `operators`.

mod namespaces;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::{Result, bail};
use archipelago_processes::{NodePlan, free_ports};

pub use namespaces::{Namespaces, enter};

use crate::args::NetworkChoice;

/// The campaign's own clients and the product's operator commands.
const OPERATORS: &str = "operators";

/// Which datagrams of a party are lost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// Those it sends and those it is sent.
    Both,
    /// Those it sends.
    Out,
    /// Those it is sent.
    In,
}

/// From whom a coordinator is cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    /// Everybody.
    All,
    /// The other coordinators.
    Nodes,
    /// The sites.
    Sites,
}

/// The network of a campaign. Clones are the same.
#[derive(Clone)]
pub enum Network {
    /// Everybody on loopback, where nobody is cut off: the coordinators, by their addresses.
    Loopback(BTreeMap<u64, SocketAddr>),
    /// Coordinators have namespaces of their own.
    Namespaces(Arc<Namespaces>),
}

impl Network {
    /// Builds the ways between `n_nodes` coordinators and the sites, with firewalls that drop UDP or without.
    pub fn build(choice: NetworkChoice, n_nodes: u64, sites: &[String], drop_udp: bool) -> Result<Self> {
        if choice != NetworkChoice::Loopback && namespaces::is_inside() {
            return Ok(Self::Namespaces(Arc::new(Namespaces::build(n_nodes, sites, drop_udp)?)));
        }
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Self::Loopback((1..).zip(free_ports(n_nodes as usize)?.into_iter().map(at)).collect()))
    }

    /// What it is, for the summary.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loopback(_) => "loopback",
            Self::Namespaces(_) => "namespaces",
        }
    }

    /// Whether anybody can be cut off.
    pub fn can_cut(&self) -> bool {
        matches!(self, Self::Namespaces(_))
    }

    /// Where each node listens and how it reaches the others.
    pub fn plans(&self, n_nodes: u64) -> Result<BTreeMap<u64, NodePlan>> {
        let mut ops = free_ports(n_nodes as usize)?.into_iter();
        let plan = |node| {
            let port = ops.next().unwrap_or_default();
            let (listen, ops) = match self {
                Self::Loopback(nodes) => (nodes[&node].to_string(), SocketAddr::from(([127, 0, 0, 1], port))),
                Self::Namespaces(namespaces) => namespaces.listen(node),
            };
            let peers = self.addresses();
            (node, NodePlan { listen, ops, peers, prefix: self.prefix(&node_name(node)) })
        };
        Ok((1..=n_nodes).map(plan).collect())
    }

    /// Where the coordinators are reached.
    pub fn addresses(&self) -> BTreeMap<u64, String> {
        match self {
            Self::Loopback(nodes) => nodes.iter().map(|(node, address)| (*node, address.to_string())).collect(),
            Self::Namespaces(namespaces) => namespaces.addresses(),
        }
    }

    /// Words before a party's program.
    pub fn prefix(&self, party: &str) -> Vec<String> {
        match self {
            Self::Loopback(_) => vec![],
            Self::Namespaces(namespaces) => namespaces.prefix(party),
        }
    }

    /// Cuts a coordinator off.
    pub fn cut_node(&self, node: u64, from: Whom, way: Way) -> Result<()> {
        match self {
            Self::Loopback(_) => bail!("nobody can be cut off on loopback"),
            Self::Namespaces(namespaces) => namespaces.cut_node(node, from, way),
        }
    }

    /// Cuts a site off from all coordinators.
    pub fn cut_site(&self, site: &str, way: Way) -> Result<()> {
        match self {
            Self::Loopback(_) => bail!("nobody can be cut off on loopback"),
            Self::Namespaces(namespaces) => namespaces.cut_site(site, way),
        }
    }

    /// Makes everything reach everybody again.
    pub fn heal(&self) -> Result<()> {
        match self {
            Self::Loopback(_) => Ok(()),
            Self::Namespaces(namespaces) => namespaces.heal(),
        }
    }
}

fn node_name(node: u64) -> String {
    format!("node{node}")
}
