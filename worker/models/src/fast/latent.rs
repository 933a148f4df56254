//! Terms of a loss that depend on the latent state and not on the counts: small, different in every model, and left to autograd.
//!
//! The kernels encode the cells and hand over posteriors and draws as the leaves of a graph; the model makes its terms of them
//! ([`LatentModel`], [`crate::model::LabelModel`]), and the kernels take the gradients by the leaves back on their way down.

use tch::{Kind, Tensor};

use super::{
    autoencoder::{Autoencoder, Terms},
    block::{Block, ROWS},
    part::values_of,
};
use crate::{
    kernels::{Buffer, padded},
    losses::LossTerms,
    model::LatentModel,
    nn::{Noise, Pass, Posterior},
};

/// What the kernels say about some cells, `[n, n_latent]` each.
pub(super) struct Leaves {
    posterior: Posterior,
    z: Tensor,
}

impl Leaves {
    /// Those of the cells in some blocks.
    pub(super) fn of(blocks: &[Block], n_latent: usize, takes_gradient: bool) -> Self {
        let leaf = |rows: fn(&Block) -> &Buffer| {
            let cells = blocks.iter().flat_map(|block| rows(block).chunks_exact(padded(n_latent)).take(block.n()));
            let values: Vec<f32> = cells.flat_map(|row| &row[..n_latent]).copied().collect();
            Tensor::from_slice(&values).view([-1, n_latent as i64]).set_requires_grad(takes_gradient)
        };
        let posterior = Posterior { mean: leaf(|block| &block.mean), var: leaf(|block| &block.var) };
        Self { posterior, z: leaf(|block| &block.z) }
    }

    /// Puts the gradients by them into the blocks that they come from; zeros where nothing depends on a leaf.
    fn give_back(&self, blocks: &mut [Block], n_latent: usize) {
        let mut spread = |leaf: &Tensor, rows: fn(&mut Block) -> &mut Buffer| {
            let gradient = leaf.grad();
            let gradient = if gradient.defined() { gradient } else { leaf.zeros_like() };
            for (block, values) in blocks.iter_mut().zip(values_of(&gradient).chunks(ROWS * n_latent)) {
                let rows = rows(block).chunks_exact_mut(padded(n_latent));
                rows.zip(values.chunks_exact(n_latent)).for_each(|(to, from)| to[..n_latent].copy_from_slice(from));
            }
        };
        spread(&self.posterior.mean, |block| &mut block.further.by_mean);
        spread(&self.posterior.var, |block| &mut block.further.by_var);
        spread(&self.z, |block| &mut block.further.by_z);
    }
}

impl Autoencoder<'_> {
    /// The further terms of encoded cells in the first `n` blocks, and of labelled cells, which are encoded here, in the blocks behind:
    /// hands the loss of both to `minimise`, which computes gradients, and leaves them in the blocks. Gives the sums of the terms.
    pub(super) fn further_gradients(
        &mut self,
        model: &dyn LatentModel,
        n: usize,
        labelled: &[usize],
        kl_weight: f64,
        noise: &mut dyn Noise,
        minimise: &mut dyn FnMut(&Tensor),
    ) -> Terms {
        let n_latent = self.network.n_latent;
        let leaves = Leaves::of(&self.blocks[..n], n_latent, true);
        let pass = &mut Pass { mode: self.mode, noise };
        let terms = model.latent_terms(&leaves.posterior, &leaves.z, pass);
        let mut terms = LossTerms::new(terms.reconstruction, &terms.kl, None, kl_weight);
        let labelled = (!labelled.is_empty()).then(|| {
            let behind = n..n + labelled.len().div_ceil(ROWS);
            self.encode_labelled(behind.clone(), labelled, pass.noise);
            let leaves = Leaves::of(&self.blocks[behind.clone()], n_latent, true);
            let codes = self.label_codes(labelled);
            let label_model = model.as_label_model().expect("only a model of labels trains on labelled cells");
            terms.loss += label_model.label_loss_at(&leaves.posterior.mean, &codes, pass);
            (leaves, behind)
        });
        minimise(&terms.loss);
        leaves.give_back(&mut self.blocks[..n], n_latent);
        if let Some((leaves, behind)) = labelled {
            leaves.give_back(&mut self.blocks[behind], n_latent);
        }
        sums(&terms)
    }

    /// The sums of the further terms of encoded cells in the first `n` blocks.
    pub(super) fn further_terms(
        &self,
        model: &dyn LatentModel,
        n: usize,
        kl_weight: f64,
        pass: &mut Pass<'_>,
    ) -> Terms {
        let _guard = tch::no_grad_guard();
        let leaves = Leaves::of(&self.blocks[..n], self.network.n_latent, false);
        let terms = model.latent_terms(&leaves.posterior, &leaves.z, pass);
        sums(&LossTerms::new(terms.reconstruction, &terms.kl, None, kl_weight))
    }
}

fn sums(terms: &LossTerms) -> Terms {
    let n_cells = terms.reconstruction.numel() as f64;
    let reconstruction = terms.reconstruction.sum(Kind::Double).double_value(&[]);
    let kl = terms.kl_local.sum(Kind::Double).double_value(&[]);
    Terms { loss: terms.loss.double_value(&[]) * n_cells, negative_elbo: reconstruction + kl, reconstruction }
}
