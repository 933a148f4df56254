//! Options of scANVI: those of scVI and its own, with upstream's names and defaults.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    model::{Config, OptionCard, parse_options, to_options},
    zoo::scvi::{Dispersion, ScviConfig},
};

/// Options of scANVI.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ScanviConfig {
    /// Those it shares with scVI.
    pub scvi: ScviConfig,
    /// Those it has beyond them.
    pub own: LabelOptions,
}

/// What scANVI can be told about labels.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelOptions {
    /// The category that stands for cells without a label.
    pub unlabeled_category: String,
    /// Whether the classifier is one linear map.
    pub linear_classifier: bool,
    /// What the classifier has otherwise than the encoder.
    pub classifier_parameters: ClassifierParameters,
    /// Weight of the classification loss.
    pub classification_ratio: f64,
    /// How many labelled cells of each label an epoch trains on at most.
    pub n_samples_per_label: Option<usize>,
}

/// What the classifier has otherwise than the encoder.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifierParameters {
    /// Hidden layers.
    pub n_layers: Option<usize>,
    /// Units of hidden layers.
    pub n_hidden: Option<usize>,
    /// Dropout rate.
    pub dropout_rate: Option<f64>,
    /// Whether it yields logits; probabilities otherwise, as before scvi-tools 1.1.
    pub logits: bool,
}

impl Default for LabelOptions {
    fn default() -> Self {
        Self {
            unlabeled_category: "Unknown".to_owned(),
            linear_classifier: false,
            classifier_parameters: ClassifierParameters::default(),
            classification_ratio: 50.0,
            n_samples_per_label: None,
        }
    }
}

impl Default for ClassifierParameters {
    fn default() -> Self {
        Self { n_layers: None, n_hidden: None, dropout_rate: None, logits: true }
    }
}

impl ScanviConfig {
    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`] naming the option
    pub fn parse(options: &Config) -> Result<Self> {
        let names = to_options(&LabelOptions::default());
        let (own, scvi): (Config, Config) =
            options.clone().into_iter().partition(|(name, _)| names.contains_key(name.as_str()));
        let config = Self { scvi: parse_options(MODEL, &scvi)?, own: parse_options(MODEL, &own)? };
        config.checked()
    }

    /// All options by name, defaults included.
    pub fn to_options(&self) -> Config {
        let mut options = self.scvi.to_options();
        options.extend(to_options(&self.own));
        options
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

    fn checked(self) -> Result<Self> {
        let refuse = |detail: String| Err(Error::Config { model: MODEL, detail });
        self.scvi.clone().checked(MODEL)?;
        self.classifier().checked(MODEL)?;
        if self.scvi.dispersion == Dispersion::GeneLabel {
            return refuse("`dispersion` is gene-label, which cells without a label do not have".to_owned());
        }
        let ratio = self.own.classification_ratio;
        if !(ratio.is_finite() && ratio >= 0.0) {
            return refuse(format!("`classification_ratio` is {ratio}, expected a finite number of at least 0"));
        }
        if self.own.n_samples_per_label == Some(0) {
            return refuse("`n_samples_per_label` is 0, expected at least 1 or nothing".to_owned());
        }
        Ok(self)
    }
}

/// The options it has beyond those of scVI, for people.
pub(super) const OPTIONS: &[OptionCard] = &[
    OptionCard { name: "unlabeled_category", help: "the category that stands for cells without a label" },
    OptionCard { name: "linear_classifier", help: "whether the classifier is one linear map" },
    OptionCard {
        name: "classifier_parameters",
        help: "what the classifier has otherwise than the encoder, as JSON: n_layers, n_hidden, dropout_rate, logits",
    },
    OptionCard { name: "classification_ratio", help: "weight of the classification loss" },
    OptionCard {
        name: "n_samples_per_label",
        help: "labelled cells of each label that an epoch trains on at most; null trains on all",
    },
];

/// Name in errors.
const MODEL: &str = "scanvi";

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
        assert_eq!(ScanviConfig::parse(&config.to_options()).unwrap(), config);
        let config = check("classifier_parameters", json!({ "n_hidden": 7, "logits": false })).unwrap();
        assert_eq!((config.scvi.n_hidden, config.classifier().n_hidden), (128, 7));
        assert_eq!(ScanviConfig::parse(&config.to_options()).unwrap(), config);
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
