//! Options of expiMap, with upstream's names and defaults: those of its constructor and those of its training.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    model::Config,
    options::{self, Choice, OptionCard, Options, options},
    zoo::family::{BlockOptions, Hears, MAX_UNITS, Norm, ReconLoss},
};

options! {
    /// Options of expiMap.
    pub struct ExpimapConfig {
        /// Units of the encoder's layers; the decoder has none.
        hidden_layer_sizes: Vec<usize> = vec![256, 256], within 1..=MAX_UNITS;
        /// Dropout rate.
        dr_rate: f64 = 0.05, within 0.0..1.0;
        /// Reconstruction loss: nb on counts, mse on normalised log values.
        recon_loss: ReconLoss = ReconLoss::Nb, among ["nb", "mse"];
        /// What the decoder's linear map goes through: by default softmax, whose shares are multiplied by the total count, for nb
        /// and identity for mse; any other gives expected counts as they are.
        decoder_last_layer: Option<LastLayer> = None;
        /// Whether the total count is drawn from an encoder of its own (softmax only).
        use_l_encoder: bool = false;
        /// Batch norm; it wins over layer norm.
        use_bn: bool = false;
        /// Layer norm.
        use_ln: bool = true;
        /// Genes outside a term's set may get weights, which alpha_l1 shrinks.
        soft_mask: bool = false;
        /// New terms without a gene set.
        n_ext: usize = 0, within 0..=MAX_UNITS, sizes Latent;
        /// Genes outside the set of a new term may get weights, which alpha_l1 shrinks.
        soft_ext_mask: bool = false;
        /// Keep new terms without a set independent of the others (Hilbert-Schmidt independence criterion).
        use_hsic: bool = false;
        /// Each of them of all others, instead of all together of the rest.
        hsic_one_vs_all: bool = false;
        /// Weight of that criterion.
        beta: f64 = 1.0, within 0.0..;
        /// Weight of the KL term after its warm-up.
        alpha_kl: f64 = 0.35, within 0.0..;
        /// Group lasso that switches terms off: 0.7 for 300 to 500 terms, more for more.
        alpha: Option<f64> = None, within 0.0..;
        /// Factors of alpha for single terms, as TERM=FACTOR, separated by commas.
        omega: String = String::new();
        /// Shrinks weights outside soft masks; start at 0.5 and raise it by 0.05.
        alpha_l1: Option<f64> = None, within 0.0..;
        /// Epochs over which alpha_l1 rises to its full weight.
        alpha_l1_epoch_anneal: Option<usize> = None, within 1.., sizes Nothing;
        /// Epochs from one step of that rise to the next.
        alpha_l1_anneal_each: usize = 5, within 1.., sizes Nothing;
        /// Shrinks all weights of new terms without a gene set.
        gamma_ext: Option<f64> = None, within 0.0..;
        /// Epochs over which gamma_ext rises to its full weight.
        gamma_epoch_anneal: Option<usize> = None, within 1.., sizes Nothing;
        /// Epochs from one step of that rise to the next.
        gamma_anneal_each: usize = 5, within 1.., sizes Nothing;
    }
}

impl Options for ExpimapConfig {
    fn cards() -> Vec<OptionCard> {
        Self::option_cards()
    }

    fn check_together(&self) -> std::result::Result<(), String> {
        match self.hidden_layer_sizes.len() {
            1..=MAX_LAYERS => {}
            found => return Err(format!("`hidden_layer_sizes` has {found} layers, expected 1 to {MAX_LAYERS}")),
        }
        let is_softmax = self.last_layer() == LastLayer::Softmax;
        if self.recon_loss == ReconLoss::Mse && is_softmax {
            return Err(
                "`decoder_last_layer` is softmax, which gives no log values: expected another for mse".to_owned()
            );
        }
        if self.use_l_encoder && !is_softmax {
            return Err("`use_l_encoder` is true, and only softmax takes a total count".to_owned());
        }
        self.factors().map(drop)
    }
}

impl Choice for LastLayer {}

/// What the decoder's linear map goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastLayer {
    /// Shares of the total count.
    Softmax,
    /// Nothing.
    Identity,
    /// `ln(1 + e^x)`.
    Softplus,
    /// `e^x`.
    Exp,
    /// 0 where it is below 0.
    Relu,
}

impl ExpimapConfig {
    /// The published tutorial's: three layers of 256 units, and a group lasso.
    pub fn for_surgery() -> Self {
        Self { hidden_layer_sizes: vec![256; 3], alpha: Some(0.7), alpha_kl: 0.5, ..Self::default() }
    }

    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`] naming the option
    pub fn parse(given: &Config) -> Result<Self> {
        options::parse(NAME, given)
    }

    /// What the decoder's linear map goes through.
    pub fn last_layer(&self) -> LastLayer {
        let usual = if self.recon_loss == ReconLoss::Mse { LastLayer::Identity } else { LastLayer::Softmax };
        self.decoder_last_layer.unwrap_or(usual)
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

    /// The factor of the group lasso for each of these terms; none where no term has one.
    ///
    /// # Errors  [`Error::Config`] for a term that is not there
    pub fn omega_of(&self, terms: &[String]) -> Result<Option<Vec<f64>>> {
        let refuse = |detail| Error::Config { model: NAME, detail };
        let factors = self.factors().map_err(refuse)?;
        if factors.is_empty() {
            return Ok(None);
        }
        let mut omega = vec![1.0; terms.len()];
        for (name, factor) in factors {
            let mut found = terms.iter().zip(&mut omega).filter(|(term, _)| *term == name).peekable();
            if found.peek().is_none() {
                return Err(refuse(format!("`omega` names the term `{name}`, which has no gene set")));
            }
            found.for_each(|(_, omega)| *omega = factor);
        }
        Ok(Some(omega))
    }

    fn factors(&self) -> std::result::Result<Vec<(&str, f64)>, String> {
        let one = |text| {
            let refuse = || format!("`omega` has `{text}`, expected TERM=FACTOR with a factor of 0 or more");
            let (name, factor) = str::rsplit_once(text, '=').ok_or_else(refuse)?;
            let factor: f64 = factor.trim().parse().map_err(|_| refuse())?;
            if factor.is_finite() && factor >= 0.0 { Ok((name.trim(), factor)) } else { Err(refuse()) }
        };
        self.omega.split(',').map(str::trim).filter(|text| !text.is_empty()).map(one).collect()
    }
}

/// The options that a query can be mapped with: how its new terms are trained, and how strongly the divergence counts.
pub(super) const OF_QUERY: [&str; 12] = [
    "n_ext",
    "soft_ext_mask",
    "use_hsic",
    "hsic_one_vs_all",
    "beta",
    "alpha_kl",
    "alpha_l1",
    "alpha_l1_epoch_anneal",
    "alpha_l1_anneal_each",
    "gamma_ext",
    "gamma_epoch_anneal",
    "gamma_anneal_each",
];
/// Name in the zoo.
pub(super) const NAME: &str = "expimap";
/// More layers than any published model has.
const MAX_LAYERS: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(given: &[(&str, serde_json::Value)]) -> Result<ExpimapConfig> {
        ExpimapConfig::parse(&given.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn defaults_are_upstreams_and_written_out() {
        let config = check(&[]).unwrap();
        assert_eq!((config.alpha_kl, config.alpha, config.last_layer()), (0.35, None, LastLayer::Softmax));
        assert_eq!(check(&[("recon_loss", json!("mse"))]).unwrap().last_layer(), LastLayer::Identity);
        assert_eq!(ExpimapConfig::parse(&options::to_config(&config)).unwrap(), config);
        let names: Vec<_> = ExpimapConfig::cards().iter().map(|card| card.name).collect();
        assert!(OF_QUERY.iter().all(|name| names.contains(name)));
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (name, value) in [
            ("hidden_layer_sizes", json!([])),
            ("recon_loss", json!("zinb")),
            ("alpha", json!(-1.0)),
            ("omega", json!("A")),
            ("omega", json!("A=-1")),
            ("gamma_anneal_each", json!(0)),
            ("decoder_last_layer", json!("tanh")),
        ] {
            assert!(check(&[(name, value)]).unwrap_err().to_string().contains(name), "{name}");
        }
        let mse = ("recon_loss", json!("mse"));
        assert!(check(&[mse, ("decoder_last_layer", json!("softmax"))]).is_err());
        let exp = ("decoder_last_layer", json!("exp"));
        assert!(check(&[exp, ("use_l_encoder", json!(true))]).unwrap_err().to_string().contains("use_l_encoder"));
    }

    #[test]
    fn factors_are_found_by_the_names_of_terms() {
        let terms = ["A", "B=1", "A"].map(str::to_owned);
        let omega = |text: &str| check(&[("omega", json!(text))]).unwrap().omega_of(&terms);
        assert_eq!(omega("").unwrap(), None);
        assert_eq!(omega("A=2, B=1=0.5").unwrap(), Some(vec![2.0, 0.5, 2.0]));
        assert!(omega("C=1").unwrap_err().to_string().contains("`C`"));
    }
}
