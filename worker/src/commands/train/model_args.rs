//! Flags that say what the network looks like.

use archipelago_models::{Config, OptionCard, zoo};
use clap::Args;
use serde_json::Value;

use crate::error::Result;

/// The network.
#[derive(Args, Debug)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArgs {
    /// A model of the zoo, see `archipelago-worker models`.
    #[arg(long, default_value = "scvi")]
    pub(super) model: String,
    /// Dimensions of the latent space [default: 10; totalVI 20]
    #[arg(long)]
    n_latent: Option<usize>,
    /// Hidden layers of encoder and decoder [default: 2]
    #[arg(long)]
    n_layers: Option<usize>,
    /// Units of hidden layers [default: 128; totalVI 256]
    #[arg(long)]
    n_hidden: Option<usize>,
    /// Distribution of the RNA counts: zinb, nb or poisson [default: zinb; totalVI nb]
    #[arg(long)]
    gene_likelihood: Option<String>,
    /// What the dispersion depends on: gene, gene-batch, gene-label or gene-cell [default: gene]
    #[arg(long)]
    dispersion: Option<String>,
    /// Distribution of the latent state: normal or ln [default: normal]
    #[arg(long)]
    latent_distribution: Option<String>,
    /// Where layer norm is: encoder, decoder, none or both [default: both]
    #[arg(long)]
    use_layer_norm: Option<String>,
    /// Where batch norm is: encoder, decoder, none or both [default: none]
    #[arg(long)]
    use_batch_norm: Option<String>,
    /// Whether the encoder takes the batch; without it surgery cannot move an embedding [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    encode_covariates: Option<bool>,
    /// Whether every layer takes the batch, not only the first [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    deeply_inject_covariates: Option<bool>,
    /// Whether the library size is the total count; false learns it [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    use_observed_lib_size: Option<bool>,
    /// Dropout rate of the encoder, in totalVI of the decoder too [default: 0.1; totalVI 0.2]
    #[arg(long)]
    dropout_rate: Option<f64>,
    /// scANVI: the category that stands for cells without a label; cells with no value at all are such cells too
    /// [default: Unknown]
    #[arg(long)]
    unlabeled_category: Option<String>,
    /// scANVI: labelled cells of each label that an epoch trains on at most [default: all]
    #[arg(long)]
    n_samples_per_label: Option<usize>,
    /// scANVI: weight of the classification loss [default: 50]
    #[arg(long)]
    classification_ratio: Option<f64>,
    /// scANVI: the classifier is one linear map [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    linear_classifier: Option<bool>,
    /// Any option of the model as `name=value`; `archipelago-worker models NAME` lists them.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = parse_option)]
    options: Vec<(String, Value)>,
}

impl ModelArgs {
    /// The options that were given, and for a model that starts from nothing those that map well.
    ///
    /// # Errors  an unknown model
    pub(super) fn options(&self, starts_from_reference: bool) -> Result<Config> {
        let model = zoo::model(&self.model)?;
        let known = model.options();
        let mut options = Config::new();
        if !starts_from_reference {
            options.extend(model.options_for_surgery());
        }
        for (name, value) in self.given().into_iter().filter_map(|(name, value)| Some((name, value?))) {
            options.extend(meant_by(name, &known).into_iter().map(|name| (name, value.clone())));
        }
        options.extend(self.options.iter().cloned());
        Ok(options)
    }

    fn given(&self) -> [(&'static str, Option<Value>); 16] {
        [
            ("n_latent", self.n_latent.map(Into::into)),
            ("n_layers", self.n_layers.map(Into::into)),
            ("n_hidden", self.n_hidden.map(Into::into)),
            ("gene_likelihood", self.gene_likelihood.clone().map(Into::into)),
            ("dispersion", self.dispersion.clone().map(Into::into)),
            ("latent_distribution", self.latent_distribution.clone().map(Into::into)),
            ("use_layer_norm", self.use_layer_norm.clone().map(Into::into)),
            ("use_batch_norm", self.use_batch_norm.clone().map(Into::into)),
            ("encode_covariates", self.encode_covariates.map(Into::into)),
            ("deeply_inject_covariates", self.deeply_inject_covariates.map(Into::into)),
            ("use_observed_lib_size", self.use_observed_lib_size.map(Into::into)),
            ("dropout_rate", self.dropout_rate.map(Into::into)),
            ("unlabeled_category", self.unlabeled_category.clone().map(Into::into)),
            ("n_samples_per_label", self.n_samples_per_label.map(Into::into)),
            ("classification_ratio", self.classification_ratio.map(Into::into)),
            ("linear_classifier", self.linear_classifier.map(Into::into)),
        ]
    }
}

/// The options of a model that a flag speaks of: the one of its name, else those of its name for encoder, decoder or genes.
fn meant_by(flag: &str, known: &[OptionCard]) -> Vec<String> {
    let is_known = |name: &String| known.iter().any(|option| option.name == name);
    let parts = [format!("{flag}_encoder"), format!("{flag}_decoder"), format!("gene_{flag}")];
    let parts: Vec<String> = parts.into_iter().filter(is_known).collect();
    if parts.is_empty() || is_known(&flag.to_owned()) { vec![flag.to_owned()] } else { parts }
}

/// `name=value`; a value that is not JSON is text.
fn parse_option(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected `name=value`")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}
