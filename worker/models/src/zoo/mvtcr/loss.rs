//! The terms of mvTCR's loss.

use tch::{Kind, Reduction, Tensor};

use super::{
    chains::PADDING,
    config::{MvtcrConfig, Variant},
    module::Inference,
    network::{Decoded, Latent},
};

/// The terms of the loss, apart: weighted scalars.
#[derive(Debug)]
pub struct MvtcrLoss {
    /// Of expression.
    pub rna: Tensor,
    /// Of the receptor.
    pub tcr: Tensor,
    /// Of the divergence, with its annealing factor.
    pub kl: Tensor,
    /// What cells have of the first two, `[n]`: their mean is the sum of both.
    pub per_cell: Tensor,
    /// Divergence of each cell without weights, `[n]`: a mean over its latent states.
    pub kl_per_cell: Tensor,
}

impl MvtcrLoss {
    pub(super) fn new(
        config: &MvtcrConfig,
        (x, targets): (&Tensor, Option<&Tensor>),
        inference: &Inference,
        decoded: &Decoded,
        annealing: f64,
    ) -> Self {
        let zero = || Tensor::zeros([x.size()[0]], (x.kind(), x.device()));
        let rna: Vec<Tensor> = decoded.rna.iter().map(|rna| squared(rna, x)).collect();
        let tcr: Vec<Tensor> =
            decoded.tcr.iter().zip(targets.into_iter().cycle()).map(|(tcr, targets)| unlikely(tcr, targets)).collect();
        // Upstream's slip: half the weight stays where only the first one counts.
        let tcr = if config.tcr_from_rna_only { halves(&tcr[..1]) } else { mean(&tcr) };
        let rna = mean(&rna).unwrap_or_else(zero) * config.rna_weight();
        let tcr = tcr.unwrap_or_else(zero) * config.tcr_weight();
        let kls: Vec<Tensor> = inference.latents.iter().map(divergence).collect();
        let kl_per_cell = mean(&kls).unwrap_or_else(zero);
        let kl = scalar(&kl_per_cell) * (config.kl_weight() * annealing);
        let kl = match (config.variant, inference.latents.as_slice(), config.loss_weights.get(3)) {
            // A sum over cells and dimensions, and without annealing, as upstream.
            (Variant::Poe, [rna, _, joint], Some(weight)) => kl + between(rna, joint) * *weight,
            _ => kl,
        };
        Self { rna: scalar(&rna), tcr: scalar(&tcr), kl, per_cell: &rna + &tcr, kl_per_cell }
    }

    /// What the optimiser minimises, a scalar.
    pub fn total(&self) -> Tensor {
        &self.rna + &self.tcr + &self.kl
    }
}

/// Mean squared difference of each cell, `[n]`.
fn squared(decoded: &Tensor, x: &Tensor) -> Tensor {
    (decoded - x).square().mean_dim([1_i64].as_slice(), false, x.kind())
}

/// Cross entropy of the tokens of each cell that are no padding, `[n]`, such that the mean over cells is that over all these tokens.
fn unlikely(logits: &Tensor, targets: &Tensor) -> Tensor {
    let (n, n_positions) = (targets.size()[0], targets.size()[1]);
    let flat = logits.reshape([n * n_positions, -1]);
    let of_tokens = flat.cross_entropy_loss::<Tensor>(&targets.reshape([-1]), None, Reduction::None, PADDING, 0.0);
    let n_tokens = targets.ne(PADDING).sum(Kind::Int64).clamp_min(1).to_kind(logits.kind());
    let sums = of_tokens.view([n, n_positions]).sum_dim_intlist([1_i64].as_slice(), false, logits.kind());
    sums * n as f64 / n_tokens
}

/// Divergence of each cell's latent state from the prior, `[n]`.
fn divergence(latent: &Latent) -> Tensor {
    let Latent { mean, log_var } = latent;
    ((log_var.exp() + mean.square() - 1.0 - log_var) * 0.5).sum_dim_intlist([1_i64].as_slice(), false, mean.kind())
}

/// Divergence of one posterior from another, a sum over cells.
fn between(p: &Latent, q: &Latent) -> Tensor {
    let squared = (&p.mean - &q.mean).square();
    let each = (&q.log_var - &p.log_var) + (p.log_var.exp() + squared) / q.log_var.exp() - 1.0;
    (each * 0.5).sum(p.mean.kind())
}

fn mean(terms: &[Tensor]) -> Option<Tensor> {
    sum(terms).map(|sum| sum / terms.len() as f64)
}

fn halves(terms: &[Tensor]) -> Option<Tensor> {
    sum(terms).map(|sum| sum * 0.5)
}

fn sum(terms: &[Tensor]) -> Option<Tensor> {
    terms.iter().map(Tensor::shallow_clone).reduce(|sum, term| sum + term)
}

fn scalar(per_cell: &Tensor) -> Tensor {
    per_cell.mean(per_cell.kind())
}
