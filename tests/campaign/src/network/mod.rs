//! The ways between the parties, and how they are cut: by network namespaces where the machine allows them, else by a
//! proxy on loopback. A party is a name: `node1`, a site's, or [`OPERATORS`].

mod namespaces;
mod proxy;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::Result;
use archipelago_processes::{NodePlan, free_ports};

pub use namespaces::{Namespaces, enter};
use proxy::Proxy;

use crate::args::NetworkChoice;

/// The campaign's own clients and the product's operator commands.
pub const OPERATORS: &str = "operators";

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
    /// Every datagram passes us.
    Proxy(Arc<Proxy>),
    /// Coordinators have namespaces of their own.
    Namespaces(Arc<Namespaces>),
}

impl Network {
    /// Builds the ways between `n_nodes` coordinators and the sites. Needs a tokio runtime for the proxy.
    pub fn build(choice: NetworkChoice, n_nodes: u64, sites: &[String]) -> Result<Self> {
        if choice != NetworkChoice::Proxy && namespaces::is_inside() {
            return Ok(Self::Namespaces(Arc::new(Namespaces::build(n_nodes, sites)?)));
        }
        let from = sites.iter().cloned().chain([OPERATORS.to_owned()]).collect::<Vec<_>>();
        Ok(Self::Proxy(Arc::new(Proxy::build(n_nodes, &from)?)))
    }

    /// What it is, for the summary.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Proxy(_) => "proxy",
            Self::Namespaces(_) => "namespaces",
        }
    }

    /// Whether a cut separates whom it is meant to. Behind the proxy everybody comes to use the addresses of the members as
    /// the first leader knew them, so one relay carries the datagrams of several parties.
    pub fn can_cut(&self) -> bool {
        matches!(self, Self::Namespaces(_))
    }

    /// Where each node listens and how it reaches the others.
    pub fn plans(&self, n_nodes: u64) -> Result<BTreeMap<u64, NodePlan>> {
        let mut ops = free_ports(n_nodes as usize)?.into_iter();
        let plan = |node| {
            let port = ops.next().unwrap_or_default();
            let (listen, ops) = match self {
                Self::Proxy(proxy) => (proxy.listen(node), SocketAddr::from(([127, 0, 0, 1], port))),
                Self::Namespaces(namespaces) => namespaces.listen(node),
            };
            let peers = self.addresses(&node_name(node));
            (node, NodePlan { listen, ops, peers, prefix: self.prefix(&node_name(node)) })
        };
        Ok((1..=n_nodes).map(plan).collect())
    }

    /// The coordinators as a party dials them.
    pub fn addresses(&self, party: &str) -> BTreeMap<u64, String> {
        match self {
            Self::Proxy(proxy) => proxy.addresses(party),
            Self::Namespaces(namespaces) => namespaces.addresses(),
        }
    }

    /// Words before a party's program.
    pub fn prefix(&self, party: &str) -> Vec<String> {
        match self {
            Self::Proxy(_) => vec![],
            Self::Namespaces(namespaces) => namespaces.prefix(party),
        }
    }

    /// Cuts a coordinator off.
    pub fn cut_node(&self, node: u64, from: Whom, way: Way) -> Result<()> {
        match self {
            Self::Proxy(proxy) => proxy.cut_node(node, from, way),
            Self::Namespaces(namespaces) => namespaces.cut_node(node, from, way)?,
        }
        Ok(())
    }

    /// Cuts a site off from all coordinators.
    pub fn cut_site(&self, site: &str, way: Way) -> Result<()> {
        match self {
            Self::Proxy(proxy) => proxy.cut_party(site, way),
            Self::Namespaces(namespaces) => namespaces.cut_site(site, way)?,
        }
        Ok(())
    }

    /// Makes everything reach everybody again.
    pub fn heal(&self) -> Result<()> {
        match self {
            Self::Proxy(proxy) => proxy.heal(),
            Self::Namespaces(namespaces) => namespaces.heal()?,
        }
        Ok(())
    }
}

fn node_name(node: u64) -> String {
    format!("node{node}")
}
