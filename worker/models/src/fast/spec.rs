//! The seam: what a module tells the kernels about itself.

use crate::{
    data::{Slot, slot::Labels},
    distributions::Likelihood,
    kernels::likelihood::Counts,
};

/// A variational autoencoder of counts: an encoder over log counts, a normal latent state, a decoder to shares of genes. Names are those
/// of the module's tensors.
#[derive(Clone, PartialEq, Debug)]
pub struct VaeSpec {
    /// Genes of the panel.
    pub n_genes: usize,
    /// Dimensions of the latent state.
    pub n_latent: usize,
    /// Layers of the encoder; the first takes the genes.
    pub encoder: Vec<LayerSpec>,
    /// Linear map to the mean of the posterior.
    pub mean: String,
    /// Linear map to the logarithm of its variance.
    pub var: String,
    /// Layers of the decoder; the first takes the latent state.
    pub decoder: Vec<LayerSpec>,
    /// Linear map to the logits of the shares.
    pub scale: String,
    /// Linear map to the logits of an extra zero, where the likelihood has them.
    pub dropout: Option<String>,
    /// Logarithm of the inverse dispersion, where the likelihood has one.
    pub log_r: Option<LogDispersionSpec>,
    /// Distribution of the counts.
    pub likelihood: Likelihood,
    /// What the encoder sees of a count.
    pub input: EncoderInput,
    /// What pulls the latent states of conditions together, if something does.
    pub discrepancy: Option<DiscrepancySpec>,
    /// What takes the place of the divergence from a standard normal, where labels shape the latent state.
    pub labels: Option<LabelSpec>,
}

/// The discrepancy between conditions' latent states, see [`crate::losses::mmd`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DiscrepancySpec {
    /// Its weight in the loss.
    pub weight: f64,
    /// See [`crate::losses::mmd::Coefficients::set`].
    pub boundary: Option<usize>,
}

/// A classifier on the latent state `z1`, and a second latent state `z2` that, with a label `y`, says where the first one is.
#[derive(Clone, PartialEq, Debug)]
pub struct LabelSpec {
    /// The labels.
    pub labels: Slot<Labels>,
    /// Layers of the classifier; none where it is linear.
    pub classifier: Vec<LayerSpec>,
    /// Linear map to a number per label.
    pub head: String,
    /// Whether the cross entropy takes these numbers for logits; else it takes their softmax for logits, as upstream does.
    pub logits: bool,
    /// Weight of the cross entropy.
    pub classification_ratio: f64,
    /// `q(z2 | z1, y)`.
    pub encoder: PosteriorSpec,
    /// `p(z1 | z2, y)`; its variance has no floor.
    pub decoder: PosteriorSpec,
    /// Probabilities of the labels before any cell is seen.
    pub prior: String,
}

/// Layers, and linear maps to the mean and the logarithm of the variance.
#[derive(Clone, PartialEq, Debug)]
pub struct PosteriorSpec {
    /// The layers.
    pub layers: Vec<LayerSpec>,
    /// To the mean.
    pub mean: String,
    /// To the logarithm of the variance.
    pub var: String,
}

/// A linear map, norms, ReLU and dropout, in this order.
#[derive(Clone, PartialEq, Debug)]
pub struct LayerSpec {
    /// The linear map; it has a bias where the module holds one.
    pub linear: String,
    /// Its columns for categories, if it has some.
    pub columns: Option<ColumnsSpec>,
    /// Units that go in.
    pub n_in: usize,
    /// Units that come out.
    pub n_out: usize,
    /// Batch norm, if there is one: its name, and what is added to the variance.
    pub batch_norm: Option<(String, f64)>,
    /// Whether layer norm follows.
    pub layer_norm: bool,
    /// Name of the dropout layer, and its rate.
    pub dropout: (String, f64),
}

/// The tensor with a row per category, and whose categories these are.
#[derive(Clone, PartialEq, Debug)]
pub enum ColumnsSpec {
    /// Conditions.
    Conditions(String),
    /// Another covariate: labels, in the networks of labels.
    Covariate(String),
    /// Conditions, each of which a vector stands for that a linear map makes columns of.
    Vectors {
        /// The map.
        map: String,
        /// The vectors, where a tensor has one for each condition.
        rows: Option<Embedded>,
    },
}

/// Vectors of conditions.
#[derive(Clone, PartialEq, Debug)]
pub struct Embedded {
    /// The tensor, with a row per condition.
    pub rows: String,
    /// Longer ones are shortened to this length.
    pub max_norm: f64,
}

/// Which tensor holds the log dispersions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogDispersionSpec {
    /// One number per gene.
    Gene(String),
    /// A row per condition.
    Condition(String),
}

/// What the encoder sees of a count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncoderInput {
    /// Its `ln(1 + x)`.
    Log1p,
    /// The count itself.
    Count,
}

/// Why a computation goes through autograd instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub &'static str);

impl VaeSpec {
    pub(super) fn counts(&self) -> Result<Counts, Unsupported> {
        match self.likelihood {
            Likelihood::Nb => Ok(Counts::NegativeBinomial),
            Likelihood::Zinb => Ok(Counts::ZeroInflated),
            Likelihood::Poisson => Ok(Counts::Poisson),
            Likelihood::Normal => Err(Unsupported("the likelihood is normal")),
        }
    }
}
