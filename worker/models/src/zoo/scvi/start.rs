//! The order in which scvi-tools draws the tensors of a new scVI model, unused ones included.

use super::{BatchRepresentation, Dispersion, ScviConfig};
use crate::{
    data::Registry,
    start::{Distribution, Drawn, DrawnStack},
};

/// Upstream's tensors in drawing order; `None` for batch embeddings, which upstream draws elsewhere.
pub(in crate::zoo) fn order(
    config: &ScviConfig,
    registry: &Registry,
    n_genes: usize,
    n_conditions: usize,
) -> Option<Vec<Drawn>> {
    if config.batch_representation == BatchRepresentation::Embedding {
        return None;
    }
    // A covariate of a single category has no column upstream.
    let categories = std::iter::once(n_conditions).chain(registry.covariate_sizes());
    let n_covariates: usize = categories.filter(|&n| n > 1).sum();
    let n_continuous = registry.n_continuous();
    let (n_encoder, encoder_covariates) =
        if config.encode_covariates { (n_genes + n_continuous, n_covariates) } else { (n_genes, 0) };
    let stack = |name: &str, n_layers, n_in, n_covariates| {
        let inject = config.deeply_inject_covariates;
        DrawnStack { name: name.to_owned(), n_layers, n_in, n_hidden: config.n_hidden, n_covariates, inject }
    };
    let mut drawn = dispersion(config, registry, n_genes, n_conditions);
    for (name, n_layers, n_out) in [("z_encoder", config.n_layers, config.n_latent), ("l_encoder", 1, 1)] {
        drawn.extend(stack(&format!("{name}.encoder"), n_layers, n_encoder, encoder_covariates).layers());
        drawn.extend(Drawn::linear(&format!("{name}.mean_encoder"), n_out, config.n_hidden));
        drawn.extend(Drawn::linear(&format!("{name}.var_encoder"), n_out, config.n_hidden));
    }
    let n_decoder = config.n_latent + n_continuous;
    drawn.extend(stack("decoder.px_decoder", config.n_layers, n_decoder, n_covariates).layers());
    for head in ["px_scale_decoder.0", "px_r_decoder", "px_dropout_decoder"] {
        drawn.extend(Drawn::linear(&format!("decoder.{head}"), n_genes, config.n_hidden));
    }
    Some(drawn)
}

fn dispersion(config: &ScviConfig, registry: &Registry, n_genes: usize, n_conditions: usize) -> Vec<Drawn> {
    let shape = match config.dispersion {
        Dispersion::Gene => vec![n_genes],
        Dispersion::GeneBatch => vec![n_genes, n_conditions],
        Dispersion::GeneLabel => vec![n_genes, registry.labels().len()],
        Dispersion::GeneCell => return vec![],
    };
    vec![Drawn { name: "px_r".to_owned(), shape, from: Distribution::Normal }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{CATEGORICAL, CONTINUOUS, Encoding},
        start::draw,
    };

    // import torch; from scvi.module import VAE  # scvi-tools 1.4.2
    // torch.manual_seed(7)
    // m = VAE(n_input=20, n_batch=3, n_cats_per_cov=[2], n_continuous_cov=1, n_hidden=4, n_latent=2, n_layers=2,
    //         encode_covariates=True, deeply_inject_covariates=True)
    // for name, t in m.state_dict().items():  # all but batch norm
    //     print(name, float(t.flatten()[-1]))
    const LAST_VALUES: &[(&str, f32)] = &[
        ("px_r", -0.356723),
        ("z_encoder.encoder.fc_layers.Layer 0.0.weight", -0.0401225),
        ("z_encoder.encoder.fc_layers.Layer 0.0.bias", -0.0648187),
        ("z_encoder.encoder.fc_layers.Layer 1.0.weight", -0.149848),
        ("z_encoder.encoder.fc_layers.Layer 1.0.bias", 0.104126),
        ("z_encoder.mean_encoder.weight", 0.499523),
        ("z_encoder.mean_encoder.bias", -0.482519),
        ("z_encoder.var_encoder.weight", 0.480366),
        ("z_encoder.var_encoder.bias", -0.397713),
        ("l_encoder.encoder.fc_layers.Layer 0.0.weight", -0.159952),
        ("l_encoder.encoder.fc_layers.Layer 0.0.bias", -0.188883),
        ("l_encoder.mean_encoder.weight", 0.47822),
        ("l_encoder.mean_encoder.bias", -0.405225),
        ("l_encoder.var_encoder.weight", 0.208457),
        ("l_encoder.var_encoder.bias", -0.14065),
        ("decoder.px_decoder.fc_layers.Layer 0.0.weight", 0.168327),
        ("decoder.px_decoder.fc_layers.Layer 0.0.bias", 0.243369),
        ("decoder.px_decoder.fc_layers.Layer 1.0.weight", -0.166366),
        ("decoder.px_decoder.fc_layers.Layer 1.0.bias", -0.130036),
        ("decoder.px_scale_decoder.0.weight", 0.150987),
        ("decoder.px_scale_decoder.0.bias", -0.401746),
        ("decoder.px_r_decoder.weight", 0.198413),
        ("decoder.px_r_decoder.bias", -0.343789),
        ("decoder.px_dropout_decoder.weight", -0.28896),
        ("decoder.px_dropout_decoder.bias", -0.128215),
    ];

    #[test]
    fn every_tensor_starts_where_upstream_starts_it() {
        let config = ScviConfig {
            n_hidden: 4,
            n_latent: 2,
            n_layers: 2,
            encode_covariates: true,
            deeply_inject_covariates: true,
            ..ScviConfig::default()
        };
        let site = [("site".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into();
        let registry = Registry::default()
            .with(CATEGORICAL, Encoding::Categories(site))
            .with(CONTINUOUS, Encoding::Numbers(vec!["age".to_owned()]));
        let drawn = draw(&order(&config, &registry, 20, 3).unwrap(), 7);
        assert_eq!(drawn.len(), LAST_VALUES.len());
        for (name, expected) in LAST_VALUES {
            let values = drawn.require("the start", name).unwrap().to_f32(name).unwrap();
            let found = *values.last().unwrap();
            assert!((found - expected).abs() <= 2e-6, "{name}: {found} is not {expected}");
        }
    }
}
