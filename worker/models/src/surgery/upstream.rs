//! scvi-tools' surgery, to the letter: what trains, what is masked, how tensors grow.
//!
//! It moves more than new columns (batch norm of the decoder, columns of earlier conditions), so its result is a new
//! base and cannot be merged with another site's. It is here for comparison and for those who need upstream's numbers.

use archipelago_common::StateDict;
use tch::Tensor;

use crate::{
    error::{Error, Result},
    nn::{LayerRules, Weights, from_tch, to_tch},
    train::GradientUse,
    upstream::{Layout, Part, PartKind},
};

/// What upstream's surgery does with a module's layers and tensors.
pub trait UpstreamRules: LayerRules {
    /// The tensors that upstream's optimiser would own, ours by name, with their gradients switched on; all others off.
    fn trainable(&self, weights: &Weights) -> Vec<(String, Tensor, GradientUse)>;
}

impl UpstreamRules for Flags {
    fn trainable(&self, weights: &Weights) -> Vec<(String, Tensor, GradientUse)> {
        Self::trainable(self, weights)
    }
}

/// The flags of `load_query_data`, with upstream's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags {
    /// Everything trains, as in a new model.
    pub unfrozen: bool,
    /// Dropout off.
    pub freeze_dropout: bool,
    /// The expression columns of the encoder's first layer stay.
    pub freeze_expression: bool,
    /// The latent columns of the decoder's first layer stay.
    pub freeze_decoder_first_layer: bool,
    /// Batch norm of encoders stays, though it still normalises by minibatch.
    pub freeze_batchnorm_encoder: bool,
    /// The same for decoders.
    pub freeze_batchnorm_decoder: bool,
    /// The classifier stays (but see [`Flags::outcome`]).
    pub freeze_classifier: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            unfrozen: false,
            freeze_dropout: false,
            freeze_expression: true,
            freeze_decoder_first_layer: true,
            freeze_batchnorm_encoder: true,
            freeze_batchnorm_decoder: false,
            freeze_classifier: true,
        }
    }
}

/// What surgery does with an upstream tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The optimiser does not have it.
    Frozen,
    /// The optimiser has it, its gradient is zero: weight decay alone moves it.
    Masked,
    /// Only the columns of covariates get a gradient, those of earlier conditions too.
    CovariateColumns,
    /// All of it trains.
    Trained,
}

/// Whether a layer takes covariates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// It has covariate columns.
    Covariates,
    /// It has none.
    DataOnly,
}

impl Flags {
    /// What happens to the tensor of this upstream name, in a layer that takes covariates or does not.
    ///
    /// Upstream decides by names alone. One consequence, reproduced here: the name of a batch norm inside a classifier
    /// contains `.0.`, so it trains although the classifier is meant to be frozen.
    pub fn outcome(&self, name: &str, takes: Takes) -> Outcome {
        if self.unfrozen {
            return if name == "y_prior" { Outcome::Frozen } else { Outcome::Trained };
        }
        if self.is_exempt(name) || name.contains("background_pro_alpha") || name.contains("background_pro_log_beta") {
            return Outcome::Trained;
        }
        if !self.is_enabled(name) {
            return Outcome::Frozen;
        }
        let Some(linear) = LinearName::parse(name) else { return Outcome::Trained };
        let is_released = linear.is_first
            && ((linear.stack.contains("encoder") && !self.freeze_expression)
                || (linear.stack.contains("px_decoder") && !self.freeze_decoder_first_layer));
        match (linear.part, takes) {
            _ if is_released => Outcome::Trained,
            ("weight", Takes::Covariates) => Outcome::CovariateColumns,
            _ => Outcome::Masked,
        }
    }

    /// Top modules that no other rule touches.
    fn is_exempt(&self, name: &str) -> bool {
        let top = name.split('.').next().unwrap_or_default();
        top == "l_encoder" || (top == "classifier" && !self.freeze_classifier)
    }

    fn is_enabled(&self, name: &str) -> bool {
        let top = name.split('.').next().unwrap_or_default();
        let in_stack = name.contains("fc_layers");
        let is_linear = in_stack && name.contains(".0.") && !matches!(top, "encoder_z2_z1" | "decoder_z1_z2");
        let is_norm = in_stack && name.contains(".1.");
        is_linear
            || (is_norm && name.contains("encoder") && !self.freeze_batchnorm_encoder)
            || (is_norm && name.contains("decoder") && !self.freeze_batchnorm_decoder)
    }

    /// What the optimiser does with one of our tensors inside an upstream tensor; `None` keeps it out of the optimiser.
    pub fn gradient_use(&self, upstream: &str, part: &Part, takes: Takes) -> Option<GradientUse> {
        match self.outcome(upstream, takes) {
            Outcome::Frozen => None,
            Outcome::Masked => Some(GradientUse::Masked),
            Outcome::Trained => Some(GradientUse::Applied),
            Outcome::CovariateColumns if part.kind == PartKind::Expression => Some(GradientUse::Masked),
            Outcome::CovariateColumns => Some(GradientUse::Applied),
        }
    }

    /// The tensors that upstream's optimiser would own, ours by name, with their gradients switched on; all others off.
    pub fn trainable(&self, weights: &Weights) -> Vec<(String, Tensor, GradientUse)> {
        let mut owned = Vec::new();
        for (upstream, parts) in Layout::of(weights).iter() {
            let takes = takes(parts);
            for part in parts {
                let (tensor, role) = weights.require(&part.name);
                let gradient = self.gradient_use(upstream, part, takes).filter(|_| role.is_trainable());
                let tensor = tensor.set_requires_grad(gradient.is_some());
                owned.extend(gradient.map(|gradient| (part.name.clone(), tensor, gradient)));
            }
        }
        owned
    }
}

/// Whether an upstream tensor has covariate columns beside its data columns.
pub fn takes(parts: &[Part]) -> Takes {
    if parts.len() > 1 { Takes::Covariates } else { Takes::DataOnly }
}

impl LayerRules for Flags {
    fn momentum(&self, layer: &str) -> f64 {
        let is_frozen = (layer.contains("encoder") && self.freeze_batchnorm_encoder)
            || (layer.contains("decoder") && self.freeze_batchnorm_decoder);
        if is_frozen && !self.unfrozen && !self.is_exempt(layer) { 0.0 } else { 0.01 }
    }

    fn dropout(&self, layer: &str, rate: f64) -> f64 {
        if self.freeze_dropout && !self.unfrozen && !self.is_exempt(layer) { 0.0 } else { rate }
    }
}

/// A tensor of a linear map in a stack, `{stack}.fc_layers.Layer {i}.0.{part}`.
struct LinearName<'a> {
    stack: &'a str,
    is_first: bool,
    part: &'a str,
}

impl<'a> LinearName<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (stack, rest) = name.split_once(".fc_layers.Layer ")?;
        let (layer, slot) = rest.split_once('.')?;
        let part = slot.strip_prefix("0.")?;
        Some(Self { stack, is_first: layer == "0", part })
    }
}

/// Grows a reference's tensors to the sizes of fresh ones, as upstream: along each dimension that is larger, the last slices of the
/// fresh tensor are appended. With further categorical covariates this puts new columns behind the last covariate, where old columns
/// change their meaning: upstream's layout, not ours.
///
/// # Errors  [`Error::TensorShape`] where a fresh tensor is smaller or has another number of dimensions
pub fn extend(reference: &StateDict, fresh: &StateDict) -> Result<StateDict> {
    let mut grown = StateDict::new();
    for (name, fresh) in fresh.iter() {
        let tensor = match reference.get(name) {
            Some(old) if old.shape() == fresh.shape() => old.clone(),
            Some(old) => from_tch(&append(name, to_tch(name, old)?, &to_tch(name, fresh)?)?),
            None => fresh.clone(),
        };
        grown.insert(name, tensor);
    }
    Ok(grown)
}

fn append(name: &str, old: Tensor, fresh: &Tensor) -> Result<Tensor> {
    let misfit = || Error::TensorShape {
        name: name.to_owned(),
        found: format!("{:?}", old.size()),
        expected: format!("at most {:?}", fresh.size()),
    };
    if old.dim() != fresh.dim() || old.size().iter().zip(fresh.size()).any(|(&old, fresh)| old > fresh) {
        return Err(misfit());
    }
    let mut grown = old.shallow_clone();
    for dim in 0..fresh.dim() as i64 {
        let (n_old, n_fresh) = (old.size()[dim as usize], fresh.size()[dim as usize]);
        if n_fresh > n_old {
            let mut tail = fresh.narrow(dim, n_old, n_fresh - n_old);
            for later in dim + 1..fresh.dim() as i64 {
                tail = tail.narrow(later, 0, old.size()[later as usize]);
            }
            grown = Tensor::cat(&[grown, tail], dim);
        }
    }
    Ok(grown)
}
