//! The prior of a latent library size.

use tch::Tensor;

use super::{Builder, Init, Posterior, Role};
use crate::{
    data::{Covariates, Dataset},
    error::Result,
};

/// Mean and variance of the log library size in each condition, from its cells and never trained.
#[derive(Debug)]
pub struct LibraryPrior {
    /// `[n_conditions, 1]`
    mean: Tensor,
    /// `[n_conditions, 1]`
    var: Tensor,
}

impl LibraryPrior {
    /// A prior of mean 0 and variance 1; tensors `library_log_means` and `library_log_vars`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn new(b: &mut Builder<'_>) -> Result<Self> {
        let role = Role::ConditionBuffer;
        Ok(Self {
            mean: b.condition_rows("library_log_means.condition", &[1], role, Init::Constant(0.0))?,
            var: b.condition_rows("library_log_vars.condition", &[1], role, Init::Constant(1.0))?,
        })
    }

    /// Takes the moments of each condition's cells.
    pub fn set(&self, dataset: &Dataset<'_>) {
        let (means, vars) = dataset.log_library_moments(self.mean.size()[0] as usize);
        for (buffer, values) in [(&self.mean, means), (&self.var, vars)] {
            buffer.shallow_clone().copy_(&Tensor::from_slice(&values).unsqueeze(1));
        }
    }

    /// The prior of each cell, `[n, 1]`.
    pub fn of(&self, covariates: &Covariates) -> Posterior {
        Posterior {
            mean: self.mean.index_select(0, &covariates.condition),
            var: self.var.index_select(0, &covariates.condition),
        }
    }
}
