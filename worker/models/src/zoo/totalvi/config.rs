//! Options of totalVI, with upstream's names and defaults.

use serde::{Deserialize, Serialize};

use super::NAME;
use crate::{
    distributions::Likelihood,
    error::Result,
    model::Config,
    nn::DispersionBy,
    options::{self, Choice, OptionCard, Options, options},
    zoo::family::{LatentDistribution, MAX_UNITS, Norms},
};

options! {
    /// Options of totalVI.
    pub struct TotalviConfig {
        /// Dimensions of the latent space.
        n_latent: usize = 20, within 1..=MAX_UNITS, sizes Latent;
        /// What the inverse dispersion of genes depends on.
        gene_dispersion: GeneDispersion = GeneDispersion::Gene;
        /// What the inverse dispersion of proteins depends on.
        protein_dispersion: ProteinDispersion = ProteinDispersion::Protein;
        /// Distribution of the RNA counts.
        gene_likelihood: Likelihood = Likelihood::Nb, among ["nb", "zinb"];
        /// Distribution of the latent state: normal, or logistic normal (ln).
        latent_distribution: LatentDistribution = LatentDistribution::Normal;
        /// Whether the prior of the protein background starts from the cells; with none, where there are more than 10 proteins.
        empirical_protein_background_prior: Option<bool> = None;
        /// Whether a protein without a count in a batch counts as measured there all the same.
        override_missing_proteins: bool = false;
        /// Units of hidden layers.
        n_hidden: usize = 256, within 1..=MAX_UNITS;
        /// Hidden layers of the encoder.
        n_layers_encoder: usize = 2, within 1..=MAX_UNITS;
        /// Hidden layers of the decoder's trunks.
        n_layers_decoder: usize = 1, within 1..=MAX_UNITS;
        /// Dropout rate of the encoder.
        dropout_rate_encoder: f64 = 0.2, within 0.0..1.0;
        /// Dropout rate of the decoder's trunks.
        dropout_rate_decoder: f64 = 0.2, within 0.0..1.0;
        /// Whether the encoder takes the batch and covariates; without it surgery cannot move an embedding.
        encode_covariates: bool = true;
        /// Whether the encoder sees logarithms.
        log_variational: bool = true;
        /// Where batch norm is.
        use_batch_norm: Norms = Norms::Both;
        /// Where layer norm is.
        use_layer_norm: Norms = Norms::None;
        /// Whether the library size is the total count; false learns it.
        use_observed_lib_size: bool = true;
        /// Further options of the decoder.
        extra_decoder_kwargs: DecoderOptions = DecoderOptions::default();
        /// Which version of scvi-tools the numbers are those of; an imported model keeps its own.
        behaviour: Behaviour = Behaviour::Current;
    }
}

options! {
    /// Further options of the decoder.
    pub struct DecoderOptions {
        /// What makes the standard deviation of the protein background.
        activation_function_bg: BackgroundActivation = BackgroundActivation::Softplus;
    }
}

impl Options for TotalviConfig {
    fn cards() -> Vec<OptionCard> {
        Self::option_cards()
    }
}

impl Choice for BackgroundActivation {}
impl Choice for Behaviour {}
impl Choice for GeneDispersion {}
impl Choice for ProteinDispersion {}

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

impl TotalviConfig {
    /// Options that map well: what the field's surgery tutorial uses.
    pub fn for_surgery() -> Self {
        Self { n_layers_decoder: 2, use_batch_norm: Norms::None, use_layer_norm: Norms::Both, ..Self::default() }
    }

    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`](crate::Error::Config) naming the option
    pub fn parse(given: &Config) -> Result<Self> {
        options::parse(NAME, given)
    }

    /// Whether any dispersion depends on labels.
    pub fn takes_labels(&self) -> bool {
        self.gene_dispersion == GeneDispersion::GeneLabel || self.protein_dispersion == ProteinDispersion::ProteinLabel
    }

    /// Whether the background prior of so many proteins starts from the cells.
    pub fn has_empirical_prior(&self, n_proteins: usize) -> bool {
        self.empirical_protein_background_prior.unwrap_or(n_proteins > EMPIRICAL_FROM)
    }
}

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
        let options = options::to_config(&TotalviConfig::parse(&Config::new()).unwrap());
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
