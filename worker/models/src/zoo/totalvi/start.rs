//! The order in which scvi-tools draws the tensors of a new totalVI model, unused ones included.

use super::{GeneDispersion, PROTEINS, ProteinDispersion, TotalviConfig};
use crate::{
    data::{Registry, slot::Matrix},
    start::{Distribution, Drawn, DrawnStack},
};

/// Upstream's tensors in drawing order.
pub(super) fn order(
    config: &TotalviConfig,
    registry: &Registry,
    n_genes: usize,
    n_conditions: usize,
) -> Option<Vec<Drawn>> {
    // A covariate of a single category has no column upstream.
    let categories = std::iter::once(n_conditions).chain(registry.covariate_sizes());
    let n_covariates: usize = categories.filter(|&n| n > 1).sum();
    let (n_proteins, n_continuous) = (n_proteins(registry), registry.n_continuous());
    let n_features = n_genes + n_proteins;
    let (n_encoder, encoded) =
        if config.encode_covariates { (n_features + n_continuous, n_covariates) } else { (n_features, 0) };
    let n_hidden = config.n_hidden;
    let stack = |name: &str, n_layers, n_in, n_covariates| DrawnStack {
        name: name.to_owned(),
        n_layers,
        n_in,
        n_hidden,
        n_covariates,
        inject: true,
    };
    let mut drawn = dispersions(config, registry, n_genes, n_conditions);
    for (part, n_layers, heads, n_out) in [
        ("encoder", config.n_layers_encoder, ["z_mean_encoder", "z_var_encoder"], config.n_latent),
        ("l_gene_encoder", 1, ["l_gene_mean_encoder", "l_gene_var_encoder"], 1),
    ] {
        drawn.extend(stack(&format!("encoder.{part}"), n_layers, n_encoder, encoded).layers());
        for head in heads {
            drawn.extend(Drawn::linear(&format!("encoder.{head}"), n_out, n_hidden));
        }
    }
    let n_decoder = config.n_latent + n_continuous;
    for (trunk, heads) in DECODER {
        drawn.extend(stack(&format!("decoder.{trunk}"), config.n_layers_decoder, n_decoder, n_covariates).layers());
        for (head, output) in *heads {
            let n_out = if matches!(output, Output::Genes) { n_genes } else { n_proteins };
            let name = format!("decoder.{head}.fc_layers.Layer 0.0");
            drawn.extend(Drawn::linear(&name, n_out, n_hidden + n_decoder + n_covariates));
        }
    }
    Some(drawn)
}

fn n_proteins(registry: &Registry) -> usize {
    registry.remembered::<Matrix>(PROTEINS).map_or(0, |panel| panel.names.len())
}

fn dispersions(config: &TotalviConfig, registry: &Registry, n_genes: usize, n_conditions: usize) -> Vec<Drawn> {
    let (n_proteins, n_labels) = (n_proteins(registry), registry.labels().len());
    let px_r = match config.gene_dispersion {
        GeneDispersion::Gene => vec![n_genes],
        GeneDispersion::GeneBatch => vec![n_genes, n_conditions],
        GeneDispersion::GeneLabel => vec![n_genes, n_labels],
    };
    let py_r = match config.protein_dispersion {
        ProteinDispersion::Protein => vec![n_proteins],
        ProteinDispersion::ProteinBatch => vec![n_proteins, n_conditions],
        ProteinDispersion::ProteinLabel => vec![n_proteins, n_labels],
    };
    vec![
        Drawn { name: "px_r".to_owned(), shape: px_r, from: Distribution::Normal },
        Drawn { name: "py_r".to_owned(), shape: py_r, from: Distribution::UpToTwo },
    ]
}

/// What a head of the decoder speaks of.
enum Output {
    Genes,
    Proteins,
}

/// Trunks and heads of the decoder, as upstream makes them.
const DECODER: &[(&str, &[(&str, Output)])] = &[
    ("px_decoder", &[("px_scale_decoder", Output::Genes)]),
    ("py_back_decoder", &[("py_back_mean_log_alpha", Output::Proteins), ("py_back_mean_log_beta", Output::Proteins)]),
    ("py_fore_decoder", &[("py_fore_scale_decoder", Output::Proteins)]),
    ("sigmoid_decoder", &[("px_dropout_decoder_gene", Output::Genes), ("py_background_decoder", Output::Proteins)]),
];
