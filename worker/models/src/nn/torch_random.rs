//! PyTorch's generator on the CPU, so that a seed starts a model where scvi-tools starts it.

use crate::data::RandomState;

/// `torch.Generator` after `torch.manual_seed`: a Mersenne Twister and PyTorch's own ways from its words to numbers.
pub struct TorchGenerator(RandomState);

impl TorchGenerator {
    /// Fewer normal numbers cannot be drawn as PyTorch draws them.
    pub const FEWEST_NORMAL: usize = BLOCK;

    /// The generator after `torch.manual_seed(seed)`, of which PyTorch uses the lower 32 bits.
    pub fn new(seed: u32) -> Self {
        Self(RandomState::new(seed))
    }

    /// What `torch.empty(n).uniform_(-bound, bound)` holds: 24 random bits a number, in order.
    pub fn symmetric(&mut self, n: usize, bound: f32) -> Vec<f32> {
        (0..n).map(|_| self.unit() * (bound + bound) - bound).collect()
    }

    /// What `torch.randn(n)` holds, up to the last bits of its logarithm and cosine.
    ///
    /// From 16 numbers on, PyTorch turns blocks of 16 uniform numbers into 16 normal ones (Box–Muller on the halves of
    /// a block) and draws the last 16 afresh where `n` is no multiple of 16; fewer than 16 are drawn in another way, which no
    /// model here needs.
    ///
    /// # Panics  for fewer than 16 numbers
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        assert!(n >= BLOCK, "{n} numbers are fewer than a block");
        let mut values: Vec<f32> = (0..n).map(|_| self.unit()).collect();
        let whole = n - n % BLOCK;
        values[..whole].chunks_exact_mut(BLOCK).for_each(box_muller);
        if whole < n {
            let last = &mut values[n - BLOCK..];
            last.fill_with(|| self.unit());
            box_muller(last);
        }
        values
    }

    /// A number from 0 up to 1.
    fn unit(&mut self) -> f32 {
        const BITS: u32 = 24;
        (self.0.next_u32() & ((1 << BITS) - 1)) as f32 / (1_u32 << BITS) as f32
    }
}

fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
        let angle = std::f32::consts::TAU * *b;
        (*a, *b) = (radius * angle.cos(), radius * angle.sin());
    }
}

/// Numbers that PyTorch makes at a time.
const BLOCK: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: &[f32], expected: &[f32]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-6, "{found} is not {expected}");
        }
    }

    // import torch
    // torch.manual_seed(0); print(torch.empty(4).uniform_(-.5, .5)); print(torch.randn(20)[[0, 8, 15, 16, 19]])
    #[test]
    fn numbers_are_those_of_pytorch() {
        let mut generator = TorchGenerator::new(0);
        check(&generator.symmetric(4, 0.5), &UNIFORM);
        let normal = generator.normal(20);
        check(&[0, 8, 15, 16, 19].map(|i| normal[i]), &NORMAL);
    }

    const UNIFORM: [f32; 4] = [-0.0037434, 0.2682218, -0.4115226, -0.3679695];
    const NORMAL: [f32; 5] = [0.8487104, 0.1664553, 0.0537369, 0.6180567, -2.316_042];
}
