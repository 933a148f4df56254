//! Options of totalVI, with upstream's names and defaults.

use serde::{Deserialize, Serialize};

use crate::{
    distributions::Likelihood,
    error::{Error, Result},
    model::{Config, OptionCard, parse_options, to_options},
    nn::DispersionBy,
    zoo::scvi::{LatentDistribution, Norms},
};

/// Options of totalVI.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TotalviConfig {
    /// Dimensions of the latent space.
    pub n_latent: usize,
    /// What the inverse dispersion of genes depends on.
    pub gene_dispersion: GeneDispersion,
    /// What the inverse dispersion of proteins depends on.
    pub protein_dispersion: ProteinDispersion,
    /// Distribution of the RNA counts: nb or zinb.
    pub gene_likelihood: Likelihood,
    /// Distribution of the latent state.
    pub latent_distribution: LatentDistribution,
    /// Whether the prior of the protein background starts from the cells; without a word where there are more than 10 proteins.
    pub empirical_protein_background_prior: Option<bool>,
    /// Whether a protein without a count in a batch counts as measured there all the same.
    pub override_missing_proteins: bool,
    /// Units of hidden layers.
    pub n_hidden: usize,
    /// Hidden layers of the encoder.
    pub n_layers_encoder: usize,
    /// Hidden layers of the decoder's trunks.
    pub n_layers_decoder: usize,
    /// Dropout rate of the encoder.
    pub dropout_rate_encoder: f64,
    /// Dropout rate of the decoder's trunks.
    pub dropout_rate_decoder: f64,
    /// Whether the encoder takes the covariates; without them surgery cannot move an embedding.
    pub encode_covariates: bool,
    /// Whether the encoder sees logarithms.
    pub log_variational: bool,
    /// Where batch norm is.
    pub use_batch_norm: Norms,
    /// Where layer norm is.
    pub use_layer_norm: Norms,
    /// Whether the library size is the observed total count; otherwise it is a latent variable.
    pub use_observed_lib_size: bool,
    /// Further options of the decoder.
    pub extra_decoder_kwargs: DecoderOptions,
    /// Which version of scvi-tools the numbers are those of; an imported model keeps its own.
    pub behaviour: Behaviour,
}

/// Every option, for people.
pub(super) const OPTIONS: &[OptionCard] = &[
    OptionCard { name: "n_latent", help: "dimensions of the latent space" },
    OptionCard {
        name: "gene_dispersion",
        help: "what the inverse dispersion of genes depends on: gene, gene-batch or gene-label",
    },
    OptionCard {
        name: "protein_dispersion",
        help: "what the inverse dispersion of proteins depends on: protein, protein-batch or protein-label",
    },
    OptionCard { name: "gene_likelihood", help: "distribution of the RNA counts: nb or zinb" },
    OptionCard {
        name: "latent_distribution",
        help: "distribution of the latent state: normal or ln (logistic normal)",
    },
    OptionCard {
        name: "empirical_protein_background_prior",
        help: "whether the prior of the protein background starts from the cells; null does for more than 10 proteins",
    },
    OptionCard {
        name: "override_missing_proteins",
        help: "whether a protein without a count in a batch counts as measured there all the same",
    },
    OptionCard { name: "n_hidden", help: "units of hidden layers" },
    OptionCard { name: "n_layers_encoder", help: "hidden layers of the encoder" },
    OptionCard { name: "n_layers_decoder", help: "hidden layers of the decoder's trunks" },
    OptionCard { name: "dropout_rate_encoder", help: "dropout rate of the encoder" },
    OptionCard { name: "dropout_rate_decoder", help: "dropout rate of the decoder's trunks" },
    OptionCard {
        name: "encode_covariates",
        help: "whether the encoder takes the batch and covariates; without it surgery moves no embedding",
    },
    OptionCard { name: "log_variational", help: "whether the encoder sees logarithms" },
    OptionCard { name: "use_batch_norm", help: "where batch norm is: encoder, decoder, none or both" },
    OptionCard { name: "use_layer_norm", help: "where layer norm is: encoder, decoder, none or both" },
    OptionCard {
        name: "use_observed_lib_size",
        help: "whether the library size is the total count; false learns it (encoded library)",
    },
    OptionCard {
        name: "extra_decoder_kwargs",
        help: "further options of the decoder, as JSON: activation_function_bg (softplus or exp)",
    },
    OptionCard { name: "behaviour", help: "whose numbers: current, or before-1.3.1 of scvi-tools" },
];

/// Further options of the decoder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecoderOptions {
    /// What makes the standard deviation of the protein background.
    pub activation_function_bg: BackgroundActivation,
}

/// What makes the standard deviation of the protein background positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackgroundActivation {
    /// Softplus.
    #[default]
    Softplus,
    /// The exponential, as before scvi-tools 1.2.
    Exp,
}

/// What changed with version 1.3.1 of scvi-tools.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Behaviour {
    /// The encoder sees counts scaled by their cell's mean; proteins have an efficiency per batch, with its log-normal prior, and
    /// a small preference for foreground; the warm-up weighs the protein likelihood too.
    #[default]
    #[serde(rename = "current")]
    Current,
    /// None of that.
    #[serde(rename = "before-1.3.1")]
    Before131,
}

/// What the inverse dispersion of genes depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneDispersion {
    /// The gene.
    Gene,
    /// Gene and batch; a condition owns a column of it.
    GeneBatch,
    /// Gene and label.
    GeneLabel,
}

/// What the inverse dispersion of proteins depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProteinDispersion {
    /// The protein.
    Protein,
    /// Protein and batch; a condition owns a column of it.
    ProteinBatch,
    /// Protein and label.
    ProteinLabel,
}

impl From<GeneDispersion> for DispersionBy {
    fn from(dispersion: GeneDispersion) -> Self {
        match dispersion {
            GeneDispersion::Gene => Self::Feature,
            GeneDispersion::GeneBatch => Self::Condition,
            GeneDispersion::GeneLabel => Self::Label,
        }
    }
}

impl From<ProteinDispersion> for DispersionBy {
    fn from(dispersion: ProteinDispersion) -> Self {
        match dispersion {
            ProteinDispersion::Protein => Self::Feature,
            ProteinDispersion::ProteinBatch => Self::Condition,
            ProteinDispersion::ProteinLabel => Self::Label,
        }
    }
}

impl Default for TotalviConfig {
    fn default() -> Self {
        Self {
            n_latent: 20,
            gene_dispersion: GeneDispersion::Gene,
            protein_dispersion: ProteinDispersion::Protein,
            gene_likelihood: Likelihood::Nb,
            latent_distribution: LatentDistribution::Normal,
            empirical_protein_background_prior: None,
            override_missing_proteins: false,
            n_hidden: 256,
            n_layers_encoder: 2,
            n_layers_decoder: 1,
            dropout_rate_encoder: 0.2,
            dropout_rate_decoder: 0.2,
            encode_covariates: true,
            log_variational: true,
            use_batch_norm: Norms::Both,
            use_layer_norm: Norms::None,
            use_observed_lib_size: true,
            extra_decoder_kwargs: DecoderOptions::default(),
            behaviour: Behaviour::Current,
        }
    }
}

impl TotalviConfig {
    /// Options that map well: what the field's surgery tutorial uses.
    pub fn for_surgery() -> Self {
        Self { n_layers_decoder: 2, use_batch_norm: Norms::None, use_layer_norm: Norms::Both, ..Self::default() }
    }

    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`] naming the option
    pub fn parse(options: &Config) -> Result<Self> {
        parse_options::<Self>(MODEL, options)?.checked()
    }

    /// All options by name, defaults included.
    pub fn to_options(&self) -> Config {
        to_options(self)
    }

    /// Whether any dispersion depends on labels.
    pub fn takes_labels(&self) -> bool {
        self.gene_dispersion == GeneDispersion::GeneLabel || self.protein_dispersion == ProteinDispersion::ProteinLabel
    }

    /// Whether the background prior of so many proteins starts from the cells.
    pub fn has_empirical_prior(&self, n_proteins: usize) -> bool {
        self.empirical_protein_background_prior.unwrap_or(n_proteins > EMPIRICAL_FROM)
    }

    fn checked(self) -> Result<Self> {
        let refuse = |detail: String| Err(Error::Config { model: MODEL, detail });
        let sizes = [
            ("n_hidden", self.n_hidden),
            ("n_latent", self.n_latent),
            ("n_layers_encoder", self.n_layers_encoder),
            ("n_layers_decoder", self.n_layers_decoder),
        ];
        for (name, value) in sizes {
            if !(1..=MAX_UNITS).contains(&value) {
                return refuse(format!("`{name}` is {value}, expected 1 to {MAX_UNITS}"));
            }
        }
        let rates =
            [("dropout_rate_encoder", self.dropout_rate_encoder), ("dropout_rate_decoder", self.dropout_rate_decoder)];
        for (name, rate) in rates {
            if !(0.0..1.0).contains(&rate) {
                return refuse(format!("`{name}` is {rate}, expected 0 or more and below 1"));
            }
        }
        if !matches!(self.gene_likelihood, Likelihood::Nb | Likelihood::Zinb) {
            return refuse("`gene_likelihood` is neither nb nor zinb".to_owned());
        }
        Ok(self)
    }
}

/// Name in errors.
const MODEL: &str = "totalvi";
/// More units than any published model has; keeps a hostile card from asking for all memory.
const MAX_UNITS: usize = 1 << 16;
/// With more proteins than these the background prior starts from the cells.
const EMPIRICAL_FROM: usize = 10;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(name: &str, value: serde_json::Value) -> Result<TotalviConfig> {
        TotalviConfig::parse(&Config::from([(name.to_owned(), value)]))
    }

    #[test]
    fn defaults_are_upstreams_and_written_out() {
        let options = TotalviConfig::parse(&Config::new()).unwrap().to_options();
        assert_eq!((&options["n_latent"], &options["n_hidden"]), (&json!(20), &json!(256)));
        assert_eq!((&options["gene_likelihood"], &options["behaviour"]), (&json!("nb"), &json!("current")));
        assert_eq!(options["protein_dispersion"], "protein");
        assert_eq!(TotalviConfig::parse(&options).unwrap(), TotalviConfig::default());
        let given = check("extra_decoder_kwargs", json!({ "activation_function_bg": "exp" })).unwrap();
        assert_eq!(given.extra_decoder_kwargs.activation_function_bg, BackgroundActivation::Exp);
    }

    #[test]
    fn the_prior_is_empirical_from_eleven_proteins_on_unless_told() {
        let default = TotalviConfig::default();
        assert!(default.has_empirical_prior(11) && !default.has_empirical_prior(10));
        assert!(!check("empirical_protein_background_prior", json!(false)).unwrap().has_empirical_prior(11));
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (name, value) in [
            ("n_latent", json!(0)),
            ("n_layers_decoder", json!(0)),
            ("dropout_rate_decoder", json!(1.0)),
            ("gene_likelihood", json!("poisson")),
            ("n_layers", json!(2)),
        ] {
            assert!(check(name, value).unwrap_err().to_string().contains(name), "{name}");
        }
        assert!(check("gene_dispersion", json!("gene-cell")).is_err());
    }
}
