//! What totalVI says of protein counts.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::{PROTEINS, ProteinParameters};
use crate::{
    data::{Slot, Values, slot::Matrix},
    results::{Block, BlockCard, LibraryAsk, gamma, poisson, to_vec},
};

/// The proteins of some cells. Efficiencies of conditions are not part of it.
pub(super) struct ProteinBlock(pub(super) ProteinParameters);

/// The block of this field.
pub(super) const fn card(proteins: Slot<Matrix>) -> BlockCard {
    BlockCard {
        field: PROTEINS,
        slot: Some(proteins),
        values: Values::Counts,
        feature: "protein",
        prior_expression: PRIOR_EXPRESSION,
        pseudocount: Some(PSEUDOCOUNT),
    }
}

impl Block for ProteinBlock {
    /// The expected foreground; there is no library size.
    fn expression(&self, _library: LibraryAsk) -> Tensor {
        let background = self.0.mixing.sigmoid();
        &self.0.rate_fore * (1.0 - &background)
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let Self(parameters) = self;
        let background = drawn_background(parameters, rng);
        let means = to_vec(&(&parameters.rate_fore * (1.0 - &background) + &parameters.rate_back * &background));
        let draw = |(&mean, r): (&f32, f32)| poisson(gamma(f64::from(r), f64::from(mean), rng), rng);
        means.iter().zip(shapes(parameters)).map(draw).collect()
    }

    /// The foreground; a protein drawn to be background is 0.
    fn denoised(&self, log: bool, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let Self(parameters) = self;
        let (shapes, background) = (shapes(parameters), to_vec(&drawn_background(parameters, rng)));
        let draw = |(i, &mean): (usize, &f32)| {
            let drawn = gamma(f64::from(shapes[i]), f64::from(mean), rng) * f64::from(1.0 - background[i]);
            if log { drawn.ln_1p() } else { drawn }
        };
        to_vec(&parameters.rate_fore).iter().enumerate().map(draw).collect()
    }
}

/// 1 where a count is drawn to be background, else 0.
pub(super) fn drawn_background(parameters: &ProteinParameters, rng: &mut ChaCha8Rng) -> Tensor {
    let probability = parameters.mixing.sigmoid();
    let bits: Vec<f32> = to_vec(&probability).iter().map(|&p| f32::from(u8::from(rng.random::<f32>() < p))).collect();
    Tensor::from_slice(&bits).reshape_as(&probability).to_device(probability.device())
}

fn shapes(parameters: &ProteinParameters) -> Vec<f32> {
    to_vec(&parameters.r.expand_as(&parameters.rate_fore).contiguous())
}

/// Added to the expression of proteins before fold changes are taken, upstream's.
const PRIOR_EXPRESSION: f32 = 0.1;
/// Upstream compares genes and proteins together with a small fixed pseudocount.
const PSEUDOCOUNT: f64 = 1e-5;
