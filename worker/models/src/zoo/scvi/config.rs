//! Options of scVI, with upstream's names and defaults.

use serde::{Deserialize, Serialize};

use super::NAME;
use crate::{
    distributions::Likelihood,
    error::Result,
    model::Config,
    options::{self, Choice, OptionCard, Options, options},
    zoo::family::{LatentDistribution, MAX_UNITS, Norms},
};

options! {
    /// Options of scVI.
    pub struct ScviConfig {
        /// Units of hidden layers.
        n_hidden: usize = 128, within 1..=MAX_UNITS;
        /// Dimensions of the latent space.
        n_latent: usize = 10, within 1..=MAX_UNITS, sizes Latent;
        /// Hidden layers of encoder and decoder.
        n_layers: usize = 1, within 1..=MAX_UNITS;
        /// Dropout rate of the encoder.
        dropout_rate: f64 = 0.1, within 0.0..1.0;
        /// What the inverse dispersion depends on.
        dispersion: Dispersion = Dispersion::Gene;
        /// Distribution of the counts.
        gene_likelihood: Likelihood = Likelihood::Zinb;
        /// Distribution of the latent state: normal, or logistic normal (ln).
        latent_distribution: LatentDistribution = LatentDistribution::Normal;
        /// Whether the encoder sees `log1p` of the counts.
        log_variational: bool = true;
        /// Whether the encoder takes the batch and covariates; without it surgery cannot move an embedding.
        encode_covariates: bool = false;
        /// Whether every layer takes the batch and covariates, not only the first.
        deeply_inject_covariates: bool = true;
        /// Where batch norm is.
        use_batch_norm: Norms = Norms::Both;
        /// Where layer norm is.
        use_layer_norm: Norms = Norms::None;
        /// Whether the library size is the total count; false learns it.
        use_observed_lib_size: bool = true;
        /// How the batch enters layers.
        batch_representation: BatchRepresentation = BatchRepresentation::OneHot;
        /// Whose scale and shift the decoder's batch norm has: everybody's, or with what each mapped condition adds to it.
        batch_norm_affine: BatchNormAffine = BatchNormAffine::Shared;
    }
}

impl Options for ScviConfig {
    fn cards() -> Vec<OptionCard> {
        Self::option_cards()
    }
}

impl ScviConfig {
    /// Options that map well: what the field's surgery tutorials use.
    pub fn for_surgery() -> Self {
        Self {
            n_layers: 2,
            encode_covariates: true,
            deeply_inject_covariates: false,
            use_batch_norm: Norms::None,
            use_layer_norm: Norms::Both,
            ..Self::default()
        }
    }

    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`](crate::Error::Config) naming the option
    pub fn parse(given: &Config) -> Result<Self> {
        options::parse(NAME, given)
    }
}

impl Choice for Dispersion {}
impl Choice for BatchNormAffine {}
impl Choice for BatchRepresentation {}

/// What the inverse dispersion depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dispersion {
    /// The gene.
    Gene,
    /// Gene and batch; a condition owns a column of it.
    GeneBatch,
    /// Gene and label.
    GeneLabel,
    /// Gene and cell: the decoder says.
    GeneCell,
}

/// Whose scale and shift the decoder's batch norm has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNormAffine {
    /// Everybody's, frozen by exact surgery.
    Shared,
    /// Everybody's and what a condition adds, as part of its columns: zeros in a reference's own conditions, trained by surgery.
    Conditions,
}

/// How the batch enters layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchRepresentation {
    /// A column of each layer that takes covariates.
    OneHot,
    /// A learnt vector of five numbers, appended to the layer's input.
    Embedding,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: serde_json::Value) -> Result<ScviConfig> {
        ScviConfig::parse(&Config::from([(name.to_owned(), value)]))
    }

    #[test]
    fn defaults_are_upstreams_and_written_out() {
        let options = options::to_config(&ScviConfig::parse(&Config::new()).unwrap());
        assert_eq!(options["n_hidden"], 128);
        assert_eq!(options["gene_likelihood"], "zinb");
        assert_eq!(options["dispersion"], "gene");
        assert_eq!(ScviConfig::parse(&options).unwrap(), ScviConfig::default());
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (name, value) in [
            ("n_latent", serde_json::json!(0)),
            ("n_hidden", serde_json::json!(10_000_000)),
            ("dropout_rate", serde_json::json!(1.0)),
        ] {
            assert!(check(name, value).unwrap_err().to_string().contains(name));
        }
        assert!(check("gene_likelihood", "binomial".into()).unwrap_err().to_string().contains("binomial"));
        assert!(check("use_layer_norm", true.into()).is_err());
    }
}
