//! The space in which mvTCR's options are searched: upstream's. It searches by an estimator (tree-structured Parzen); here points are
//! drawn at random.

use rand::{Rng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::model::{Config, Trial};

/// A point of the space.
pub(super) fn draw(rng: &mut ChaCha8Rng) -> Trial {
    let steps = |rng: &mut ChaCha8Rng, low: usize, high: usize, step: usize| {
        low + step * rng.random_range(0..=(high.max(low) - low) / step)
    };
    let hundredths = |rng: &mut ChaCha8Rng| f64::from(rng.random_range(0..=6_u8)) * 5.0 / 100.0;
    let between = |rng: &mut ChaCha8Rng, low: f64, high: f64| rng.random_range(low.ln()..high.ln()).exp();
    let activation = *["linear", "leakyrelu"].choose(rng).expect("there are two");
    let gene_width = steps(rng, 500, 2_000, 250);
    // Each part is no wider than the one before it.
    let hdim = steps(rng, 100, gene_width.min(800), 100);
    let shared = steps(rng, 100, (2 * hdim).min(500), 100);
    let n_shared = if activation == "leakyrelu" { rng.random_range(1..=3) } else { 1 };
    let n_genes_layers = rng.random_range(1..=3);
    let n_layers = rng.random_range(1..=4);
    let dropout = hundredths(rng);
    let options = [
        ("activation", json!(activation)),
        ("dropout", json!(dropout)),
        ("hdim", json!(hdim)),
        ("shared_hidden", json!(vec![shared; n_shared])),
        ("zdim", json!(steps(rng, 5, shared.min(50), 5))),
        ("gene_hidden", json!(vec![gene_width; n_genes_layers])),
        ("gene_dropout", json!(dropout)),
        ("embedding_size", json!(*[16, 32, 64].choose(rng).expect("there are three"))),
        ("num_heads", json!(*[2, 4, 8].choose(rng).expect("there are three"))),
        ("encoding_layers", json!(n_layers)),
        ("decoding_layers", json!(n_layers)),
        ("tcr_dropout", json!(hundredths(rng))),
        ("loss_weights", json!([1.0, between(rng, 1e-5, 1.0), between(rng, 1e-10, 1e-4)])),
    ];
    let options: Config = options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Trial { options, rate: between(rng, 1e-5, 1e-3) }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::zoo::mvtcr::MvtcrConfig;

    #[test]
    fn every_point_is_a_model_and_seeds_decide() {
        let of = |seed: u64| draw(&mut ChaCha8Rng::seed_from_u64(seed));
        for seed in 0..200 {
            let Trial { options, rate } = of(seed);
            let config = MvtcrConfig::parse(&options).unwrap();
            assert!(config.zdim <= config.shared_hidden[0] && (1e-5..1e-3).contains(&rate), "{config:?}");
        }
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
