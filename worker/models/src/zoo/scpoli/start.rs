//! The order in which scArches draws the tensors of a new scPoli.

use super::ScpoliConfig;
use crate::{
    start::Drawn,
    zoo::family::start::{Sizes, autoencoder, dispersions, normal},
};

/// Upstream's tensors in drawing order, for a model of one key.
pub(super) fn order(config: &ScpoliConfig, n_genes: usize, n_conditions: usize) -> Vec<Drawn> {
    let (hidden, n_numbers) = (config.hidden(n_genes), config.embedding_dims[0]);
    let sizes = Sizes {
        n_genes,
        hidden: &hidden,
        n_latent: config.latent_dim,
        in_encoder: config.inject_condition.in_encoder().then_some(n_numbers),
        in_decoder: config.inject_condition.in_decoder().then_some(n_numbers),
    };
    dispersions(config.recon_loss, n_genes, n_conditions)
        .into_iter()
        .chain([normal("embeddings.0.weight", vec![n_conditions, n_numbers])])
        .chain(autoencoder(sizes, config.recon_loss))
        .collect()
}
