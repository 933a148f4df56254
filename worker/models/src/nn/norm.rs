//! Batch norm and layer norm.

use tch::Tensor;

use super::{Builder, Init, Mode, Role, rows_of};
use crate::{
    data::Covariates,
    error::Result,
    fast::{BatchNormSpec, OffsetsSpec},
};

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
    /// What each condition adds to scale and shift, where conditions own some.
    offsets: Option<Offsets>,
    options: BatchNormOptions,
    /// Whether the running statistics stay as they are, in training too.
    is_kept: bool,
}

/// What conditions add to a batch norm, `[n_conditions, n]` each.
#[derive(Debug)]
struct Offsets {
    weight: Tensor,
    bias: Tensor,
    /// Whether they train or are other than zeros: those of a reference's own conditions are neither.
    count: bool,
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
            offsets: None,
            options,
            is_kept,
        })
    }

    /// The same batch norm with a scale and a shift that each condition adds to everybody's; tensors `{name}.weight.condition` and
    /// `.bias.condition`.
    ///
    /// # Errors  as [`Self::with`]
    pub fn with_offsets(self, builder: &mut Builder<'_>) -> Result<Self> {
        let n = self.weight.size()[0] as usize;
        let mut rows = |part: &str| {
            let name = format!("{}.{part}.condition", self.name);
            builder.condition_rows(&name, &[n], Role::ConditionOffset, Init::Constant(0.0))
        };
        let (weight, bias) = (rows("weight")?, rows("bias")?);
        let counts = |rows: &Tensor| rows.requires_grad() || rows.count_nonzero(None).int64_value(&[]) > 0;
        let count = counts(&weight) || counts(&bias);
        Ok(Self { offsets: Some(Offsets { weight, bias, count }), ..self })
    }

    /// What the kernels are told about it.
    pub(crate) fn spec(&self) -> BatchNormSpec {
        let BatchNormOptions { eps, momentum } = self.options;
        let name = |part: &str| format!("{}.{part}.condition", self.name);
        let offsets = self.offsets.as_ref().map(|_| OffsetsSpec { weight: name("weight"), bias: name("bias") });
        BatchNormSpec { name: self.name.clone(), eps, momentum: (!self.is_kept).then_some(momentum), offsets }
    }

    /// Normalises each unit over cells. Three dimensions occur in evaluation only, where cells do not interact.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.normalise(x, Some((&self.weight, &self.bias)), mode)
    }

    /// The same with what the condition of each cell adds.
    pub fn forward_of(&self, x: &Tensor, covariates: &Covariates, mode: Mode) -> Tensor {
        let Some(Offsets { weight, bias, count: true }) = &self.offsets else { return self.forward(x, mode) };
        let (weight, bias) = (&self.weight + rows_of(weight, covariates), &self.bias + rows_of(bias, covariates));
        self.normalise(x, None, mode) * weight + bias
    }

    fn normalise(&self, x: &Tensor, affine: Option<(&Tensor, &Tensor)>, mode: Mode) -> Tensor {
        let training = mode == Mode::Training;
        let moves = training && !self.is_kept;
        if moves {
            let _ = self.n_batches.shallow_clone().g_add_scalar_(1);
        }
        let flat = x.reshape([-1, self.weight.size()[0]]);
        let (weight, bias) = affine.unzip();
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
