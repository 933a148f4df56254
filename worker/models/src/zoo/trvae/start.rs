//! The order in which scArches draws the tensors of a new trVAE.

use super::TrvaeConfig;
use crate::{
    start::Drawn,
    zoo::family::start::{Sizes, autoencoder, dispersions},
};

/// Upstream's tensors in drawing order.
pub(super) fn order(config: &TrvaeConfig, n_genes: usize, n_conditions: usize) -> Vec<Drawn> {
    let sizes = Sizes {
        n_genes,
        hidden: &config.hidden_layer_sizes,
        n_latent: config.latent_dim,
        in_encoder: Some(n_conditions),
        in_decoder: Some(n_conditions),
    };
    dispersions(config.recon_loss, n_genes, n_conditions)
        .into_iter()
        .chain(autoencoder(sizes, config.recon_loss))
        .collect()
}
