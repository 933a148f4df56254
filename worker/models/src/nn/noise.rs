//! Random numbers of a pass, drawn by ourselves: libtorch's generator is shared by all threads of a process.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use tch::{Device, Kind, Tensor};

/// Where a pass gets its random numbers from.
pub trait Noise {
    /// Standard-normal numbers for a sampling site such as `z` or `l`.
    fn normal(&mut self, site: &'static str, shape: &[i64], device: Device) -> Tensor;

    /// 1 where a unit is kept and 0 where it is dropped, for a dropout layer; `None` keeps everything.
    fn keep(&mut self, layer: &str, shape: &[i64], rate: f64, device: Device) -> Option<Tensor>;

    /// What [`Self::normal`] gives for a matrix, row by row.
    fn fill_normal(&mut self, site: &'static str, shape: [usize; 2], out: &mut [f32]) {
        let drawn = self.normal(site, &shape.map(|n| n as i64), Device::Cpu);
        drawn.to_kind(Kind::Float).contiguous().view([-1]).copy_data(out, out.len());
    }

    /// What [`Self::keep`] gives for a matrix, row by row; whether it gives something.
    fn fill_keep(&mut self, layer: &str, shape: [usize; 2], rate: f64, out: &mut [f32]) -> bool {
        let kept = self.keep(layer, &shape.map(|n| n as i64), rate, Device::Cpu);
        if let Some(kept) = &kept {
            kept.to_kind(Kind::Float).contiguous().view([-1]).copy_data(out, out.len());
        }
        kept.is_some()
    }

    /// Takes the next numbers that `n` units of a dropout layer are kept by out of this noise, to be drawn later, by another thread;
    /// `None` where that cannot be told.
    fn take_keep(&mut self, _layer: &str, _n: usize) -> Option<SeededNoise> {
        None
    }
}

/// Noise from a seed: the same numbers on every machine, whatever else the process does.
#[derive(Clone, Debug)]
pub struct SeededNoise(ChaCha8Rng);

impl SeededNoise {
    /// Noise of this seed.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }

    fn draw_normal(&mut self, out: &mut [f32]) {
        out.fill_with(|| self.0.sample(StandardNormal));
    }

    /// 1 where a unit is kept and 0 where it is dropped, at this rate.
    pub(crate) fn draw_keep(&mut self, rate: f64, out: &mut [f32]) {
        let threshold = (rate * 2.0_f64.powi(32)) as u32;
        let mut words = [0_u32; 64];
        for out in out.chunks_mut(words.len()) {
            let words = &mut words[..out.len()];
            self.0.fill(words);
            out.iter_mut().zip(words).for_each(|(out, word)| *out = f32::from(u8::from(*word >= threshold)));
        }
    }

    /// Leaves out what [`Self::draw_keep`] would draw for so many units.
    pub(crate) fn skip_keep(&mut self, n: usize) {
        self.0.set_word_pos(self.0.get_word_pos() + n as u128);
    }
}

impl Noise for SeededNoise {
    fn normal(&mut self, _: &'static str, shape: &[i64], device: Device) -> Tensor {
        let mut values = vec![0.0; count(shape)];
        self.draw_normal(&mut values);
        Tensor::from_slice(&values).view(shape).to_device(device)
    }

    fn keep(&mut self, _: &str, shape: &[i64], rate: f64, device: Device) -> Option<Tensor> {
        if rate <= 0.0 {
            return None;
        }
        let mut values = vec![0.0; count(shape)];
        self.draw_keep(rate, &mut values);
        Some(Tensor::from_slice(&values).view(shape).to_device(device))
    }

    fn fill_normal(&mut self, _: &'static str, _: [usize; 2], out: &mut [f32]) {
        self.draw_normal(out);
    }

    fn fill_keep(&mut self, _: &str, _: [usize; 2], rate: f64, out: &mut [f32]) -> bool {
        self.draw_keep(rate, out);
        true
    }

    fn take_keep(&mut self, _: &str, n: usize) -> Option<SeededNoise> {
        let taken = self.clone();
        self.skip_keep(n);
        Some(taken)
    }
}

fn count(shape: &[i64]) -> usize {
    shape.iter().product::<i64>() as usize
}
