//! Batch norm and layer norm as scvi-tools sets them up.

use tch::Tensor;

use super::{Builder, Init, Mode, Role};
use crate::error::Result;

/// Batch norm over cells: eps 1e-3, momentum 0.01, affine.
#[derive(Debug)]
pub struct BatchNorm {
    name: String,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    n_batches: Tensor,
    momentum: f64,
}

impl BatchNorm {
    /// Batch norm of `n` units; tensors `{name}.weight`, `.bias`, `.running_mean`, `.running_var`, `.num_batches_tracked`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn new(builder: &mut Builder<'_>, name: &str, n: usize) -> Result<Self> {
        let mut tensor =
            |part: &str, role, value| builder.tensor(&format!("{name}.{part}"), &[n], role, Init::Constant(value));
        Ok(Self {
            name: name.to_owned(),
            weight: tensor("weight", Role::Parameter, 1.0)?,
            bias: tensor("bias", Role::Parameter, 0.0)?,
            running_mean: tensor("running_mean", Role::Buffer, 0.0)?,
            running_var: tensor("running_var", Role::Buffer, 1.0)?,
            n_batches: builder.tensor(&format!("{name}.num_batches_tracked"), &[], Role::Buffer, Init::Counter)?,
            momentum: builder.rules().momentum(name),
        })
    }

    /// Its tensors' name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Normalises each unit over cells. Three dimensions occur in evaluation only, where cells do not interact.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let training = mode == Mode::Training;
        if training {
            let _ = self.n_batches.shallow_clone().g_add_scalar_(1);
        }
        let flat = x.reshape([-1, self.weight.size()[0]]);
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        let (mean, var) = (Some(&self.running_mean), Some(&self.running_var));
        flat.batch_norm(weight, bias, mean, var, training, self.momentum, EPS, false).reshape_as(x)
    }
}

/// Normalises each cell over units: eps 1e-5, no parameters.
pub(super) fn layer_norm(x: &Tensor) -> Tensor {
    let n = x.size().last().copied().unwrap_or(1);
    x.layer_norm([n], None::<&Tensor>, None::<&Tensor>, 1e-5, false)
}

const EPS: f64 = 1e-3;
