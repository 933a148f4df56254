//! The classifier that totalVI plays against: it guesses conditions from latent states, and the model learns to fool it.
//!
//! Where conditions measured different proteins, what was measured would tell them apart; this pushes it out of the latent state.

use archipelago_common::StateDict;
use tch::{Device, Kind, Tensor};

use crate::{
    data::Covariates,
    error::Result,
    losses::LossTerms,
    nn::{
        Activation, Builder, ConditionSource, CovariateSizes, Linear, Mode, Pass, Source, Stack, StackOptions,
        Trainable, Weights,
    },
    train::{Adam, AdamOptions, GradientUse, Hook, Step, restore_state, state_of},
};

/// A classifier of conditions and its optimiser. It is not part of the model and not kept with it.
#[derive(Debug)]
pub struct Adversary {
    stack: Stack,
    head: Linear,
    weights: Weights,
    adam: Adam,
    n_conditions: i64,
    /// What it guesses from in the step that is under way.
    latent: Option<Tensor>,
}

impl Adversary {
    /// A fresh classifier of `n_latent` numbers into `n_conditions`, at least two, with the model's optimiser at a rate of its
    /// own.
    ///
    /// # Errors  those of libtorch
    pub fn new(
        n_latent: usize,
        n_conditions: usize,
        options: AdamOptions,
        seed: [u8; 32],
        device: Device,
    ) -> Result<Self> {
        let builder = Builder::new(Source::Fresh, ConditionSource::Fresh(0), Trainable::Everything, seed, device);
        Self::build(n_latent, n_conditions, AdamOptions { rate: RATE, ..options }, builder)
    }

    /// A classifier of the tensors that the builder hands out.
    ///
    /// # Errors  stored tensors that do not fit
    pub fn build(n_latent: usize, n_conditions: usize, options: AdamOptions, mut builder: Builder<'_>) -> Result<Self> {
        let stack = StackOptions {
            n_layers: 2,
            n_hidden: N_HIDDEN,
            n_out: N_HIDDEN,
            covariates: CovariateSizes::none(),
            inject: false,
            dropout: DROPOUT,
            batch_norm: true,
            batch_norm_offsets: false,
            layer_norm: false,
            activation: Activation::Relu,
        };
        let none = CovariateSizes::none();
        let stack = Stack::new(&mut builder, "classifier.0", n_latent, &stack)?;
        let head = Linear::new(&mut builder, "classifier.1", N_HIDDEN, n_conditions, &none)?;
        let weights = builder.finish();
        let trainable = weights.iter().filter(|(_, weight)| weight.role.is_trainable());
        let tensors = trainable.map(|(name, w)| (name.to_owned(), w.tensor.shallow_clone(), GradientUse::Applied));
        let adam = Adam::new(options, tensors.collect::<Vec<_>>());
        Ok(Self { stack, head, weights, adam, n_conditions: n_conditions as i64, latent: None })
    }

    /// How far the classifier is from taking cells for those of any other condition: what the model minimises, a scalar.
    pub fn fool_loss(&self, latent: &Tensor, condition: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let others = (self.one_hot(condition) * -1.0 + 1.0) / (self.n_conditions - 1) as f64;
        self.cross_entropy(latent, &others, pass)
    }

    /// Cross entropy of the classifier's guess, a scalar.
    pub fn loss(&self, latent: &Tensor, condition: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        self.cross_entropy(latent, &self.one_hot(condition), pass)
    }

    /// One step of learning, with a weight of the loss. No gradient reaches the model.
    pub fn learn(&mut self, latent: &Tensor, condition: &Tensor, weight: f64, pass: &mut Pass<'_>) {
        let loss = self.loss(&latent.detach(), condition, pass) * weight;
        self.adam.minimise(&loss);
    }

    /// Its tensors.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    fn cross_entropy(&self, latent: &Tensor, target: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let none = Covariates::none(latent);
        let hidden = self.stack.forward(latent, &none, pass);
        let log_probabilities = self.head.forward(&hidden, &none).log_softmax(1, Kind::Float);
        -(log_probabilities * target).sum_dim_intlist([1_i64].as_slice(), false, Kind::Float).mean(Kind::Float)
    }

    fn one_hot(&self, condition: &Tensor) -> Tensor {
        condition.one_hot(self.n_conditions).to_kind(Kind::Float)
    }
}

/// It is no part of the model, and trains whatever mode the model is in.
fn training<'a>(pass: &'a mut Pass<'_>) -> Pass<'a> {
    Pass { mode: Mode::Training, noise: &mut *pass.noise }
}

impl Hook for Adversary {
    /// The less the KL term weighs, the more the model has to fool the classifier.
    fn add_to_loss(&mut self, step: Step<'_>, terms: &mut LossTerms, pass: &mut Pass<'_>) {
        self.latent = terms.latent.take();
        if let Some(latent) = self.latent.as_ref().filter(|_| step.kl_weight < 1.0) {
            let fooled = self.fool_loss(latent, &step.minibatch.covariates.condition, &mut training(pass));
            terms.loss += fooled * (1.0 - step.kl_weight);
        }
    }

    fn after_step(&mut self, step: Step<'_>, pass: &mut Pass<'_>) {
        if let Some(latent) = self.latent.take() {
            self.learn(&latent, &step.minibatch.covariates.condition, 1.0 - step.kl_weight, &mut training(pass));
        }
    }

    fn state(&self) -> StateDict {
        state_of(&self.weights, &self.adam)
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        restore_state(state, &self.weights, &mut self.adam)
    }
}

/// Units of its layers, upstream's.
const N_HIDDEN: usize = 32;
/// Its dropout rate, upstream's.
const DROPOUT: f64 = 0.1;
/// Its step size, upstream's.
const RATE: f64 = 1e-3;
