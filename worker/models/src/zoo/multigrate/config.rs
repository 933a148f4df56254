//! Options of Multigrate, with upstream's names and defaults.

use archipelago_common::Name;
use serde::{Deserialize, Serialize};

use crate::{
    data::Values,
    error::Result,
    model::Config,
    nn::{Activation, Init, LEAKY_SLOPE, StackOptions},
    options::{self, Choice, OptionCard, Options, options},
    zoo::family::{MAX_UNITS, keys},
};

options! {
    /// Options of Multigrate. A list that is one for each modality may also hold one for all.
    pub struct MultigrateConfig {
        /// Modalities beside gene expression, in order; each is a field of this name.
        modalities: Vec<Name> = vec![];
        /// Reconstruction loss of each modality: nb or zinb on counts, mse on any values, bce on shares.
        losses: Vec<ModalityLoss> = vec![ModalityLoss::Mse];
        /// Dimensions of the latent space.
        z_dim: usize = 16, within 1..=MAX_UNITS, sizes Latent;
        /// Numbers that stand for a category.
        cond_dim: usize = 16, within 1..=MAX_UNITS;
        /// Condition keys, where there are several: categorical covariates, in order, each with embeddings. Without any the batch has some.
        condition_keys: Vec<Name> = vec![];
        /// Condition keys whose names mean the same at every site.
        common_condition_keys: Vec<Name> = vec![];
        /// The condition key whose groups are pulled together and have dispersions of their own.
        integrate_on: Option<Name> = None;
        /// Whether encoders hear of covariates.
        condition_encoders: bool = true;
        /// Whether decoders hear of covariates.
        condition_decoders: bool = true;
        /// Norm of every layer.
        normalization: Normalization = Normalization::Layer;
        /// Activation of every layer.
        activation: MultigrateActivation = MultigrateActivation::LeakyRelu;
        /// How weights of linear maps start: by xavier, which suits leaky_relu, by kaiming, which suits tanh, or as in PyTorch with none.
        initialization: Option<Initialization> = None;
        /// Dropout rate.
        dropout: f64 = 0.2, within 0.0..1.0;
        /// Layers of each modality's encoder.
        n_layers_encoders: Vec<usize> = vec![2], within 0..=64;
        /// Layers of each modality's decoder.
        n_layers_decoders: Vec<usize> = vec![2], within 0..=64;
        /// Units of each modality's encoder layers.
        n_hidden_encoders: Vec<usize> = vec![128], within 1..=MAX_UNITS;
        /// Units of each modality's decoder layers.
        n_hidden_decoders: Vec<usize> = vec![128], within 1..=MAX_UNITS;
        /// What a continuous covariate becomes before it is embedded.
        cont_cov_type: Curve = Curve::Sigm;
        /// Layers of the network that a continuous covariate goes through, for mlp.
        n_layers_cont_embed: usize = 1, within 1..=64;
        /// Units of that network's layers.
        n_hidden_cont_embed: usize = 32, within 1..=MAX_UNITS;
        /// How the modalities of a cell are mixed: a product or a mixture of experts.
        mix: Mix = Mix::Product;
        /// What pulls groups, or modalities, together.
        modality_alignment: Option<Alignment> = None;
        /// What is pulled together: joint latent states by group, those of each modality, or both.
        alignment_type: Aligned = Aligned::Latent;
        /// Kernel of the maximum mean discrepancy; without it, first and second moments.
        kernel_type: KernelType = KernelType::Gaussian;
        /// Weight of the reconstruction loss.
        recon_coef: f64 = 1.0, within 0.0..;
        /// Weight of the divergence of latent states.
        kl_coef: f64 = 1e-5, within 0.0..;
        /// Weight of what pulls together; 1 where there is a covariate to integrate on, else 0.
        integ_coef: Option<f64> = None, within 0.0..;
        /// Weight of each modality in the reconstruction loss.
        modality_coefs: Vec<f64> = vec![1.0], within 0.0..;
        /// Whose release is followed where they differ: current, or legacy for 0.0.2.
        release: Release = Release::Current;
    }
}

/// Reconstruction loss of a modality.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModalityLoss {
    /// Squared difference.
    Mse,
    /// Negative binomial.
    Nb,
    /// Zero-inflated negative binomial.
    Zinb,
    /// Binary cross entropy.
    Bce,
}

/// Norm of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalization {
    /// Layer norm.
    Layer,
    /// Batch norm.
    Batch,
    /// None.
    None,
}

/// Activation of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MultigrateActivation {
    /// Leaky ReLU.
    LeakyRelu,
    /// Hyperbolic tangent.
    Tanh,
}

/// How weights of linear maps start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initialization {
    /// Uniform, by inputs and outputs and the gain of the activation (Glorot, Bengio 2010).
    Xavier,
    /// Normal, by inputs and the gain of ReLU whatever the activation (He et al. 2015).
    Kaiming,
}

/// What a continuous covariate becomes before it is embedded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Curve {
    /// A sigmoid of it.
    Sigm,
    /// A sigmoid of the logarithm of it and 1.
    Logsigm,
    /// What a small network makes of it, between 0 and 1.
    Mlp,
    /// Itself.
    None,
}

/// How the modalities of a cell are mixed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mix {
    /// Product of experts, the prior among them.
    Product,
    /// Mean of the experts.
    Mixture,
}

/// What pulls together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Alignment {
    /// Maximum mean discrepancy.
    #[serde(rename = "MMD")]
    Mmd,
    /// Jeffreys' divergence of posteriors, row by row.
    Jeffreys,
}

/// What is pulled together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aligned {
    /// Joint latent states of groups.
    Latent,
    /// Latent states of modalities, and of groups in each.
    Marginal,
    /// Both.
    Both,
}

/// Kernel of the maximum mean discrepancy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KernelType {
    /// A sum of Gaussians.
    #[serde(rename = "gaussian")]
    Gaussian,
    /// Means and covariances.
    #[serde(rename = "not gaussian")]
    Moments,
}

/// Releases of Multigrate that differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// 1.0.1.
    Current,
    /// 0.0.2, of late 2022.
    Legacy,
}

impl Choice for Release {}
impl Choice for ModalityLoss {}
impl Choice for Normalization {}
impl Choice for MultigrateActivation {}
impl Choice for Initialization {}
impl Choice for Curve {}
impl Choice for Mix {}
impl Choice for Alignment {}
impl Choice for Aligned {}
impl Choice for KernelType {}

impl ModalityLoss {
    /// Whether it is a likelihood of counts.
    pub fn is_of_counts(self) -> bool {
        matches!(self, Self::Nb | Self::Zinb)
    }

    /// What the values of its modality are.
    pub fn values(self) -> Values {
        match self {
            Self::Nb | Self::Zinb => Values::Counts,
            Self::Mse => Values::Finite,
            Self::Bce => Values::Shares,
        }
    }
}

impl Initialization {
    /// Of a map with this weight, `[n_out, n_in]`.
    pub(super) fn init(self, activation: MultigrateActivation, (n_out, n_in): (i64, i64)) -> Init {
        match self {
            Self::Xavier => {
                let squared_gain = match activation {
                    MultigrateActivation::LeakyRelu => 2.0 / (1.0 + LEAKY_SLOPE * LEAKY_SLOPE),
                    MultigrateActivation::Tanh => (5.0_f64 / 3.0).powi(2),
                };
                let bound = (squared_gain * 6.0 / (n_in + n_out) as f64).sqrt();
                Init::Uniform(-bound, bound)
            }
            Self::Kaiming => Init::NormalWithin((2.0 / n_in as f64).sqrt()),
        }
    }
}

impl Aligned {
    pub(super) fn joint(self) -> bool {
        matches!(self, Self::Latent | Self::Both)
    }

    pub(super) fn marginal(self) -> bool {
        matches!(self, Self::Marginal | Self::Both)
    }
}

impl Options for MultigrateConfig {
    fn cards() -> Vec<OptionCard> {
        Self::option_cards()
    }

    fn check_together(&self) -> std::result::Result<(), String> {
        let n = self.n_modalities();
        if self.modalities.iter().any(|name| name.as_str() == crate::data::RNA) {
            return Err("`modalities` names rna, which is always the first one".to_owned());
        }
        if n > super::MAX_MODALITIES {
            return Err(format!(
                "`modalities` makes {n} with gene expression, at most {} are told apart",
                super::MAX_MODALITIES
            ));
        }
        for (option, found) in [
            ("losses", self.losses.len()),
            ("n_layers_encoders", self.n_layers_encoders.len()),
            ("n_layers_decoders", self.n_layers_decoders.len()),
            ("n_hidden_encoders", self.n_hidden_encoders.len()),
            ("n_hidden_decoders", self.n_hidden_decoders.len()),
            ("modality_coefs", self.modality_coefs.len()),
        ] {
            if found != 1 && found != n {
                return Err(format!("`{option}` has {found} items, expected one, or one for each of {n} modalities"));
            }
        }
        keys::check(&self.condition_keys, &self.common_condition_keys, "common_condition_keys")?;
        let Some(key) = &self.integrate_on else { return Ok(()) };
        if !self.condition_keys.contains(key) {
            return Err(format!("`integrate_on` is {key}, which is not among `condition_keys`"));
        }
        if self.integ_coef == Some(0.0) {
            return Err(format!("`integ_coef` is 0, which leaves nothing to integrate on {key} with"));
        }
        Ok(())
    }
}

impl MultigrateConfig {
    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`](crate::Error::Config) naming the option
    pub fn parse(given: &Config) -> Result<Self> {
        options::parse(NAME, given)
    }

    /// How many modalities there are, gene expression among them.
    pub fn n_modalities(&self) -> usize {
        self.modalities.len() + 1
    }

    /// Reconstruction loss of a modality.
    pub fn loss(&self, modality: usize) -> ModalityLoss {
        of(&self.losses, modality)
    }

    /// Weight of a modality in the reconstruction loss.
    pub fn modality_coef(&self, modality: usize) -> f64 {
        of(&self.modality_coefs, modality)
    }

    /// Weight of what pulls together.
    pub fn integ(&self) -> f64 {
        self.integ_coef.unwrap_or(if self.integrate_on.is_some() { 1.0 } else { 0.0 })
    }

    /// Whether the loss has a term that pulls groups, or modalities, together.
    pub fn pulls_together(&self) -> bool {
        self.modality_alignment.is_some() && self.integ() > 0.0
    }

    /// Where the covariate to integrate on stands among the covariates.
    pub fn integrates_on(&self) -> Option<usize> {
        let key = self.integrate_on.as_ref()?;
        self.condition_keys.iter().position(|other| other == key)
    }

    /// Layers of a modality's encoder.
    pub(super) fn encoder(&self, modality: usize) -> StackOptions {
        let sizes = (of(&self.n_layers_encoders, modality), of(&self.n_hidden_encoders, modality));
        self.stack(sizes, self.z_dim)
    }

    /// Layers of a modality's decoder.
    pub(super) fn decoder(&self, modality: usize) -> StackOptions {
        let n_hidden = of(&self.n_hidden_decoders, modality);
        self.stack((of(&self.n_layers_decoders, modality), n_hidden), n_hidden)
    }

    /// A stack of these layers and units: no layer is one layer.
    pub(super) fn stack(&self, (n_layers, n_hidden): (usize, usize), n_out: usize) -> StackOptions {
        StackOptions {
            n_layers: n_layers.max(1),
            n_hidden,
            n_out,
            covariates: crate::nn::CovariateSizes::none(),
            inject: false,
            dropout: self.dropout,
            batch_norm: self.normalization == Normalization::Batch,
            batch_norm_offsets: false,
            layer_norm: self.normalization == Normalization::Layer,
            activation: match self.activation {
                MultigrateActivation::LeakyRelu => Activation::LeakyRelu,
                MultigrateActivation::Tanh => Activation::Tanh,
            },
        }
    }
}

/// The item of a modality in a list of one for each, or of one for all.
fn of<T: Copy>(items: &[T], modality: usize) -> T {
    if items.len() == 1 { items[0] } else { items[modality] }
}

/// Name in the zoo.
pub(super) const NAME: &str = "multigrate";
