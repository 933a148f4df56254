//! Batch norm and layer norm.

use tch::Tensor;

use super::{Builder, Init, Mode, Role};
use crate::{error::Result, fast::BatchNormSpec};

/// How a package sets batch norm up.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BatchNormOptions {
    /// Added to the variance.
    pub eps: f64,
    /// Share of a minibatch in the running statistics.
    pub momentum: f64,
}

impl BatchNormOptions {
    /// As scvi-tools sets it up.
    pub const SCVI_TOOLS: Self = Self { eps: 1e-3, momentum: 0.01 };
    /// As PyTorch sets it up where nothing is said.
    pub const TORCH: Self = Self { eps: 1e-5, momentum: 0.1 };
}

/// Batch norm over cells, affine.
#[derive(Debug)]
pub struct BatchNorm {
    name: String,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    n_batches: Tensor,
    options: BatchNormOptions,
    /// Whether the running statistics stay as they are, in training too.
    is_kept: bool,
}

impl BatchNorm {
    /// Batch norm of `n` units as scvi-tools sets it up.
    ///
    /// # Errors  as [`Self::with`]
    pub fn new(builder: &mut Builder<'_>, name: &str, n: usize) -> Result<Self> {
        let momentum = builder.rules().momentum(name);
        Self::with(builder, name, n, BatchNormOptions { momentum, ..BatchNormOptions::SCVI_TOOLS })
    }

    /// Batch norm of `n` units; tensors `{name}.weight`, `.bias`, `.running_mean`, `.running_var`, `.num_batches_tracked`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn with(builder: &mut Builder<'_>, name: &str, n: usize, options: BatchNormOptions) -> Result<Self> {
        let is_kept = builder.rules().keeps_statistics(name);
        let mut tensor =
            |part: &str, role, value| builder.tensor(&format!("{name}.{part}"), &[n], role, Init::Constant(value));
        Ok(Self {
            name: name.to_owned(),
            weight: tensor("weight", Role::Parameter, 1.0)?,
            bias: tensor("bias", Role::Parameter, 0.0)?,
            running_mean: tensor("running_mean", Role::Buffer, 0.0)?,
            running_var: tensor("running_var", Role::Buffer, 1.0)?,
            n_batches: builder.tensor(&format!("{name}.num_batches_tracked"), &[], Role::Buffer, Init::Counter)?,
            options,
            is_kept,
        })
    }

    /// What the kernels are told about it.
    pub(crate) fn spec(&self) -> BatchNormSpec {
        let BatchNormOptions { eps, momentum } = self.options;
        BatchNormSpec { name: self.name.clone(), eps, momentum: (!self.is_kept).then_some(momentum) }
    }

    /// Normalises each unit over cells. Three dimensions occur in evaluation only, where cells do not interact.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let training = mode == Mode::Training;
        let moves = training && !self.is_kept;
        if moves {
            let _ = self.n_batches.shallow_clone().g_add_scalar_(1);
        }
        let flat = x.reshape([-1, self.weight.size()[0]]);
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        let statistics = |of| (moves || !training).then_some(of);
        let (mean, var) = (statistics(&self.running_mean), statistics(&self.running_var));
        let BatchNormOptions { eps, momentum } = self.options;
        flat.batch_norm(weight, bias, mean, var, training, momentum, eps, false).reshape_as(x)
    }
}

/// Normalises each cell over units: eps 1e-5, no parameters.
pub(crate) fn layer_norm(x: &Tensor) -> Tensor {
    let n = x.size().last().copied().unwrap_or(1);
    x.layer_norm([n], None::<&Tensor>, None::<&Tensor>, 1e-5, false)
}
