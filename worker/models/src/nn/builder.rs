//! Hands out the tensors that layers ask for: fresh, or from a stored reference.

use archipelago_common::{Columns, DType, StateDict, state_dict::TensorSpec};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use tch::{Device, Tensor};

use super::{Role, Weight, Weights, to_tch};
use crate::error::{Error, Result};

/// How a fresh tensor starts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Init {
    /// Uniform on `[-1/sqrt(fan_in), 1/sqrt(fan_in)]`.
    FanIn(usize),
    /// Uniform on `[low, high]`.
    Uniform(f64, f64),
    /// Standard normal.
    Normal,
    /// One number everywhere.
    Constant(f64),
    /// A counter at zero.
    Counter,
}

/// Where the tensors that conditions do not own come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Fresh random numbers.
    Fresh,
    /// A stored base.
    Stored(&'a StateDict),
    /// A stored base of a smaller model; fresh where it lacks a tensor.
    Pretrained(&'a StateDict),
}

/// Where the rows of the conditions come from.
#[derive(Clone, Copy)]
pub enum ConditionSource<'a> {
    /// Fresh random numbers for so many conditions.
    Fresh(usize),
    /// The mean row that the base keeps, for one condition; fresh where it keeps none.
    Mean,
    /// Stored columns, in order of the codes.
    Stored(&'a [&'a Columns]),
}

/// Which tensors get gradients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trainable {
    /// None: the module is only evaluated.
    Nothing,
    /// The rows of the conditions: exact surgery.
    Conditions,
    /// Everything with a trainable role.
    Everything,
}

/// What differs from layer to layer when a module is built for upstream's surgery.
pub trait LayerRules {
    /// Momentum of the running statistics of a batch norm layer.
    fn momentum(&self, _layer: &str) -> f64 {
        0.01
    }

    /// Dropout rate of a layer, given the model's.
    fn dropout(&self, _layer: &str, rate: f64) -> f64 {
        rate
    }
}

/// The rules of a model that is trained as a whole.
struct NoRules;

impl LayerRules for NoRules {}

/// Builds a module's tensors one by one and collects them.
pub struct Builder<'a> {
    source: Source<'a>,
    conditions: ConditionSource<'a>,
    trainable: Trainable,
    rules: &'a dyn LayerRules,
    rng: ChaCha8Rng,
    weights: Weights,
}

impl<'a> Builder<'a> {
    /// A builder for one module. `seed` matters where something is fresh.
    pub fn new(
        source: Source<'a>,
        conditions: ConditionSource<'a>,
        trainable: Trainable,
        seed: [u8; 32],
        device: Device,
    ) -> Self {
        let n_conditions = match conditions {
            ConditionSource::Fresh(n) => n,
            ConditionSource::Mean => 1,
            ConditionSource::Stored(columns) => columns.len(),
        };
        let weights = Weights::new(device, n_conditions);
        Self { source, conditions, trainable, rules: &NoRules, rng: ChaCha8Rng::from_seed(seed), weights }
    }

    /// The same builder under other layer rules.
    #[must_use]
    pub fn with_rules(self, rules: &'a dyn LayerRules) -> Self {
        Self { rules, ..self }
    }

    /// Number of conditions the module is built for.
    pub fn n_conditions(&self) -> usize {
        self.weights.n_conditions()
    }

    /// What differs from layer to layer.
    pub fn rules(&self) -> &'a dyn LayerRules {
        self.rules
    }

    /// The tensors collected so far, for a network that is part of a larger one.
    pub fn collected(&self) -> Weights {
        self.weights.share()
    }

    /// The collected tensors.
    pub fn finish(self) -> Weights {
        self.weights
    }

    /// A tensor that no condition owns.
    ///
    /// # Errors  [`Error::Common`] if the stored base lacks it, [`Error::TensorShape`] if it looks otherwise
    pub fn tensor(&mut self, name: &str, shape: &[usize], role: Role, init: Init) -> Result<Tensor> {
        let tensor = match self.source {
            Source::Pretrained(base) if base.get(name).is_none() => self.fresh(shape, init),
            Source::Fresh => self.fresh(shape, init),
            Source::Stored(base) | Source::Pretrained(base) => stored("the base", base, name, shape, init)?,
        };
        Ok(self.keep(name, tensor, role))
    }

    /// A tensor with one row of this shape per condition.
    ///
    /// # Errors  as [`Self::tensor`]
    pub fn condition_rows(&mut self, name: &str, row: &[usize], role: Role, init: Init) -> Result<Tensor> {
        let n_conditions = self.weights.n_conditions();
        let fresh_shape: Vec<usize> = std::iter::once(n_conditions).chain(row.iter().copied()).collect();
        let tensor = match (self.conditions, self.source) {
            (ConditionSource::Stored(columns), _) => {
                let rows: Result<Vec<Tensor>> =
                    columns.iter().map(|columns| stored("the columns", &columns.0, name, row, init)).collect();
                let rows = rows?;
                if rows.is_empty() { self.fresh(&fresh_shape, init) } else { Tensor::stack(&rows, 0) }
            }
            (ConditionSource::Mean, Source::Stored(base)) if base.get(&mean_name(name)).is_some() => {
                stored("the base", base, &mean_name(name), row, init)?.unsqueeze(0)
            }
            _ => self.fresh(&fresh_shape, init),
        };
        Ok(self.keep(name, tensor, role))
    }

    fn keep(&mut self, name: &str, tensor: Tensor, role: Role) -> Tensor {
        let trains = match self.trainable {
            Trainable::Nothing => false,
            Trainable::Conditions => role == Role::Condition,
            Trainable::Everything => role.is_trainable(),
        };
        let tensor = tensor.to_device(self.weights.device()).set_requires_grad(trains);
        self.weights.insert(name, Weight { tensor: tensor.shallow_clone(), role });
        tensor
    }

    fn fresh(&mut self, shape: &[usize], init: Init) -> Tensor {
        let sizes: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let count = shape.iter().product();
        let values: Vec<f32> = match init {
            Init::FanIn(fan_in) => {
                let bound = 1.0 / (fan_in.max(1) as f32).sqrt();
                (0..count).map(|_| self.rng.random_range(-bound..=bound)).collect()
            }
            Init::Uniform(low, high) => (0..count).map(|_| self.rng.random_range(low..=high) as f32).collect(),
            Init::Normal => (0..count).map(|_| self.rng.sample(StandardNormal)).collect(),
            Init::Constant(value) => vec![value as f32; count],
            Init::Counter => return Tensor::zeros(sizes.as_slice(), (tch::Kind::Int64, Device::Cpu)),
        };
        Tensor::from_slice(&values).view(sizes.as_slice())
    }
}

/// The name under which a base keeps the mean row of its training conditions.
pub fn mean_name(name: &str) -> String {
    format!("{name}.mean")
}

fn stored(what: &str, dict: &StateDict, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
    let found = dict.require(what, name)?;
    let dtype = if init == Init::Counter { DType::I64 } else { DType::F32 };
    let expected = TensorSpec { dtype, shape: shape.to_vec() };
    if found.spec() != expected {
        let (found, expected) = (found.spec().to_string(), expected.to_string());
        return Err(Error::TensorShape { name: name.to_owned(), found, expected });
    }
    to_tch(name, found)
}
