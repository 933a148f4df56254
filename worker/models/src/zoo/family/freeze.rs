//! scArches' surgery: which tensors of a native model train, told by their upstream names alone.

use tch::Tensor;

use crate::{
    nn::{LayerRules, Weights},
    surgery::upstream::{Flags, UpstreamRules},
    train::GradientUse,
    upstream::Layout,
};

/// The flags of `load_query_data`, with upstream's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freeze {
    /// Whether anything is frozen at all.
    pub freeze: bool,
    /// Whether first layers keep what is not a condition's.
    pub freeze_expression: bool,
    /// Whether dropout is off.
    pub remove_dropout: bool,
    /// How conditions enter, which says what of them trains.
    pub conditions: OfConditions,
}

/// What conditions own of a model, which trains with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OfConditions {
    /// Columns of first layers; the layers' other weights can be trained with them.
    #[default]
    Columns,
    /// Rows of embeddings. Nothing else trains, whatever is asked for.
    Embeddings,
}

impl Default for Freeze {
    fn default() -> Self {
        Self { freeze: true, freeze_expression: true, remove_dropout: true, conditions: OfConditions::Columns }
    }
}

impl From<&Flags> for Freeze {
    /// What of all flags scArches' models know.
    fn from(flags: &Flags) -> Self {
        let Flags { unfrozen, freeze_expression, remove_dropout, .. } = *flags;
        Self { freeze: !unfrozen, freeze_expression, remove_dropout, ..Self::default() }
    }
}

impl Freeze {
    /// Whether the tensor of this upstream name trains. All of it does, columns of earlier conditions too: without cells of theirs their
    /// gradient is zero, and weight decay moves them all the same.
    pub fn trains(&self, upstream: &str) -> bool {
        if !self.freeze || upstream.contains("theta") {
            return true;
        }
        match self.conditions {
            OfConditions::Embeddings => upstream.contains("embeddings"),
            OfConditions::Columns if self.freeze_expression => upstream.contains("cond_L.weight"),
            OfConditions::Columns => upstream.contains("L0") || upstream.contains("N0"),
        }
    }
}

impl Freeze {
    /// The tensors whose upstream names are among those that train, with their gradients switched on; all others off.
    pub fn those(weights: &Weights, trains: impl Fn(&str) -> bool) -> Vec<(String, Tensor, GradientUse)> {
        let mut owned = Vec::new();
        for (upstream, parts) in Layout::of(weights).iter() {
            for part in parts {
                let (tensor, role) = weights.require(&part.name);
                let trains = role.is_trainable() && trains(upstream);
                let tensor = tensor.set_requires_grad(trains);
                owned.extend(trains.then(|| (part.name.clone(), tensor, GradientUse::Applied)));
            }
        }
        owned
    }
}

impl UpstreamRules for Freeze {
    fn trainable(&self, weights: &Weights) -> Vec<(String, Tensor, GradientUse)> {
        Self::those(weights, |upstream| self.trains(upstream))
    }
}

impl LayerRules for Freeze {
    /// A batch norm whose weight is frozen takes the statistics of the minibatch in training, and keeps those it has.
    fn keeps_statistics(&self, layer: &str) -> bool {
        !self.trains(&format!("{layer}.weight"))
    }

    fn dropout(&self, _layer: &str, rate: f64) -> f64 {
        if self.remove_dropout { 0.0 } else { rate }
    }
}

/// Upstream's surgery of a model that freezes everything but tensors of its own choice: no flag tells more than whether it does.
#[derive(Clone, Copy, Debug)]
pub struct Frozen {
    /// Whether everything trains instead, as in a new model.
    pub unfrozen: bool,
    /// Whether the tensor of this upstream name trains all the same.
    pub trains: fn(&Weights, &str) -> bool,
}

impl LayerRules for Frozen {}

impl UpstreamRules for Frozen {
    fn trainable(&self, weights: &Weights) -> Vec<(String, Tensor, GradientUse)> {
        Freeze::those(weights, |upstream| self.unfrozen || (self.trains)(weights, upstream))
    }
}
