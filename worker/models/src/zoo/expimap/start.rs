//! The order in which scArches draws the tensors of a new expiMap.

use super::{ExpimapConfig, module::LIBRARY_UNITS, new_terms::Wanted};
use crate::{
    start::Drawn,
    zoo::family::start::{dispersions, encoder, unbiased},
};

/// Upstream's tensors in drawing order, for so many genes, terms with sets and conditions.
pub(super) fn order(
    config: &ExpimapConfig,
    (n_genes, n_terms, n_conditions): (usize, usize, usize),
    added: Option<&Wanted>,
) -> Vec<Drawn> {
    let (hidden, sizes) = (&config.hidden_layer_sizes, (n_genes, Some(n_conditions)));
    let mut drawn: Vec<Drawn> = dispersions(config.recon_loss, n_genes, n_conditions).into_iter().collect();
    drawn.extend(encoder("encoder", sizes, hidden, n_terms));
    for head in ["mean", "var"] {
        let map = |added: &Wanted| {
            Drawn::linear(&format!("encoder.expand_{head}_encoder"), added.n_terms(), hidden[hidden.len() - 1])
        };
        drawn.extend(added.into_iter().flat_map(map));
    }
    drawn.push(unbiased("decoder.L0.expr_L", n_genes, n_terms));
    drawn.push(unbiased("decoder.L0.cond_L", n_genes, n_conditions));
    if let Some(Wanted { sets, n_free }) = added {
        let with_sets = sets.terms().len();
        drawn.extend((*n_free > 0).then(|| unbiased("decoder.L0.ext_L", n_genes, *n_free)));
        drawn.extend((with_sets > 0).then(|| unbiased("decoder.L0.ext_L_m", n_genes, with_sets)));
    }
    if config.use_l_encoder {
        drawn.extend(encoder("l_encoder", sizes, &[LIBRARY_UNITS], 1));
    }
    drawn
}
