//! Tensors of one graph network, by the names that upstream gives them.

use std::collections::BTreeMap;

use archipelago_common::StateDict;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::{
    error::{Error, Result},
    nn::{from_tch, to_tch},
};

/// Hands out tensors, fresh or stored, and keeps them.
#[derive(Debug)]
pub(super) struct Parameters<'a> {
    source: From<'a>,
    tensors: Tensors,
}

/// The tensors of a network.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    /// What is trained.
    pub(super) trained: BTreeMap<String, Tensor>,
    /// What moves with training and has no gradient.
    pub(super) buffers: BTreeMap<String, Tensor>,
}

#[derive(Debug)]
enum From<'a> {
    Fresh(Box<ChaCha8Rng>),
    Stored(&'a StateDict),
}

/// How a fresh tensor starts: as the layers of PyTorch and of its geometric extension do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Start {
    /// Uniform on plus and minus this number.
    Within(f64),
    /// One number everywhere.
    At(f64),
}

impl Start {
    /// Of a linear map that takes so many numbers, and of its bias.
    pub(super) fn fan_in(n_in: usize) -> Self {
        Self::Within(1.0 / (n_in.max(1) as f64).sqrt())
    }

    /// Glorot's: of a map from so many numbers to so many.
    pub(super) fn glorot(n_in: usize, n_out: usize) -> Self {
        Self::Within((6.0 / (n_in + n_out).max(1) as f64).sqrt())
    }
}

impl<'a> Parameters<'a> {
    pub(super) fn fresh(seed: [u8; 32]) -> Self {
        Self { source: From::Fresh(Box::new(ChaCha8Rng::from_seed(seed))), tensors: Tensors::default() }
    }

    pub(super) fn stored(tensors: &'a StateDict) -> Self {
        Self { source: From::Stored(tensors), tensors: Tensors::default() }
    }

    /// A tensor that is trained.
    ///
    /// # Errors  [`Error::Common`] where the stored ones lack it, [`Error::TensorShape`]
    pub(super) fn trained(&mut self, name: &str, shape: &[usize], start: Start) -> Result<Tensor> {
        let tensor = self.tensor(name, shape, start)?.set_requires_grad(true);
        self.tensors.trained.insert(name.to_owned(), tensor.shallow_clone());
        Ok(tensor)
    }

    /// A tensor that moves with training and has no gradient.
    ///
    /// # Errors  as [`Self::trained`]
    pub(super) fn buffer(&mut self, name: &str, shape: &[usize], start: Start) -> Result<Tensor> {
        let tensor = self.tensor(name, shape, start)?;
        self.tensors.buffers.insert(name.to_owned(), tensor.shallow_clone());
        Ok(tensor)
    }

    /// A counter.
    ///
    /// # Errors  as [`Self::trained`]
    pub(super) fn counter(&mut self, name: &str) -> Result<Tensor> {
        let tensor = match &self.source {
            From::Fresh(_) => Tensor::zeros([0_i64; 0], (Kind::Int64, tch::Device::Cpu)),
            From::Stored(stored) => to_tch(name, stored.require(WHAT, name)?)?,
        };
        self.tensors.buffers.insert(name.to_owned(), tensor.shallow_clone());
        Ok(tensor)
    }

    pub(super) fn finish(self) -> Tensors {
        self.tensors
    }

    fn tensor(&mut self, name: &str, shape: &[usize], start: Start) -> Result<Tensor> {
        let sizes: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        match &mut self.source {
            From::Fresh(rng) => {
                let n = shape.iter().product();
                let mut draw = || match start {
                    Start::Within(bound) => rng.random_range(-bound..=bound) as f32,
                    Start::At(value) => value as f32,
                };
                let values: Vec<f32> = (0..n).map(|_| draw()).collect();
                Ok(Tensor::from_slice(&values).view(sizes.as_slice()))
            }
            From::Stored(stored) => {
                let tensor = to_tch(name, stored.require(WHAT, name)?)?;
                let is_real = matches!(tensor.kind(), Kind::Float | Kind::Double);
                if tensor.size() != sizes || !is_real {
                    let found = format!("{:?} of {:?}", tensor.size(), tensor.kind());
                    return Err(Error::TensorShape { name: name.to_owned(), found, expected: format!("{sizes:?}") });
                }
                Ok(tensor)
            }
        }
    }
}

impl Tensors {
    /// All of them, as values.
    pub(super) fn state(&self) -> StateDict {
        self.trained.iter().chain(&self.buffers).map(|(name, tensor)| (name.clone(), from_tch(tensor))).collect()
    }
}

const WHAT: &str = "the network";
