//! Options of scGen, with upstream's names and defaults.

use crate::{
    error::Result,
    model::Config,
    options::{self, OptionCard, Options, options},
    zoo::family::{MAX_UNITS, check_layers},
};

options! {
    /// Options of scGen.
    pub struct ScgenConfig {
        /// Units of the encoder's layers; the decoder has them in reverse.
        hidden_layer_sizes: Vec<usize> = vec![128, 128], within 1..=MAX_UNITS;
        /// Dimensions of the latent space.
        z_dimension: usize = 10, within 1..=MAX_UNITS, sizes Latent;
        /// Dropout rate.
        dr_rate: f64 = 0.05, within 0.0..1.0;
        /// Whether cells are shuffled before the first of them train and the rest validate; each epoch takes them in the order of then.
        shuffle: bool = true;
    }
}

impl Options for ScgenConfig {
    fn cards() -> Vec<OptionCard> {
        Self::option_cards()
    }

    fn check_together(&self) -> std::result::Result<(), String> {
        check_layers(&self.hidden_layer_sizes)
    }
}

impl ScgenConfig {
    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`](crate::Error::Config) naming the option
    pub fn parse(given: &Config) -> Result<Self> {
        options::parse(NAME, given)
    }
}

/// Name in the zoo.
pub(super) const NAME: &str = "scgen";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(name: &str, value: serde_json::Value) -> Result<ScgenConfig> {
        ScgenConfig::parse(&Config::from([(name.to_owned(), value)]))
    }

    #[test]
    fn defaults_are_upstreams() {
        let config = ScgenConfig::parse(&Config::new()).unwrap();
        assert_eq!((config.hidden_layer_sizes, config.z_dimension, config.dr_rate), (vec![128, 128], 10, 0.05));
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (name, value) in [
            ("hidden_layer_sizes", json!([])),
            ("z_dimension", json!(0)),
            ("dr_rate", json!(1.0)),
            ("use_mmd", json!(true)),
        ] {
            assert!(check(name, value).unwrap_err().to_string().contains(name), "{name}");
        }
    }
}
