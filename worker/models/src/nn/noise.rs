//! Random numbers of a pass, drawn by ourselves: libtorch's generator is shared by all threads of a process.

use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use tch::{Device, Tensor};

/// Where a pass gets its random numbers from.
pub trait Noise {
    /// Standard-normal numbers for a sampling site such as `z` or `l`.
    fn normal(&mut self, site: &'static str, shape: &[i64], device: Device) -> Tensor;

    /// 1 where a unit is kept and 0 where it is dropped, for a dropout layer; `None` keeps everything.
    fn keep(&mut self, layer: &str, shape: &[i64], rate: f64, device: Device) -> Option<Tensor>;
}

/// Noise from a seed: the same numbers on every machine, whatever else the process does.
pub struct SeededNoise(ChaCha8Rng);

impl SeededNoise {
    /// Noise of this seed.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }
}

impl Noise for SeededNoise {
    fn normal(&mut self, _: &'static str, shape: &[i64], device: Device) -> Tensor {
        let values: Vec<f32> = (0..count(shape)).map(|_| self.0.sample(StandardNormal)).collect();
        Tensor::from_slice(&values).view(shape).to_device(device)
    }

    fn keep(&mut self, _: &str, shape: &[i64], rate: f64, device: Device) -> Option<Tensor> {
        if rate <= 0.0 {
            return None;
        }
        let threshold = (rate * 2.0_f64.powi(32)) as u32;
        let values: Vec<f32> = (0..count(shape)).map(|_| f32::from(self.0.next_u32() >= threshold)).collect();
        Some(Tensor::from_slice(&values).view(shape).to_device(device))
    }
}

fn count(shape: &[i64]) -> usize {
    shape.iter().product::<i64>() as usize
}
