//! Options of scANVI: those of scVI and its own, with upstream's names and defaults.

use serde::{Deserialize, Serialize};

use super::NAME;
use crate::{
    error::Result,
    model::Config,
    options::{self, OptionCard, Options, options},
    zoo::{
        family::MAX_UNITS,
        scvi::{Dispersion, ScviConfig},
    },
};

/// Options of scANVI.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ScanviConfig {
    /// Those it shares with scVI.
    #[serde(flatten)]
    pub scvi: ScviConfig,
    /// Those it has beyond them.
    #[serde(flatten)]
    pub own: LabelOptions,
}

options! {
    /// What scANVI can be told about labels.
    pub struct LabelOptions {
        /// The category that stands for cells without a label; cells with no value at all are such cells too.
        unlabeled_category: String = "Unknown".to_owned();
        /// Whether the classifier is one linear map.
        linear_classifier: bool = false;
        /// What the classifier has otherwise than the encoder.
        classifier_parameters: ClassifierParameters = ClassifierParameters::default();
        /// Weight of the classification loss.
        classification_ratio: f64 = 50.0, within 0.0..;
        /// Labelled cells of each label that an epoch trains on at most; all of them without a number.
        n_samples_per_label: Option<usize> = None, within 1.., sizes Nothing;
    }
}

options! {
    /// What the classifier has otherwise than the encoder.
    pub struct ClassifierParameters {
        /// Hidden layers.
        n_layers: Option<usize> = None, within 1..=MAX_UNITS;
        /// Units of hidden layers.
        n_hidden: Option<usize> = None, within 1..=MAX_UNITS;
        /// Dropout rate.
        dropout_rate: Option<f64> = None, within 0.0..1.0;
        /// Whether it yields logits; probabilities otherwise, as before scvi-tools 1.1.
        logits: bool = true;
    }
}

impl Options for ScanviConfig {
    fn cards() -> Vec<OptionCard> {
        [ScviConfig::cards(), LabelOptions::option_cards()].concat()
    }

    fn check_together(&self) -> std::result::Result<(), String> {
        if self.scvi.dispersion == Dispersion::GeneLabel {
            return Err("`dispersion` is gene-label, which cells without a label do not have".to_owned());
        }
        Ok(())
    }
}

impl ScanviConfig {
    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`](crate::Error::Config) naming the option
    pub fn parse(given: &Config) -> Result<Self> {
        options::parse(NAME, given)
    }

    /// The options of the classifier's stack, in the terms of scVI's: layers, units, dropout.
    pub(super) fn classifier(&self) -> ScviConfig {
        let given = &self.own.classifier_parameters;
        ScviConfig {
            n_layers: given.n_layers.unwrap_or(self.scvi.n_layers),
            n_hidden: given.n_hidden.unwrap_or(self.scvi.n_hidden),
            dropout_rate: given.dropout_rate.unwrap_or(self.scvi.dropout_rate),
            ..self.scvi.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(name: &str, value: serde_json::Value) -> Result<ScanviConfig> {
        ScanviConfig::parse(&Config::from([(name.to_owned(), value)]))
    }

    #[test]
    fn options_of_both_kinds_are_read_and_written_out() {
        let config = check("n_hidden", 32.into()).unwrap();
        assert_eq!((config.scvi.n_hidden, config.classifier().n_hidden), (32, 32));
        assert_eq!(ScanviConfig::parse(&options::to_config(&config)).unwrap(), config);
        let config = check("classifier_parameters", json!({ "n_hidden": 7, "logits": false })).unwrap();
        assert_eq!((config.scvi.n_hidden, config.classifier().n_hidden), (128, 7));
        assert_eq!(ScanviConfig::parse(&options::to_config(&config)).unwrap(), config);
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (name, value) in [
            ("n_latent", json!(0)),
            ("n_hidden_units", json!(8)),
            ("dispersion", json!("gene-label")),
            ("classification_ratio", json!(-1.0)),
            ("n_samples_per_label", json!(0)),
        ] {
            assert!(check(name, value).unwrap_err().to_string().contains(name), "{name}");
        }
        assert!(check("classifier_parameters", json!({ "n_layers": 0 })).is_err());
        assert!(check("classifier_parameters", json!({ "layers": 1 })).is_err());
    }
}
