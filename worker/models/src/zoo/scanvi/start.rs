//! The order in which scvi-tools draws the tensors of a new scANVI model: those of scVI, the classifier, the label networks.

use super::ScanviConfig;
use crate::{
    data::Registry,
    start::{Drawn, DrawnStack},
    zoo::scvi::start::order as scvi_order,
};

/// Upstream's tensors in drawing order; `None` where that of scVI is not known.
pub(super) fn order(
    config: &ScanviConfig,
    registry: &Registry,
    n_genes: usize,
    n_conditions: usize,
) -> Option<Vec<Drawn>> {
    let mut drawn = scvi_order(&config.scvi, registry, n_genes, n_conditions)?;
    let n_labels = registry.labels().len();
    drawn.extend(classifier(config, n_labels));
    for (network, stack, heads) in [
        ("encoder_z2_z1", "encoder", ["mean_encoder", "var_encoder"]),
        ("decoder_z1_z2", "decoder", ["mean_decoder", "var_decoder"]),
    ] {
        let (n_latent, n_hidden) = (config.scvi.n_latent, config.scvi.n_hidden);
        let stack = DrawnStack {
            name: format!("{network}.{stack}"),
            n_layers: config.scvi.n_layers,
            n_in: n_latent,
            n_hidden,
            // A single label has no column upstream.
            n_covariates: if n_labels > 1 { n_labels } else { 0 },
            inject: true,
        };
        drawn.extend(stack.layers());
        drawn.extend(heads.iter().flat_map(|head| Drawn::linear(&format!("{network}.{head}"), n_latent, n_hidden)));
    }
    Some(drawn)
}

fn classifier(config: &ScanviConfig, n_labels: usize) -> Vec<Drawn> {
    const NAME: &str = "classifier.classifier";
    let n_latent = config.scvi.n_latent;
    if config.own.linear_classifier {
        return Drawn::linear(&format!("{NAME}.0"), n_labels, n_latent).to_vec();
    }
    let own = config.classifier();
    let stack = DrawnStack {
        name: format!("{NAME}.0"),
        n_layers: own.n_layers,
        n_in: n_latent,
        n_hidden: own.n_hidden,
        n_covariates: 0,
        inject: false,
    };
    stack.layers().chain(Drawn::linear(&format!("{NAME}.1"), n_labels, own.n_hidden)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{CATEGORICAL, CONTINUOUS, Encoding, LABELS, LabelNames},
        start::draw,
        zoo::scvi::ScviConfig,
    };

    // import torch; from scvi.module import SCANVAE  # scvi-tools 1.4.2
    // torch.manual_seed(7)
    // m = SCANVAE(n_input=20, n_batch=3, n_labels=3, n_cats_per_cov=[2], n_continuous_cov=1, n_hidden=4, n_latent=2,
    //             n_layers=2, encode_covariates=True, deeply_inject_covariates=True, linear_classifier=False)
    // for name, t in m.state_dict().items():  # all but batch norm
    //     print(name, float(t.flatten()[-1]))
    const LAST_VALUES: &[(&str, f32)] = &[
        ("px_r", -0.356723),
        ("decoder.px_dropout_decoder.bias", -0.128215),
        ("classifier.classifier.0.fc_layers.Layer 0.0.weight", 0.0685266),
        ("classifier.classifier.0.fc_layers.Layer 0.0.bias", -0.615805),
        ("classifier.classifier.0.fc_layers.Layer 1.0.weight", 0.121318),
        ("classifier.classifier.0.fc_layers.Layer 1.0.bias", -0.210968),
        ("classifier.classifier.1.weight", 0.127614),
        ("classifier.classifier.1.bias", -0.217189),
        ("encoder_z2_z1.encoder.fc_layers.Layer 0.0.weight", 0.0423319),
        ("encoder_z2_z1.encoder.fc_layers.Layer 0.0.bias", 0.151865),
        ("encoder_z2_z1.encoder.fc_layers.Layer 1.0.weight", 0.319264),
        ("encoder_z2_z1.encoder.fc_layers.Layer 1.0.bias", 0.0802508),
        ("encoder_z2_z1.mean_encoder.weight", -0.31399),
        ("encoder_z2_z1.mean_encoder.bias", 0.226474),
        ("encoder_z2_z1.var_encoder.weight", -0.0641647),
        ("encoder_z2_z1.var_encoder.bias", 0.30733),
        ("decoder_z1_z2.decoder.fc_layers.Layer 0.0.weight", -0.0293896),
        ("decoder_z1_z2.decoder.fc_layers.Layer 0.0.bias", -0.186513),
        ("decoder_z1_z2.decoder.fc_layers.Layer 1.0.weight", 0.0158575),
        ("decoder_z1_z2.decoder.fc_layers.Layer 1.0.bias", 0.122882),
        ("decoder_z1_z2.mean_decoder.weight", -0.248476),
        ("decoder_z1_z2.mean_decoder.bias", -0.319329),
        ("decoder_z1_z2.var_decoder.weight", 0.467628),
        ("decoder_z1_z2.var_decoder.bias", 0.163806),
    ];

    // The same with linear_classifier=True.
    const LAST_VALUES_LINEAR: &[(&str, f32)] = &[
        ("classifier.classifier.0.weight", -0.503101),
        ("classifier.classifier.0.bias", 0.651389),
        ("encoder_z2_z1.encoder.fc_layers.Layer 0.0.weight", 0.374492),
        ("decoder_z1_z2.var_decoder.bias", -0.409572),
    ];

    fn check(linear_classifier: bool, expected: &[(&str, f32)], n_tensors: usize) {
        let scvi = ScviConfig {
            n_hidden: 4,
            n_latent: 2,
            n_layers: 2,
            encode_covariates: true,
            deeply_inject_covariates: true,
            ..ScviConfig::default()
        };
        let mut config = ScanviConfig { scvi, ..ScanviConfig::default() };
        config.own.linear_classifier = linear_classifier;
        let names = ["B", "NK", "T"].map(str::to_owned).to_vec();
        let site = [("site".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into();
        let registry = Registry::default()
            .with(LABELS, Encoding::Labels(LabelNames { names, unlabelled: None }))
            .with(CATEGORICAL, Encoding::Categories(site))
            .with(CONTINUOUS, Encoding::Numbers(vec!["age".to_owned()]));
        let drawn = draw(&order(&config, &registry, 20, 3).unwrap(), 7);
        assert_eq!(drawn.len(), n_tensors);
        for (name, expected) in expected {
            let values = drawn.require("the start", name).unwrap().to_f32(name).unwrap();
            let found = *values.last().unwrap();
            assert!((found - expected).abs() <= 2e-6, "{name}: {found} is not {expected}");
        }
    }

    #[test]
    fn every_tensor_starts_where_upstream_starts_it() {
        check(false, LAST_VALUES, 47);
        check(true, LAST_VALUES_LINEAR, 43);
    }
}
