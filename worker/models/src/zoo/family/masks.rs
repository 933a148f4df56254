//! scvi-tools' surgery: which tensors train, which are masked and which are frozen, told by their upstream names alone.

use tch::Tensor;

use crate::{
    nn::{LayerRules, Mode, Weights},
    surgery::upstream::{Flags, UpstreamRules},
    train::GradientUse,
    upstream::{Layout, Part, PartKind},
};

/// The rules that these flags of `load_query_data` make.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Masks(pub Flags);

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

impl Masks {
    /// What happens to the tensor of this upstream name, in a layer that takes covariates or does not.
    ///
    /// Upstream decides by names alone. One consequence, reproduced here: the name of a batch norm inside a classifier
    /// contains `.0.`, so it trains although the classifier is meant to be frozen.
    pub fn outcome(&self, name: &str, takes: Takes) -> Outcome {
        if self.0.unfrozen {
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
            && ((linear.stack.contains("encoder") && !self.0.freeze_expression)
                || (linear.stack.contains("px_decoder") && !self.0.freeze_decoder_first_layer));
        match (linear.part, takes) {
            _ if is_released => Outcome::Trained,
            ("weight", Takes::Covariates) => Outcome::CovariateColumns,
            _ => Outcome::Masked,
        }
    }

    /// Top modules that no other rule touches.
    fn is_exempt(&self, name: &str) -> bool {
        let top = name.split('.').next().unwrap_or_default();
        top == "l_encoder" || (top == "classifier" && !self.0.freeze_classifier)
    }

    fn is_enabled(&self, name: &str) -> bool {
        let top = name.split('.').next().unwrap_or_default();
        let in_stack = name.contains("fc_layers");
        let is_linear = in_stack && name.contains(".0.") && !matches!(top, "encoder_z2_z1" | "decoder_z1_z2");
        let is_norm = in_stack && name.contains(".1.");
        is_linear
            || (is_norm && name.contains("encoder") && !self.0.freeze_batchnorm_encoder)
            || (is_norm && name.contains("decoder") && !self.0.freeze_batchnorm_decoder)
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
}

impl UpstreamRules for Masks {
    fn trainable(&self, weights: &Weights) -> Vec<(String, Tensor, GradientUse)> {
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

    /// `load_query_data` leaves a module in evaluation mode, and Lightning's `fit` has left that as it is since its version 2.2.
    fn mode(&self) -> Mode {
        if self.0.train_mode { Mode::Training } else { Mode::Evaluation }
    }
}

/// Whether an upstream tensor has covariate columns beside its data columns.
pub fn takes(parts: &[Part]) -> Takes {
    if parts.len() > 1 { Takes::Covariates } else { Takes::DataOnly }
}

impl LayerRules for Masks {
    fn momentum(&self, layer: &str) -> f64 {
        let is_frozen = (layer.contains("encoder") && self.0.freeze_batchnorm_encoder)
            || (layer.contains("decoder") && self.0.freeze_batchnorm_decoder);
        if is_frozen && !self.0.unfrozen && !self.is_exempt(layer) { 0.0 } else { 0.01 }
    }

    fn dropout(&self, layer: &str, rate: f64) -> f64 {
        if self.0.freeze_dropout && !self.0.unfrozen && !self.is_exempt(layer) { 0.0 } else { rate }
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
