//! A few cells on their way through the network and back. One thread works on a block; nothing in it depends on other blocks.

use archipelago_anndata::Csr;

use super::{
    batch_norm::Statistics,
    discrepancy::Discrepancy,
    first_layer::Inputs,
    labels::Labels,
    modalities::{Joint, OfCells},
    network::{Head, Network},
    part::Part,
    pull::Pull,
    stack::Activations,
    walk::Point,
};
use crate::{
    data::Dataset,
    kernels::{Buffer, buffer::PANEL, likelihood::Scratch, padded},
};

/// Memory for up to [`ROWS`] cells.
#[derive(Debug)]
pub(super) struct Block {
    /// Positions of the cells in the data set.
    pub(super) cells: Vec<usize>,
    /// What the encoder sees of their counts.
    pub(super) inputs: Inputs,
    pub(super) encoder: Vec<Activations>,
    pub(super) decoder: Vec<Activations>,
    pub(super) mean: Buffer,
    /// Logarithm of the variance above its floor, then the variance.
    pub(super) var: Buffer,
    pub(super) noise: Buffer,
    pub(super) z: Buffer,
    /// Gradient by `z`, then by the mean.
    pub(super) of_mean: Buffer,
    pub(super) of_var: Buffer,
    /// Where it waits.
    pub(super) reached: Point,
    /// Whether its cells are here for the sake of their labels, and not decoded.
    pub(super) is_labelled: bool,
    /// What labels add, where the network has them.
    pub(super) labels: Option<Labels>,
    /// The cells' other modalities and what all say together, where there are several.
    pub(super) joint: Option<Joint>,
    /// Gradients of what they, or a discrepancy, add.
    pub(super) further: Further,
    /// Place of the first cell among the step's.
    pub(super) first: usize,
    /// Room for a number per cell of a step, where cells meet.
    pub(super) slopes: Buffer,
    /// Room for a number per component of the mixture that draws latent states.
    pub(super) shares: Buffer,
    /// The latent states, a row per dimension and a column per cell, for a head that is held to sets.
    pub(super) turned: Buffer,
    /// Logits of the shares, or other outputs, then their gradient; empty where nothing is decoded.
    pub(super) logits: Buffer,
    /// The same for extra zeros.
    pub(super) dropout: Buffer,
    /// Gradient by the log dispersions, a row each.
    pub(super) of_log_r: Buffer,
    pub(super) scratch: Scratch,
    /// What goes into a linear map, or the gradient by it: a row per unit and a column per cell.
    pub(super) columns: Buffer,
    /// Sums over the block's cells, in nats.
    pub(super) sums: BlockSums,
}

/// Gradients of what labels, or a discrepancy between conditions, add to the loss by the posterior and the draw; rows like the block's.
#[derive(Debug)]
pub(super) struct Further {
    pub(super) by_mean: Buffer,
    pub(super) by_var: Buffer,
    pub(super) by_z: Buffer,
}

/// Sums over cells, in nats.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct BlockSums {
    pub(super) reconstruction: f64,
    pub(super) kl: f64,
    /// Cross entropy of labelled cells.
    pub(super) cross_entropy: f64,
    /// Share in the discrepancy between conditions, without its weight.
    pub(super) discrepancy: f64,
    /// Distance from what draws latent states, without its weight.
    pub(super) pull: f64,
}

/// How far a block goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// To the posterior's mean; what says its variance is left out.
    Mean,
    /// To the posterior.
    Posterior,
    /// To the log-likelihood.
    Likelihood,
}

/// What all blocks of a pass share.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) network: &'a Network,
    pub(super) parts: &'a [Part],
    pub(super) dataset: &'a Dataset<'a>,
    /// The cells' values.
    pub(super) values: &'a Csr,
    /// What is known of the cells, of each modality.
    pub(super) of_cells: &'a [OfCells],
    /// Which cells are compared with what is decoded; all where there is none.
    pub(super) measured: &'a [bool],
    /// What the first layer makes of each cell without its column, where that is constant.
    pub(super) first_layer: Option<&'a [f32]>,
    /// Total count of each cell.
    pub(super) totals: &'a [f32],
    /// Terms of each cell's log-likelihood that do not change.
    pub(super) constants: &'a [f32],
    /// Whether dropout drops.
    pub(super) drops: bool,
    /// What the dispersions do, see [`Dispersions`].
    pub(super) dispersions: Dispersions,
    /// The same of all that train.
    pub(super) trained: Dispersions,
    /// The loss is a sum over cells times this.
    pub(super) scale: f32,
    /// What the reconstruction counts in it.
    pub(super) weight: f32,
    /// Weight of the divergences.
    pub(super) kl_weight: f32,
    /// The loss of labelled cells is their summed cross entropy times this.
    pub(super) label_scale: f32,
    /// Whether gradients are wanted.
    pub(super) differentiates: bool,
    /// How batch norm is computed.
    pub(super) statistics: Statistics,
    /// The lowest layer of the encoder that trains.
    pub(super) lowest: Option<usize>,
    /// Whether something depends on the latent states of several cells together.
    pub(super) meets: bool,
    /// What pulls the latent states of conditions together.
    pub(super) discrepancy: Option<&'a Discrepancy>,
    /// What draws latent states to where cells of the reference lie.
    pub(super) pull: Option<&'a Pull>,
}

/// What the dispersions do in a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dispersions {
    /// They never move: the constants hold all that depends on them and the counts alone.
    Constant,
    /// They train: their gradient is wanted.
    Train,
    /// They train, but not in this pass.
    Rest,
}

impl<'a> Pass<'a> {
    /// The pass of one modality of the cells.
    pub(super) fn of_modality(&self, m: usize) -> Self {
        let (network, of_cells) = (self.network.of_modality(m), &self.of_cells[m]);
        Self {
            network,
            values: self.dataset.values_of(network.slot),
            measured: &of_cells.measured,
            first_layer: of_cells.first_layer.as_deref(),
            constants: &of_cells.constants,
            dispersions: if of_cells.trains { self.trained } else { Dispersions::Constant },
            weight: self.network.modalities.as_ref().map_or(1.0, |modalities| modalities.weight(m)),
            lowest: of_cells.lowest,
            ..*self
        }
    }

    /// Whether a cell is compared with what is decoded.
    pub(super) fn is_measured(&self, cell: usize) -> bool {
        self.measured.get(cell).is_none_or(|&is| is)
    }

    /// The loss is a sum of reconstructions times this.
    pub(super) fn reconstruction_scale(&self) -> f32 {
        self.scale * self.weight
    }
}

impl Block {
    pub(super) fn new(network: &Network, parts: &[Part], reach: Reach) -> Self {
        let rows = |n: usize| Buffer::zeros(ROWS * padded(n));
        let n_latent = network.n_latent;
        let decodes = reach == Reach::Likelihood;
        let genes = |wanted: bool| rows(if wanted { network.n_genes } else { 0 });
        Self {
            cells: Vec::with_capacity(ROWS),
            inputs: Inputs::default(),
            encoder: Activations::of(&network.encoder),
            decoder: if decodes { Activations::of(&network.decoder) } else { Vec::new() },
            mean: rows(n_latent),
            var: rows(n_latent),
            noise: rows(n_latent),
            z: rows(n_latent),
            of_mean: rows(n_latent),
            of_var: rows(n_latent),
            reached: Point::Begin,
            is_labelled: false,
            labels: network.labels.as_ref().map(|labels| Labels::new(network, labels, parts)),
            joint: network.modalities.as_ref().map(|modalities| Joint::new(network, modalities, parts, reach)),
            first: 0,
            slopes: Buffer::default(),
            shares: Buffer::default(),
            further: Further { by_mean: rows(n_latent), by_var: rows(n_latent), by_z: rows(n_latent) },
            turned: Buffer::zeros(match &network.head {
                Head::Masked(masked) if decodes => ROWS * padded(masked.n_in),
                Head::Full(_) | Head::Masked(_) => 0,
            }),
            logits: genes(decodes),
            dropout: genes(decodes && network.dropout.is_some()),
            of_log_r: Buffer::zeros(if decodes { network.dispersions.len() * padded(network.n_genes) } else { 0 }),
            scratch: Scratch::new(if decodes { network.n_genes } else { 0 }),
            columns: Buffer::zeros(ROWS * network.widest_below()),
            sums: BlockSums::default(),
        }
    }

    /// Puts cells in.
    pub(super) fn put(&mut self, cells: &[usize]) {
        self.cells.clear();
        self.cells.extend_from_slice(cells);
        self.joint.iter_mut().flat_map(|joint| &mut joint.others).for_each(|other| other.put(cells));
    }

    /// Number of cells.
    pub(super) fn n(&self) -> usize {
        self.cells.len()
    }

    /// What goes into the head.
    pub(super) fn below_head(&self) -> &[f32] {
        self.decoder.last().map_or(&self.z, |last| &last.out)
    }
}

/// Cells of a block. Results do not depend on it but for the order of sums over blocks; it is never changed by the number of threads.
pub(super) const ROWS: usize = 32;

const _: () = assert!(ROWS <= PANEL, "a block's gradient is turned as one panel");
