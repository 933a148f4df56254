//! The seam: what a module tells the kernels about itself.

pub use crate::kernels::values::Link;
use crate::{
    data::{
        Slot,
        slot::{Labels, Matrix, Number},
    },
    distributions::Likelihood,
    kernels::likelihood::Counts,
};

/// A variational autoencoder of counts or values: an encoder, a normal latent state, a decoder to shares of genes, or to values. Names are
/// those of the module's tensors.
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
    /// Added to the variance.
    pub variance_floor: f64,
    /// What the divergence counts.
    pub divergence: Divergence,
    /// Layers of the decoder, if it has some; the first takes the latent state.
    pub decoder: Vec<LayerSpec>,
    /// The linear map to what cells are compared with.
    pub head: HeadSpec,
    /// Linear map to the logits of an extra zero, where the likelihood has them.
    pub dropout: Option<String>,
    /// Logarithm of the inverse dispersion, where the likelihood has one.
    pub log_r: Option<LogDispersionSpec>,
    /// How far what is decoded is from the cells.
    pub reconstruction: ReconstructionSpec,
    /// What the encoder sees of a count.
    pub input: EncoderInput,
    /// What pulls the latent states of conditions together, if something does.
    pub discrepancy: Option<DiscrepancySpec>,
    /// What draws latent states to points, if something does now.
    pub anchors: Option<AnchorSpec>,
    /// What takes the place of the divergence from a standard normal, where labels shape the latent state.
    pub labels: Option<LabelSpec>,
    /// What else is measured of the cells, where they have several modalities; this is the network of the first one.
    pub modalities: Option<ModalitiesSpec>,
}

/// Several modalities of the same cells, with networks of their own, whose posteriors are mixed to one. All are decoded from its draws.
#[derive(Clone, PartialEq, Debug)]
pub struct ModalitiesSpec {
    /// Of each modality, the first one among them.
    pub of_each: Vec<ModalitySpec>,
    /// The networks of the others. What they say of divergence, labels and the like is not looked at.
    pub others: Vec<VaeSpec>,
    /// How posteriors are mixed. A cell's encoder counts where the sum of the modality's values is above 0.
    pub mix: Mix,
    /// Weight of all reconstructions together in the loss.
    pub weight: f64,
    /// Which cells are compared with what is decoded.
    pub measured: Measured,
    /// What stands for the total count of cells; without it, that of the first modality.
    pub totals: Option<Slot<Number>>,
}

/// One of several modalities.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ModalitySpec {
    /// Where its values are; those of genes have no slot.
    pub slot: Option<Slot<Matrix>>,
    /// Weight of its reconstruction among the others.
    pub weight: f64,
    /// Name of that figure.
    pub figure: &'static str,
}

/// How posteriors become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mix {
    /// Their product, with a standard normal among them.
    Product,
    /// The distribution of their mean.
    Mean,
}

/// Which cells have a modality, by the sum of its values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measured {
    /// Those where it is not 0.
    WhereNotZero,
    /// Those where it is above 0.
    WhereAboveZero,
}

/// The discrepancy between conditions' latent states, see [`crate::losses::mmd`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DiscrepancySpec {
    /// Its weight in the loss.
    pub weight: f64,
    /// See [`crate::losses::mmd::Coefficients::set`].
    pub boundary: Option<usize>,
    /// Name of its figure.
    pub figure: &'static str,
}

/// What the divergence of a cell from the standard normal counts in a loss that is a mean over cells, beside the weight of its warm-up.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Divergence {
    /// So much.
    Times(f64),
    /// As much as there are cells: it is summed.
    Summed,
}

/// A linear map from the decoder's last layer, or from the latent state where there is none.
#[derive(Clone, PartialEq, Debug)]
pub enum HeadSpec {
    /// All of whose elements are there.
    Full(String),
    /// Held to sets.
    Masked(MaskedSpec),
}

/// A linear map from the latent state whose elements are held to sets.
#[derive(Clone, PartialEq, Debug)]
pub struct MaskedSpec {
    /// The tensor, `[n_genes, n_latent]`.
    pub weight: String,
    /// The latent numbers of the sets that each gene is in, ascending.
    pub of_genes: Vec<Vec<u32>>,
    /// Whether elements outside the sets are there too.
    pub is_soft: bool,
    /// The tensor with a row per condition, which is added.
    pub columns: Option<String>,
}

/// What shrinks a tensor's elements after a step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shrinking<'a> {
    /// The tensor of a [`MaskedSpec`].
    pub tensor: &'a str,
    /// By how much.
    pub threshold: f64,
    /// What it shrinks.
    pub what: Shrinks<'a>,
}

/// What is shrunk.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Shrinks<'a> {
    /// The length of each column, with its factor of the threshold where there are factors.
    Columns(Option<&'a [f32]>),
    /// Elements outside the sets.
    Outside,
}

/// How far what is decoded is from the cells.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ReconstructionSpec {
    /// Negative log-likelihood of counts; rates are shares times the total count.
    Counts(Likelihood),
    /// Squared differences to values.
    Squared {
        /// What outputs go through.
        link: Link,
        /// Whether it is the mean over genes, and not their sum.
        is_mean: bool,
    },
}

/// Points of the latent space that draw cells to them: the distance of cells to the points of their groups (the mean over a group's
/// cells, the sum over groups), and of every cell to the nearest of other points (the mean over a point's cells, the mean over points
/// that have some).
#[derive(Clone, PartialEq, Debug)]
pub struct AnchorSpec {
    /// Weight of all distances in the loss.
    pub weight: f64,
    /// Weight of the distance to the nearest of the other points, beside that to the points of groups.
    pub nearest_weight: f64,
    /// Which distance: the order of the norm.
    pub norm: f64,
    /// The point of each group, where it has one.
    pub of_groups: Vec<Option<Vec<f32>>>,
    /// The fields that say which groups cells belong to, with the group of each of their codes. A cell is in a group once.
    pub groups: Vec<(Slot<Labels>, Vec<usize>)>,
    /// The other points, where there are some.
    pub others: Option<Vec<Vec<f32>>>,
    /// Names of figures.
    pub figures: AnchorFigures,
}

/// Names of the figures of what draws cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnchorFigures {
    /// The loss with all terms at full weight.
    pub unweighted: &'static str,
    /// All distances with their weight.
    pub weighted: &'static str,
    /// The distance to the points of groups.
    pub of_groups: &'static str,
    /// That to the nearest of the others.
    pub nearest: &'static str,
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

/// Batch norm.
#[derive(Clone, PartialEq, Debug)]
pub struct BatchNormSpec {
    /// Name of its tensors.
    pub name: String,
    /// Added to the variance.
    pub eps: f64,
    /// Share of a minibatch in the running statistics; none where they stay as they are.
    pub momentum: Option<f64>,
    /// What conditions add to scale and shift, if they do.
    pub offsets: Option<OffsetsSpec>,
}

/// Tensors with a row per condition that are added to a batch norm's.
#[derive(Clone, PartialEq, Debug)]
pub struct OffsetsSpec {
    /// To the scale.
    pub weight: String,
    /// To the shift.
    pub bias: String,
}

/// A linear map, norms, ReLU or its like and dropout, in this order.
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
    /// Batch norm, if there is one.
    pub batch_norm: Option<BatchNormSpec>,
    /// Whether layer norm follows.
    pub layer_norm: bool,
    /// What numbers below 0 are multiplied by after that: 0 for ReLU, 1 where nothing happens.
    pub slope: f64,
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
    /// Conditions, each of which a vector stands for that goes into the linear map behind its other inputs.
    Beside(Embedded),
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

/// What the encoder sees of a count, or of another value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncoderInput {
    /// Its `ln(1 + x)`.
    Log1p,
    /// The number itself.
    Count,
}

/// Why a computation goes through autograd instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub &'static str);

/// The same for the kernels.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Reconstruction {
    Counts(Counts),
    /// With a factor of the sum.
    Squared(Link, f32),
}

impl VaeSpec {
    pub(super) fn reconstruction(&self) -> Result<Reconstruction, Unsupported> {
        Ok(Reconstruction::Counts(match self.reconstruction {
            ReconstructionSpec::Counts(Likelihood::Nb) => Counts::NegativeBinomial,
            ReconstructionSpec::Counts(Likelihood::Zinb) => Counts::ZeroInflated,
            ReconstructionSpec::Counts(Likelihood::Poisson) => Counts::Poisson,
            ReconstructionSpec::Counts(Likelihood::Normal) => return Err(Unsupported("the likelihood is normal")),
            ReconstructionSpec::Squared { link, is_mean } => {
                let factor = if is_mean { 1.0 / self.n_genes as f32 } else { 1.0 };
                return Ok(Reconstruction::Squared(link, factor));
            }
        }))
    }
}
