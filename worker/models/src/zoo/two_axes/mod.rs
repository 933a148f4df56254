//! For tests: the smallest model of cells with several condition keys. It reconstructs expression from two numbers, which a donor
//! and a tissue move, and from what donor and tissue add to each gene together. [`tests`] say what holds of every such model.

use archipelago_common::Name;
use tch::{Kind, Tensor};

use crate::{
    data::{Field, Minibatch, Registry, Values},
    error::Result,
    losses::LossTerms,
    model::{Config, Configured, Embedder, Model, ModelCard, Module},
    nn::{Builder, Init, Levels, Pass, Posterior, Role, Weights},
    options::{self, OptionCard, Options, options},
    surgery::upstream::{Flags, UpstreamRules},
    train::{AdamOptions, Epochs, TrainDefaults, WarmupDefault},
    zoo::family::{keys, masks::Masks},
};

/// The model.
pub(crate) struct TwoAxes;

options! {
    /// Its options.
    pub(crate) struct TwoAxesConfig {
        /// The condition keys.
        condition_keys: Vec<Name> = vec![];
        /// Condition keys whose names mean the same at every site.
        common_condition_keys: Vec<Name> = vec![];
    }
}

impl Options for TwoAxesConfig {
    fn cards() -> Vec<OptionCard> {
        Self::option_cards()
    }

    fn check_together(&self) -> std::result::Result<(), String> {
        keys::check(&self.condition_keys, &self.common_condition_keys, "common_condition_keys")
    }
}

impl Model for TwoAxes {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: NAME,
            title: "TwoAxes",
            paper: "",
            purpose: "",
            federation: "exact",
            example: "",
            training: TRAINING,
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        TwoAxesConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(options::parse::<TwoAxesConfig>(NAME, options)?))
    }

    fn upstream_rules(&self, flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        Some(Box::new(Masks(*flags)))
    }
}

impl Configured for TwoAxesConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn fields(&self) -> Vec<Field> {
        let axes = keys::axes(&self.condition_keys, &self.common_condition_keys);
        [Field::rna(Values::Counts)].into_iter().chain(axes).collect()
    }

    fn moves_embedding(&self) -> bool {
        true
    }

    fn build(&self, _: &Registry, n_genes: usize, mut b: Builder<'_>) -> Result<Box<dyn Module>> {
        let map = b.tensor("map", &[n_genes, N], Role::Parameter, Init::FanIn(n_genes))?;
        let genes = b.condition_rows("genes.condition", &[n_genes], Role::Condition, Init::Normal)?;
        let axis = |(at, key)| b.levels(key, &format!("embeddings.{at}"), &[N], Role::Condition, Init::Normal);
        let axes = self.condition_keys.iter().enumerate().map(axis).collect::<Result<_>>()?;
        Ok(Box::new(TwoAxesModule { map, genes, axes, weights: b.finish() }))
    }
}

/// The network.
#[derive(Debug)]
struct TwoAxesModule {
    map: Tensor,
    genes: Tensor,
    axes: Vec<Levels>,
    weights: Weights,
}

impl TwoAxesModule {
    fn moved(&self, minibatch: &Minibatch) -> Tensor {
        let rows = self.axes.iter().zip(&minibatch.covariates.axes).map(|(axis, codes)| axis.of_cells(codes));
        rows.fold(minibatch.x.log1p().matmul(&self.map), |z, rows| z + rows)
    }
}

impl Module for TwoAxesModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, _: &mut Pass<'_>) -> LossTerms {
        let added = self.genes.index_select(0, &minibatch.covariates.condition);
        let decoded = self.moved(minibatch).matmul(&self.map.tr()) + added;
        let error = (decoded - minibatch.x.log1p()).square().sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
        let no_kl = error.zeros_like();
        LossTerms::new(error, &no_kl, None, kl_weight)
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }
}

impl Embedder for TwoAxesModule {
    fn posterior(&self, minibatch: &Minibatch, _: &mut Pass<'_>) -> Posterior {
        let mean = self.moved(minibatch);
        Posterior { var: mean.ones_like(), mean }
    }
}

/// How many numbers a cell becomes.
const N: usize = 2;
/// Its name.
pub(crate) const NAME: &str = "two-axes";

const TRAINING: TrainDefaults = TrainDefaults {
    epochs: Epochs::Fixed(5),
    adam: AdamOptions { weight_decay: 0.0, ..TrainDefaults::SCVI_TOOLS.adam },
    kl_warmup: WarmupDefault::Off,
    ..TrainDefaults::SCVI_TOOLS
};

#[cfg(test)]
mod tests;
