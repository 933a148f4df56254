//! Options of scVI, with upstream's names and defaults.

use serde::{Deserialize, Serialize};

use crate::{
    distributions::Likelihood,
    error::{Error, Result},
    model::{Config, OptionCard, parse_options, to_options},
};

/// Options of scVI.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScviConfig {
    /// Units of hidden layers.
    pub n_hidden: usize,
    /// Dimensions of the latent space.
    pub n_latent: usize,
    /// Hidden layers of encoder and decoder.
    pub n_layers: usize,
    /// Dropout rate of the encoder.
    pub dropout_rate: f64,
    /// What the inverse dispersion depends on.
    pub dispersion: Dispersion,
    /// Distribution of the counts.
    pub gene_likelihood: Likelihood,
    /// Distribution of the latent state.
    pub latent_distribution: LatentDistribution,
    /// Whether the encoder sees `log1p` of the counts.
    pub log_variational: bool,
    /// Whether the encoder takes the covariates; without them surgery cannot move an embedding.
    pub encode_covariates: bool,
    /// Whether every layer takes the covariates, not only the first.
    pub deeply_inject_covariates: bool,
    /// Where batch norm is.
    pub use_batch_norm: Norms,
    /// Where layer norm is.
    pub use_layer_norm: Norms,
    /// Whether the library size is the observed total count; otherwise it is a latent variable.
    pub use_observed_lib_size: bool,
    /// How the batch enters layers.
    pub batch_representation: BatchRepresentation,
}

impl Default for ScviConfig {
    fn default() -> Self {
        Self {
            n_hidden: 128,
            n_latent: 10,
            n_layers: 1,
            dropout_rate: 0.1,
            dispersion: Dispersion::Gene,
            gene_likelihood: Likelihood::Zinb,
            latent_distribution: LatentDistribution::Normal,
            log_variational: true,
            encode_covariates: false,
            deeply_inject_covariates: true,
            use_batch_norm: Norms::Both,
            use_layer_norm: Norms::None,
            use_observed_lib_size: true,
            batch_representation: BatchRepresentation::OneHot,
        }
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
    /// # Errors  [`Error::Config`] naming the option
    pub fn parse(options: &Config) -> Result<Self> {
        parse_options::<Self>("scvi", options)?.checked("scvi")
    }

    /// All options by name, defaults included.
    pub fn to_options(&self) -> Config {
        to_options(self)
    }

    /// Checks values; `model` names the model in the error.
    ///
    /// # Errors  [`Error::Config`]
    pub fn checked(self, model: &'static str) -> Result<Self> {
        let sizes = [("n_hidden", self.n_hidden), ("n_latent", self.n_latent), ("n_layers", self.n_layers)];
        for (name, value) in sizes {
            if !(1..=MAX_UNITS).contains(&value) {
                let detail = format!("`{name}` is {value}, expected 1 to {MAX_UNITS}");
                return Err(Error::Config { model, detail });
            }
        }
        if !(0.0..1.0).contains(&self.dropout_rate) {
            let detail = format!("`dropout_rate` is {}, expected 0 or more and below 1", self.dropout_rate);
            return Err(Error::Config { model, detail });
        }
        Ok(self)
    }
}

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

/// Distribution of the latent state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatentDistribution {
    /// Normal.
    Normal,
    /// Logistic normal: the softmax of a normal.
    Ln,
}

/// Where a norm is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norms {
    /// In the encoder.
    Encoder,
    /// In the decoder.
    Decoder,
    /// Nowhere.
    None,
    /// In both.
    Both,
}

impl Norms {
    /// Whether the encoder has it.
    pub fn in_encoder(self) -> bool {
        matches!(self, Self::Encoder | Self::Both)
    }

    /// Whether the decoder has it.
    pub fn in_decoder(self) -> bool {
        matches!(self, Self::Decoder | Self::Both)
    }
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

/// Every option, for people.
pub(in crate::zoo) const OPTIONS: &[OptionCard] = &[
    OptionCard { name: "n_hidden", help: "units of hidden layers" },
    OptionCard { name: "n_latent", help: "dimensions of the latent space" },
    OptionCard { name: "n_layers", help: "hidden layers of encoder and decoder" },
    OptionCard { name: "dropout_rate", help: "dropout rate of the encoder, 0 or more and below 1" },
    OptionCard {
        name: "dispersion",
        help: "what the inverse dispersion depends on: gene, gene-batch, gene-label or gene-cell",
    },
    OptionCard { name: "gene_likelihood", help: "distribution of the counts: zinb, nb, poisson or normal" },
    OptionCard {
        name: "latent_distribution",
        help: "distribution of the latent state: normal or ln (logistic normal)",
    },
    OptionCard { name: "log_variational", help: "whether the encoder sees log1p of the counts" },
    OptionCard {
        name: "encode_covariates",
        help: "whether the encoder takes the batch and covariates; without it surgery moves no embedding",
    },
    OptionCard {
        name: "deeply_inject_covariates",
        help: "whether every layer takes the batch and covariates, not only the first",
    },
    OptionCard { name: "use_batch_norm", help: "where batch norm is: encoder, decoder, none or both" },
    OptionCard { name: "use_layer_norm", help: "where layer norm is: encoder, decoder, none or both" },
    OptionCard {
        name: "use_observed_lib_size",
        help: "whether the library size is the total count; false learns it (encoded library)",
    },
    OptionCard { name: "batch_representation", help: "how the batch enters layers: one-hot or embedding" },
];

/// More units than any published model has; keeps a hostile card from asking for all memory.
const MAX_UNITS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: serde_json::Value) -> Result<ScviConfig> {
        ScviConfig::parse(&Config::from([(name.to_owned(), value)]))
    }

    #[test]
    fn defaults_are_upstreams_and_written_out() {
        let options = ScviConfig::parse(&Config::new()).unwrap().to_options();
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
