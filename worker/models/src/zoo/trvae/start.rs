//! The order in which scArches draws the tensors of a new trVAE.

use super::TrvaeConfig;
use crate::{
    start::{Distribution, Drawn},
    zoo::family::ReconLoss,
};

/// Upstream's tensors in drawing order.
pub(super) fn order(config: &TrvaeConfig, n_genes: usize, n_conditions: usize) -> Vec<Drawn> {
    let hidden = &config.hidden_layer_sizes;
    let last = hidden[hidden.len() - 1];
    let mut drawn = Vec::new();
    if config.recon_loss.likelihood().is_some() {
        let shape = vec![n_genes, n_conditions];
        drawn.push(Drawn { name: "theta".to_owned(), shape, from: Distribution::Normal });
    }
    drawn.extend(Drawn::linear("encoder.FC.L0.expr_L", hidden[0], n_genes));
    drawn.push(unbiased("encoder.FC.L0.cond_L", hidden[0], n_conditions));
    for (i, sizes) in (1..).zip(hidden.windows(2)) {
        drawn.extend(Drawn::linear(&format!("encoder.FC.L{i}"), sizes[1], sizes[0]));
    }
    for head in ["mean_encoder", "log_var_encoder"] {
        drawn.extend(Drawn::linear(&format!("encoder.{head}"), config.latent_dim, last));
    }
    drawn.push(unbiased("decoder.FirstL.L0.expr_L", last, config.latent_dim));
    drawn.push(unbiased("decoder.FirstL.L0.cond_L", last, n_conditions));
    for (i, sizes) in (1..).zip(hidden.windows(2).rev()) {
        drawn.push(unbiased(&format!("decoder.HiddenL.L{i}"), sizes[0], sizes[1]));
    }
    let heads: &[&str] = match config.recon_loss {
        ReconLoss::Mse => &["recon_decoder.0"],
        ReconLoss::Nb => &["mean_decoder.0"],
        ReconLoss::Zinb => &["mean_decoder.0", "dropout_decoder"],
    };
    for head in heads {
        drawn.extend(Drawn::linear(&format!("decoder.{head}"), n_genes, hidden[0]));
    }
    drawn
}

/// A linear map that adds nothing.
fn unbiased(name: &str, n_out: usize, n_in: usize) -> Drawn {
    let from = Distribution::FanIn(n_in);
    Drawn { name: format!("{name}.weight"), shape: vec![n_out, n_in], from }
}
