//! Options of mvTCR, with upstream's names, and as defaults the tutorial's values.

use serde::{Deserialize, Serialize};

use super::mlp::MlpActivation;
use crate::{
    data::Chain,
    error::Result,
    model::Config,
    options::{self, Choice, OptionCard, Options, options},
    zoo::family::MAX_UNITS,
};

options! {
    /// Options of mvTCR.
    pub struct MvtcrConfig {
        /// What is put together, and how: rna or tcr alone, both concatenated, or a mixture or a product of experts.
        variant: Variant = Variant::Moe;
        /// Chains of the receptor: both, of which every cell has to have each, or beta alone.
        chains: Chains = Chains::Both;
        /// Amino acids of a chain that the model looks at; those of the reference's longest sequence with none.
        max_tcr_length: Option<usize> = None, within 2..=256;
        /// Weights of the expression's, the receptor's and the divergence's loss; of poe a fourth one draws expression to the joint state.
        loss_weights: Vec<f64> = vec![1.0, 0.01618, 1.011e-10], within 0.0..;
        /// Whether of receptors only what is decoded from expression counts, as in moe upstream where `beta_only` is written as false.
        tcr_from_rna_only: bool = false;
        /// Whether the network hears of the condition.
        conditional: bool = true;
        /// Whether numbers that are learnt stand for a condition; else a column of first layers does.
        use_embedding_for_cond: bool = true;
        /// Numbers that stand for a condition.
        c_embedding_dim: usize = 20, within 1..=MAX_UNITS;
        /// Activation of the layers between encoders and the latent space.
        activation: MlpActivation = MlpActivation::Leakyrelu;
        /// Whether these layers have batch norm; the last one of a decoder always does.
        batch_norm: bool = true;
        /// Dropout rate of these layers.
        dropout: f64 = 0.05, within 0.0..1.0;
        /// Units that expression, and the chains together, are encoded to.
        hdim: usize = 100, within 2..=MAX_UNITS;
        /// Units of the layers between encoders and the latent space.
        shared_hidden: Vec<usize> = vec![100, 100], within 1..=MAX_UNITS;
        /// Dimensions of the latent space.
        zdim: usize = 50, within 1..=MAX_UNITS, sizes Latent;
        /// Units of the layers that encode expression.
        gene_hidden: Vec<usize> = vec![500, 500, 500], within 1..=MAX_UNITS;
        /// Activation of these layers.
        gene_activation: MlpActivation = MlpActivation::Leakyrelu;
        /// Whether these layers have batch norm; the last one of the encoder always does.
        gene_batch_norm: bool = true;
        /// Dropout rate of these layers.
        gene_dropout: f64 = 0.05, within 0.0..1.0;
        /// Numbers that stand for an amino acid.
        embedding_size: usize = 64, within 2..=1024;
        /// Heads of attention.
        num_heads: usize = 4, within 1..=64;
        /// Units between the two maps of a transformer's layer, as a multiple of its width.
        forward_expansion: usize = 4, within 1..=64;
        /// Layers of each chain's encoder.
        encoding_layers: usize = 1, within 1..=16;
        /// Layers of each chain's decoder.
        decoding_layers: usize = 1, within 1..=16;
        /// Dropout rate of encoders and decoders of chains.
        tcr_dropout: f64 = 0.25, within 0.0..1.0;
        /// Whether clonotypes are balanced in training: a cell of a large clone is drawn less often.
        balanced_sampling: bool = true;
        /// What the state that training ends with is best by: the loss or the pseudo-metric of the validation cells, the labels of their
        /// nearest training cells, or how well the answer of each label's cells to a perturbation is predicted by another's.
        selected_by: Criterion = Criterion::Reconstruction;
        /// Weights of clonotype and of labels in the pseudo-metric.
        pseudo_metric_weights: Vec<f64> = vec![1.0, 10.0], within 0.0..;
        /// Name of the cells before the perturbation, in the field `perturbation`.
        unperturbed: Option<String> = None;
        /// Genes that predictions are compared by: those that the perturbation changes most.
        n_perturbed_genes: usize = 100, within 2.., sizes Nothing;
    }
}

/// What is put together, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Expression alone.
    Rna,
    /// The receptor alone.
    Tcr,
    /// Both, one behind the other.
    Concat,
    /// A mixture of experts.
    Moe,
    /// A product of experts.
    Poe,
}

/// Chains of the receptor that the model takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chains {
    /// Alpha and beta.
    Both,
    /// Beta.
    Beta,
}

/// By what the best state is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// The loss.
    Reconstruction,
    /// Whether nearest cells are of the same clonotype and labels.
    PseudoMetric,
    /// Whether nearest training cells have the same labels.
    KnnPrediction,
    /// Whether expression after a perturbation is predicted for labels that were only seen before.
    ModulationPrediction,
}

impl Choice for Variant {}
impl Choice for Chains {}
impl Choice for Criterion {}

impl Variant {
    /// Whether it takes the receptor.
    pub fn has_tcr(self) -> bool {
        self != Self::Rna
    }

    /// Whether it takes expression.
    pub fn has_rna(self) -> bool {
        self != Self::Tcr
    }

    /// Whether each modality has a latent state of its own.
    pub fn has_experts(self) -> bool {
        matches!(self, Self::Moe | Self::Poe)
    }
}

impl Chains {
    /// The chains, in order.
    pub fn list(self) -> Vec<Chain> {
        match self {
            Self::Both => vec![Chain::Alpha, Chain::Beta],
            Self::Beta => vec![Chain::Beta],
        }
    }
}

impl Options for MvtcrConfig {
    fn cards() -> Vec<OptionCard> {
        Self::option_cards()
    }

    fn check_together(&self) -> std::result::Result<(), String> {
        let n_weights = if self.variant == Variant::Poe { 3..=4 } else { 3..=3 };
        if !n_weights.contains(&self.loss_weights.len()) {
            let found = self.loss_weights.len();
            return Err(format!("`loss_weights` has {found} items, expected three; poe takes a fourth one"));
        }
        if self.pseudo_metric_weights.len() != 2 {
            return Err("`pseudo_metric_weights` are two: of clonotype and of labels".to_owned());
        }
        if !self.embedding_size.is_multiple_of(self.num_heads) {
            let (size, heads) = (self.embedding_size, self.num_heads);
            return Err(format!("`embedding_size` is {size}, expected a multiple of `num_heads`, {heads}"));
        }
        if self.chains == Chains::Both && !self.hdim.is_multiple_of(2) {
            return Err(format!("`hdim` is {}, expected an even number: two chains share it", self.hdim));
        }
        if self.selected_by == Criterion::ModulationPrediction {
            if self.unperturbed.is_none() {
                return Err("`selected_by` is modulation-prediction, which asks for `unperturbed`: the name of cells before the \
                            perturbation"
                    .to_owned());
            }
            if !self.variant.has_rna() {
                return Err(
                    "`selected_by` is modulation-prediction, which compares expression: tcr has none".to_owned()
                );
            }
        }
        if self.tcr_from_rna_only && self.variant != Variant::Moe {
            return Err("`tcr_from_rna_only` is for moe".to_owned());
        }
        if self.shared_hidden.is_empty() || self.gene_hidden.is_empty() {
            return Err("`shared_hidden` and `gene_hidden` have at least one layer".to_owned());
        }
        Ok(())
    }
}

impl MvtcrConfig {
    /// Reads options by name and checks them.
    ///
    /// # Errors  [`Error::Config`](crate::Error::Config) naming the option
    pub fn parse(given: &Config) -> Result<Self> {
        options::parse(NAME, given)
    }

    /// Weight of the expression's loss.
    pub fn rna_weight(&self) -> f64 {
        self.loss_weights[0]
    }

    /// Weight of the receptor's loss.
    pub fn tcr_weight(&self) -> f64 {
        self.loss_weights[1]
    }

    /// Weight of the divergence.
    pub fn kl_weight(&self) -> f64 {
        self.loss_weights[2]
    }
}

/// Name in the zoo.
pub(super) const NAME: &str = "mvtcr";
