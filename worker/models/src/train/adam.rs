//! Adam, owning exactly the tensors it may move.
//!
//! Our own, because libtorch's cannot be saved and resumed, and because upstream's surgery needs tensors whose
//! gradient is masked while weight decay still moves them.

use tch::{Tensor, no_grad};

use crate::kernels::adam;

/// Options of Adam; betas are 0.9 and 0.999.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamOptions {
    /// Step size.
    pub rate: f64,
    /// Added to the denominator. The field's 0.01 matters a lot.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// How weight decay acts.
    pub decay: Decay,
}

impl AdamOptions {
    /// The numbers of the step that comes after so many, this one counted.
    pub(crate) fn kernel_step(&self, n_steps: i64) -> adam::Step {
        let (correction_1, correction_2) = Adam::corrections(n_steps);
        let (decay, kept) = match self.decay {
            Decay::L2 => (self.weight_decay, 1.0),
            Decay::Decoupled => (0.0, 1.0 - self.rate * self.weight_decay),
        };
        adam::Step {
            rate: (self.rate / correction_1) as f32,
            inverse_correction: (1.0 / correction_2.sqrt()) as f32,
            eps: self.eps as f32,
            weight_decay: decay as f32,
            kept: kept as f32,
        }
    }
}

/// How weight decay acts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decay {
    /// Added to the gradient: Adam.
    L2,
    /// Apart from the gradient: AdamW.
    Decoupled,
}

/// Adam and its state.
#[derive(Debug)]
pub struct Adam {
    options: AdamOptions,
    slots: Vec<Slot>,
}

/// One tensor and its moments.
#[derive(Debug)]
pub struct Slot {
    /// Name of the tensor.
    pub name: String,
    /// The tensor.
    pub tensor: Tensor,
    /// Whether its gradient counts; if not, weight decay alone moves it.
    pub gradient: GradientUse,
    /// Mean of the gradients.
    pub mean: Tensor,
    /// Mean of their squares.
    pub square: Tensor,
    /// Steps in which it had a gradient.
    pub n_steps: i64,
}

/// What the optimiser does with a tensor's gradient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GradientUse {
    /// It moves the tensor.
    Applied,
    /// It is multiplied by 0, as upstream's masks do.
    Masked,
}

impl Adam {
    /// An optimiser of these tensors.
    pub fn new(options: AdamOptions, tensors: impl IntoIterator<Item = (String, Tensor, GradientUse)>) -> Self {
        let slot = |(name, tensor, gradient): (String, Tensor, GradientUse)| {
            let (mean, square) = (tensor.zeros_like(), tensor.zeros_like());
            let (mean, square) = (mean.set_requires_grad(false), square.set_requires_grad(false));
            Slot { name, tensor, gradient, mean, square, n_steps: 0 }
        };
        Self { options, slots: tensors.into_iter().map(slot).collect() }
    }

    pub(super) fn into_slots(self) -> Vec<Slot> {
        self.slots
    }

    /// Current step size.
    pub fn rate(&self) -> f64 {
        self.options.rate
    }

    /// Changes the step size.
    pub fn set_rate(&mut self, rate: f64) {
        self.options.rate = rate;
    }

    /// The tensors and their state.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The tensors and their state, to restore them.
    pub fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    /// Computes the gradients of `loss` and moves every tensor that got one.
    pub fn minimise(&mut self, loss: &Tensor) {
        for slot in &mut self.slots {
            slot.tensor.zero_grad();
        }
        loss.backward();
        no_grad(|| self.step());
    }

    /// What the moments lack after so many steps.
    pub(crate) fn corrections(n_steps: i64) -> (f64, f64) {
        let steps = n_steps as f64;
        (1.0 - BETA_1.powf(steps), 1.0 - BETA_2.powf(steps))
    }

    /// The options.
    pub fn options(&self) -> &AdamOptions {
        &self.options
    }

    /// Moves every tensor that has a gradient.
    pub fn step(&mut self) {
        let options = self.options;
        for slot in &mut self.slots {
            let gradient = slot.tensor.grad();
            if gradient.defined() {
                slot.step(gradient, &options);
            }
        }
    }
}

impl Slot {
    fn step(&mut self, gradient: Tensor, options: &AdamOptions) {
        let gradient = match self.gradient {
            GradientUse::Applied => gradient,
            GradientUse::Masked => gradient.zeros_like(),
        };
        let step = options.kernel_step(self.n_steps + 1);
        if adam::step_tensor(step, &gradient, &mut self.tensor, &mut self.mean, &mut self.square) {
            self.n_steps += 1;
            return;
        }
        let gradient = match options.decay {
            _ if options.weight_decay == 0.0 => gradient,
            Decay::L2 => gradient + &self.tensor * options.weight_decay,
            Decay::Decoupled => {
                let _ = self.tensor.g_mul_scalar_(1.0 - options.rate * options.weight_decay);
                gradient
            }
        };
        self.n_steps += 1;
        let _ = self.mean.lerp_(&gradient, 1.0 - BETA_1);
        let _ = self.square.g_mul_scalar_(BETA_2).g_add_(&(&gradient * &gradient * (1.0 - BETA_2)));
        let (correction_1, correction_2) = Adam::corrections(self.n_steps);
        let denominator = (self.square.sqrt() / correction_2.sqrt()).g_add_scalar_(options.eps);
        let _ = self.tensor.g_sub_(&(&self.mean / denominator * (options.rate / correction_1)));
    }
}

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
