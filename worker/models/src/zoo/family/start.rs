//! The order in which scArches draws the tensors of a new autoencoder.

use super::ReconLoss;
use crate::start::{Distribution, Drawn};

/// What the tensors of an encoder and a decoder are drawn for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::zoo) struct Sizes<'a> {
    /// Genes of the panel.
    pub(in crate::zoo) n_genes: usize,
    /// Units of the encoder's layers.
    pub(in crate::zoo) hidden: &'a [usize],
    /// Dimensions of the latent space.
    pub(in crate::zoo) n_latent: usize,
    /// Numbers that stand for a condition in the encoder's first layer, if it hears of conditions.
    pub(in crate::zoo) in_encoder: Option<usize>,
    /// The same of the decoder's.
    pub(in crate::zoo) in_decoder: Option<usize>,
}

/// The dispersions of conditions, the first that is drawn.
pub(in crate::zoo) fn dispersions(loss: ReconLoss, n_genes: usize, n_conditions: usize) -> Option<Drawn> {
    let theta = || normal("theta", vec![n_genes, n_conditions]);
    loss.has_dispersion().then(theta)
}

/// A tensor of standard normal numbers.
pub(in crate::zoo) fn normal(name: &str, shape: Vec<usize>) -> Drawn {
    Drawn { name: name.to_owned(), shape, from: Distribution::Normal }
}

/// The tensors of encoder and decoder.
pub(in crate::zoo) fn autoencoder(sizes: Sizes<'_>, loss: ReconLoss) -> Vec<Drawn> {
    let Sizes { n_genes, hidden, n_latent, in_encoder, in_decoder } = sizes;
    let last = hidden[hidden.len() - 1];
    let mut drawn = encoder("encoder", (n_genes, in_encoder), hidden, n_latent);
    drawn.push(unbiased("decoder.FirstL.L0.expr_L", last, n_latent));
    drawn.extend(in_decoder.map(|n| unbiased("decoder.FirstL.L0.cond_L", last, n)));
    for (i, sizes) in (1..).zip(hidden.windows(2).rev()) {
        drawn.push(unbiased(&format!("decoder.HiddenL.L{i}"), sizes[0], sizes[1]));
    }
    let heads: &[&str] = match loss {
        ReconLoss::Mse | ReconLoss::Poisson => &["recon_decoder.0"],
        ReconLoss::Nb => &["mean_decoder.0"],
        ReconLoss::Zinb => &["mean_decoder.0", "dropout_decoder"],
    };
    for head in heads {
        drawn.extend(Drawn::linear(&format!("decoder.{head}"), n_genes, hidden[0]));
    }
    drawn
}

/// The tensors of an encoder, for so many genes and numbers that stand for a condition.
pub(in crate::zoo) fn encoder(
    name: &str,
    (n_genes, in_encoder): (usize, Option<usize>),
    hidden: &[usize],
    n_latent: usize,
) -> Vec<Drawn> {
    let mut drawn = Vec::from(Drawn::linear(&format!("{name}.FC.L0.expr_L"), hidden[0], n_genes));
    drawn.extend(in_encoder.map(|n| unbiased(&format!("{name}.FC.L0.cond_L"), hidden[0], n)));
    for (i, sizes) in (1..).zip(hidden.windows(2)) {
        drawn.extend(Drawn::linear(&format!("{name}.FC.L{i}"), sizes[1], sizes[0]));
    }
    for head in ["mean_encoder", "log_var_encoder"] {
        drawn.extend(Drawn::linear(&format!("{name}.{head}"), n_latent, hidden[hidden.len() - 1]));
    }
    drawn
}

/// A linear map that adds nothing.
pub(in crate::zoo) fn unbiased(name: &str, n_out: usize, n_in: usize) -> Drawn {
    let from = Distribution::FanIn(n_in);
    Drawn { name: format!("{name}.weight"), shape: vec![n_out, n_in], from }
}
