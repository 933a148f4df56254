//! Options of trVAE, with upstream's names and defaults.

use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    model::Config,
    options::{self, Choice, OptionCard, Options, options},
    zoo::family::{BlockOptions, Hears, MAX_UNITS, Norm, ReconLoss, check_layers},
};

options! {
    /// Options of trVAE.
    pub struct TrvaeConfig {
        /// Units of the encoder's layers; the decoder has them in reverse.
        hidden_layer_sizes: Vec<usize> = vec![256, 64], within 1..=MAX_UNITS;
        /// Dimensions of the latent space.
        latent_dim: usize = 10, within 1..=MAX_UNITS, sizes Latent;
        /// Dropout rate.
        dr_rate: f64 = 0.05, within 0.0..1.0;
        /// Whether conditions are pulled together (maximum mean discrepancy).
        use_mmd: bool = true;
        /// What is pulled together: drawn latent states (z), or what the decoder's first block gives (y).
        mmd_on: MmdOn = MmdOn::Z;
        /// Pull only conditions before this one, counted in name order, to those from it on.
        mmd_boundary: Option<usize> = None, sizes Nothing;
        /// Reconstruction loss: nb or zinb on counts, mse on normalised log values.
        recon_loss: ReconLoss = ReconLoss::Nb, among ["mse", "nb", "zinb"];
        /// Weight of what pulls conditions together: larger mixes more and may remove biology.
        beta: f64 = 1.0, within 0.0..;
        /// Batch norm; it wins over layer norm.
        use_bn: bool = false;
        /// Layer norm.
        use_ln: bool = true;
    }
}

impl Options for TrvaeConfig {
    fn cards() -> Vec<OptionCard> {
        Self::option_cards()
    }

    fn check_together(&self) -> std::result::Result<(), String> {
        check_layers(&self.hidden_layer_sizes)
    }
}

impl Choice for MmdOn {}

/// What the discrepancy between conditions is computed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MmdOn {
    /// The drawn latent states.
    Z,
    /// What the decoder's first block gives.
    Y,
}

impl TrvaeConfig {
    /// The published tutorial's: two layers of 128 units.
    pub fn for_surgery() -> Self {
        Self { hidden_layer_sizes: vec![128, 128], ..Self::default() }
    }

    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`](crate::Error::Config) naming the option
    pub fn parse(given: &Config) -> Result<Self> {
        options::parse(NAME, given)
    }

    /// What blocks are made of.
    pub fn blocks(&self) -> BlockOptions {
        let norm = match (self.use_bn, self.use_ln) {
            (true, _) => Norm::Batch,
            (false, true) => Norm::Layer,
            (false, false) => Norm::None,
        };
        BlockOptions { norm, dropout: self.dr_rate, hears: Hears::Columns }
    }
}

/// Name in the zoo.
pub(super) const NAME: &str = "trvae";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: serde_json::Value) -> Result<TrvaeConfig> {
        TrvaeConfig::parse(&Config::from([(name.to_owned(), value)]))
    }

    #[test]
    fn defaults_are_upstreams_and_written_out() {
        let options = options::to_config(&TrvaeConfig::parse(&Config::new()).unwrap());
        assert_eq!(options["hidden_layer_sizes"], serde_json::json!([256, 64]));
        assert_eq!(options["recon_loss"], "nb");
        assert_eq!(TrvaeConfig::parse(&options).unwrap(), TrvaeConfig::default());
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (name, value) in [
            ("hidden_layer_sizes", serde_json::json!([])),
            ("hidden_layer_sizes", serde_json::json!([8, 0])),
            ("latent_dim", serde_json::json!(0)),
            ("dr_rate", serde_json::json!(1.0)),
            ("beta", serde_json::json!(-1.0)),
        ] {
            assert!(check(name, value).unwrap_err().to_string().contains(name), "{name}");
        }
        assert!(check("recon_loss", "poisson".into()).unwrap_err().to_string().contains("poisson"));
    }

    #[test]
    fn batch_norm_wins() {
        assert_eq!(check("use_bn", true.into()).unwrap().blocks().norm, Norm::Batch);
        assert_eq!(check("use_ln", false.into()).unwrap().blocks().norm, Norm::None);
    }
}
