//! Options of SageNet, with upstream's defaults.
//!
//! Upstream hands its two dropout rates on in the wrong order. Ours are the rates that take effect there.

use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    model::Config,
    options::{self, Choice, OptionCard, Options, options},
    zoo::family::MAX_UNITS,
};

options! {
    /// Options of SageNet.
    pub struct SagenetConfig {
        /// Kind of graph layer.
        classifier: Classifier = Classifier::TransformerConv;
        /// Units of the graph layers.
        n_hidden_gnn: Vec<usize> = vec![8], within 1..=MAX_UNITS;
        /// Units of fully connected layers behind them.
        n_hidden_fc: Vec<usize> = vec![], within 1..=MAX_UNITS;
        /// Dropout rate of graph layers.
        dropout_gnn: f64 = 0.2, within 0.0..1.0;
        /// Dropout rate of fully connected layers.
        dropout_fc: f64 = 0.3, within 0.0..1.0;
        /// Terms of each layer of the kind chebnet.
        k: usize = 4, within 1..=64, sizes Nothing;
        /// Penalties that the network of genes is chosen from.
        alphas: Vec<f64> = vec![0.25, 0.5], within 0.0..;
        /// How many penalties to choose from on a grid of its own instead.
        n_alphas: Option<usize> = None, within 2..=100, sizes Nothing;
        /// Nearest cells that a cell is joined to in space.
        n_spatial_neighbors: usize = 6, within 1..=1000, sizes Nothing;
        /// Resolutions of the partitions of a section; there is a network for each.
        resolutions: Vec<f64> = vec![0.05, 0.1, 0.5], within 0.0..;
        /// Passes over the cells of a section, for each network.
        network_epochs: usize = 15, within 1..=100_000, sizes Nothing;
        /// Cells per minibatch of a network.
        network_minibatch: usize = 32, within 1..=65_536, sizes Nothing;
        /// Learning rate at the start of each of the schedule's periods.
        network_rate: f64 = 1e-3, within 0.0..;
        /// Momentum of the steps.
        network_momentum: f64 = 0.9, within 0.0..1.0;
        /// Whether to compute how much each gene says of where its cell lies.
        importance: bool = true;
        /// Seed of partitions, networks and draws.
        network_seed: usize = 0, sizes Nothing;
    }
}

/// Kind of graph layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Classifier {
    /// Attention by scaled dot products.
    TransformerConv,
    /// Attention by sums.
    GatConv,
    /// Means of neighbours.
    GraphSage,
    /// Sums of neighbours.
    GraphConv,
    /// Sums of gene and neighbours, and two maps.
    GinConv,
    /// Maps that depend on the number of neighbours.
    MfConv,
    /// Softmax over neighbours, and a small network.
    GenConv,
    /// Chebyshev polynomials of the graph.
    Chebnet,
    /// None: fully connected layers alone.
    Mlp,
}

impl Choice for Classifier {}

impl Classifier {
    /// The kind that upstream calls so.
    ///
    /// # Errors  what there is, and why `Conv1d` is not among it
    pub fn of_upstream(name: &str) -> std::result::Result<Self, String> {
        Ok(match name {
            "TransformerConv" => Self::TransformerConv,
            "GATConv" => Self::GatConv,
            "GraphSAGE" => Self::GraphSage,
            "GraphConv" => Self::GraphConv,
            "GINConv" => Self::GinConv,
            "MFConv" => Self::MfConv,
            "GENConv" => Self::GenConv,
            "Chebnet" => Self::Chebnet,
            "MLP" => Self::Mlp,
            "Conv1d" => {
                return Err("networks of `Conv1d` cannot be built upstream either: their sizes do not fit".to_owned());
            }
            other => return Err(format!("there is no graph layer `{other}`")),
        })
    }
}

impl Options for SagenetConfig {
    fn cards() -> Vec<OptionCard> {
        Self::option_cards()
    }

    fn check_together(&self) -> std::result::Result<(), String> {
        let is_layered = self.classifier == Classifier::Mlp || !self.n_hidden_gnn.is_empty();
        let depth = self.n_hidden_gnn.len().max(self.n_hidden_fc.len());
        match () {
            () if !is_layered => Err("`n_hidden_gnn` has no layer, expected at least one".to_owned()),
            () if depth > MAX_LAYERS => Err(format!("{depth} layers, expected at most {MAX_LAYERS}")),
            () if self.alphas.is_empty() && self.n_alphas.is_none() => Err("`alphas` is empty".to_owned()),
            () if self.alphas.iter().chain(&self.resolutions).any(|&value| value <= 0.0) => {
                Err("`alphas` and `resolutions` must be above 0".to_owned())
            }
            () if self.resolutions.len() > MAX_PARTITIONS => {
                Err(format!("{} `resolutions`, expected at most {MAX_PARTITIONS}", self.resolutions.len()))
            }
            () => Ok(()),
        }
    }
}

impl SagenetConfig {
    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`](crate::Error::Config) naming the option
    pub fn parse(given: &Config) -> Result<Self> {
        options::parse(NAME, given)
    }

    /// Units of the graph layers, for a kind that has some.
    pub(super) fn graph_layers(&self) -> &[usize] {
        if self.classifier == Classifier::Mlp { &[] } else { &self.n_hidden_gnn }
    }
}

/// Name in the zoo.
pub(super) const NAME: &str = "sagenet";
/// Deeper than any graph network of genes needs to be.
const MAX_LAYERS: usize = 16;
/// More partitions of one section than anybody trains networks for.
const MAX_PARTITIONS: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (name, value) in [
            ("n_hidden_gnn", json!([])),
            ("classifier", json!("conv1d")),
            ("alphas", json!([0.0])),
            ("alphas", json!([])),
            ("resolutions", json!([0.5, -1.0])),
            ("network_epochs", json!(0)),
            ("dropout_gnn", json!(1.0)),
        ] {
            let refused = SagenetConfig::parse(&Config::from([(name.to_owned(), value)])).unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
        }
        let alone = Config::from([("classifier".to_owned(), json!("mlp")), ("n_hidden_gnn".to_owned(), json!([]))]);
        assert!(SagenetConfig::parse(&alone).unwrap().graph_layers().is_empty());
    }

    #[test]
    fn layers_have_the_names_of_upstream_and_what_fails_there_is_told() {
        assert_eq!(Classifier::of_upstream("GraphSAGE"), Ok(Classifier::GraphSage));
        assert!(Classifier::of_upstream("Conv1d").unwrap_err().contains("do not fit"));
    }
}
