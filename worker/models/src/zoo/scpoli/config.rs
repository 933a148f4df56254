//! Options of scPoli, with upstream's names and defaults.
//!
//! Upstream's `use_mmd`, `mmd_on`, `mmd_boundary` and `beta` are stored there and do nothing, so they are no options here.

use archipelago_common::Name;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    model::Config,
    options::{self, Choice, OptionCard, Options, options},
    zoo::family::{BlockOptions, Hears, MAX_UNITS, Norm, ReconLoss, keys},
};

options! {
    /// Options of scPoli.
    pub struct ScpoliConfig {
        /// Units of the encoder's layers; the decoder has them in reverse. One layer of the square root of the number of genes with none.
        hidden_layer_sizes: Option<Vec<usize>> = None, within 1..=MAX_UNITS;
        /// Dimensions of the latent space.
        latent_dim: usize = 10, within 1..=MAX_UNITS, sizes Latent;
        /// Condition keys, where there are several: each has embeddings, and what a cell's names on them make together is its condition.
        condition_keys: Vec<Name> = vec![];
        /// Condition keys whose names mean the same at every site.
        common_condition_keys: Vec<Name> = vec![];
        /// Numbers that stand for a condition; one for each key where there are several.
        embedding_dims: Vec<usize> = vec![10], within 1..=MAX_UNITS;
        /// Largest length of a condition's embedding: a longer one is shortened when it is looked up.
        embedding_max_norm: f64 = 1.0, within 0.0..;
        /// What hears of conditions.
        inject_condition: Injected = Injected::Both;
        /// Dropout rate.
        dr_rate: f64 = 0.05, within 0.0..1.0;
        /// Reconstruction loss: nb, zinb or poisson on counts, mse on normalised log values.
        recon_loss: ReconLoss = ReconLoss::Nb;
        /// Batch norm; it wins over layer norm.
        use_bn: bool = false;
        /// Layer norm.
        use_ln: bool = true;
        /// The category that stands for cells without a type; cells with no value at all are such cells too.
        unlabeled_category: String = "Unknown".to_owned();
        /// Names that stand for cells without a type beside it.
        unknown_ct_names: Vec<String> = vec![];
        /// Epochs before prototypes; nine tenths of all with none.
        pretraining_epochs: Option<usize> = None, sizes Nothing;
        /// Whether the prototypes of cell types draw their cells to them.
        prototype_training: bool = true;
        /// Whether cells without a type get prototypes of their own, where there are such cells.
        unlabeled_prototype_training: bool = true;
        /// Weight of the distance between cells and prototypes.
        eta: f64 = 1.0, within 0.0..;
        /// Which distance: the order of the norm, 2 for the Euclidean one.
        p_prototype_loss: f64 = 2.0, within 1.0..;
        /// Weight of the distance to prototypes without a type, beside that to those with one.
        unlabeled_weight: f64 = 0.0, within 0.0..;
        /// How prototypes without a type are found.
        clustering: Clustering = Clustering::Leiden;
        /// Resolution of the Leiden clustering.
        clustering_res: f64 = 2.0, within 0.0..;
        /// Clusters of k-means.
        n_clusters: Option<usize> = None, within 1.., sizes Nothing;
    }
}

/// What hears of conditions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Injected {
    /// Encoder and decoder.
    Both,
    /// The encoder.
    Encoder,
    /// The decoder.
    Decoder,
    /// Neither.
    None,
}

/// How prototypes without a type are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clustering {
    /// Communities of the graph of nearest neighbours.
    Leiden,
    /// k-means.
    Kmeans,
}

impl Choice for Injected {}
impl Choice for Clustering {}

impl Injected {
    /// Whether the encoder hears of conditions.
    pub fn in_encoder(self) -> bool {
        matches!(self, Self::Both | Self::Encoder)
    }

    /// Whether the decoder hears of conditions.
    pub fn in_decoder(self) -> bool {
        matches!(self, Self::Both | Self::Decoder)
    }
}

impl Options for ScpoliConfig {
    fn cards() -> Vec<OptionCard> {
        Self::option_cards()
    }

    fn check_together(&self) -> std::result::Result<(), String> {
        let n_layers = self.hidden_layer_sizes.as_ref().map_or(1, Vec::len);
        if !(1..=MAX_LAYERS).contains(&n_layers) {
            return Err(format!("`hidden_layer_sizes` has {n_layers} layers, expected 1 to {MAX_LAYERS}"));
        }
        if self.embedding_dims.is_empty() {
            return Err("`embedding_dims` is empty, expected a number for all keys, or one for each".to_owned());
        }
        keys::check(&self.condition_keys, &self.common_condition_keys, "common_condition_keys")?;
        let (n_dims, n_keys) = (self.embedding_dims.len(), self.condition_keys.len().max(1));
        if n_dims != 1 && n_dims != n_keys {
            return Err(format!(
                "`embedding_dims` has {n_dims} numbers, expected one, or one for each of {n_keys} keys"
            ));
        }
        if self.embedding_max_norm == 0.0 {
            return Err("`embedding_max_norm` is 0, expected a number above 0".to_owned());
        }
        if self.clustering == Clustering::Kmeans && self.n_clusters.is_none() {
            return Err("`clustering` is kmeans, which needs `n_clusters`".to_owned());
        }
        if self.clustering == Clustering::Leiden && self.clustering_res == 0.0 {
            return Err("`clustering_res` is 0, expected a number above 0".to_owned());
        }
        Ok(())
    }
}

impl ScpoliConfig {
    /// The published tutorial's: embeddings of 5 numbers, and prototypes that weigh 5.
    pub fn for_surgery() -> Self {
        Self { embedding_dims: vec![5], eta: 5.0, ..Self::default() }
    }

    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`](crate::Error::Config) naming the option
    pub fn parse(given: &Config) -> Result<Self> {
        options::parse(NAME, given)
    }

    /// Units of the encoder's layers for a panel of so many genes.
    pub fn hidden(&self, n_genes: usize) -> Vec<usize> {
        let one = || vec![((n_genes as f64).sqrt().ceil() as usize).max(1)];
        self.hidden_layer_sizes.clone().unwrap_or_else(one)
    }

    /// What blocks are made of that hear, or do not, of a vector of so many numbers.
    pub(super) fn blocks(&self, hears: bool, n_numbers: usize) -> BlockOptions {
        let norm = match (self.use_bn, self.use_ln) {
            (true, _) => Norm::Batch,
            (false, true) => Norm::Layer,
            (false, false) => Norm::None,
        };
        let hears = if hears { Hears::Vector(n_numbers) } else { Hears::Nothing };
        BlockOptions { norm, dropout: self.dr_rate, hears }
    }

    /// Epochs of a run that prototypes take no part in.
    pub fn pretraining(&self, n_epochs: u32) -> u32 {
        match self.pretraining_epochs {
            Some(n) => u32::try_from(n).unwrap_or(u32::MAX),
            None => (f64::from(n_epochs) * PRETRAINING).floor() as u32,
        }
    }
}

/// The options that a query can be mapped with by upstream's surgery: how prototypes draw its cells.
pub(super) const OF_UPSTREAM_QUERY: [&str; 9] = [
    "pretraining_epochs",
    "prototype_training",
    "unlabeled_prototype_training",
    "eta",
    "p_prototype_loss",
    "unlabeled_weight",
    "clustering",
    "clustering_res",
    "n_clusters",
];
/// Name in the zoo.
pub(super) const NAME: &str = "scpoli";
/// More layers than any published model has.
const MAX_LAYERS: usize = 64;
/// Share of the epochs that prototypes take no part in.
const PRETRAINING: f64 = 0.9;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(name: &str, value: serde_json::Value) -> Result<ScpoliConfig> {
        ScpoliConfig::parse(&Config::from([(name.to_owned(), value)]))
    }

    #[test]
    fn defaults_are_upstreams_and_written_out() {
        let config = ScpoliConfig::parse(&Config::new()).unwrap();
        assert_eq!((config.hidden(4_000), config.hidden(1), config.pretraining(50)), (vec![64], vec![1], 45));
        let options = options::to_config(&config);
        assert_eq!((&options["embedding_dims"], &options["clustering"]), (&json!([10]), &json!("leiden")));
        assert_eq!(ScpoliConfig::parse(&options).unwrap(), config);
        assert_eq!(check("pretraining_epochs", json!(40)).unwrap().pretraining(50), 40);
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (name, value) in [
            ("hidden_layer_sizes", json!([])),
            ("hidden_layer_sizes", json!([8, 0])),
            ("latent_dim", json!(0)),
            ("embedding_dims", json!([])),
            ("embedding_dims", json!([0])),
            ("embedding_dims", json!([3, 2])),
            ("common_condition_keys", json!(["assay"])),
            ("embedding_max_norm", json!(0.0)),
            ("inject_condition", json!("nowhere")),
            ("recon_loss", json!("bernoulli")),
            ("p_prototype_loss", json!(0.5)),
            ("clustering", json!("kmeans")),
            ("clustering_res", json!(0.0)),
            ("use_mmd", json!(true)),
        ] {
            assert!(check(name, value).unwrap_err().to_string().contains(name), "{name}");
        }
    }
}
