//! The prior of a latent library size.

use archipelago_common::ConditionKey;
use tch::Tensor;

use super::{Builder, Init, Posterior, Role};
use crate::{
    data::{Covariates, Dataset},
    error::{Error, Result},
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

    /// Takes the moments of each condition's cells; `keys` are those of the conditions, by code.
    ///
    /// # Errors  [`Error::OneLibrarySize`] for a condition whose cells all have the same total: no variance, no prior
    pub fn set(&self, dataset: &Dataset<'_>, keys: &[ConditionKey]) -> Result<()> {
        let (means, vars) = dataset.log_library_moments(self.mean.size()[0] as usize);
        if let Some(code) = vars.iter().position(|var| *var < NO_VARIANCE) {
            let n_cells = dataset.conditions.iter().filter(|of| **of == code as i64).count();
            let condition = keys.get(code).map_or_else(String::new, ToString::to_string);
            return Err(Error::OneLibrarySize { condition, n_cells });
        }
        for (buffer, values) in [(&self.mean, means), (&self.var, vars)] {
            buffer.shallow_clone().copy_(&Tensor::from_slice(&values).unsqueeze(1));
        }
        Ok(())
    }

    /// The prior of each cell, `[n, 1]`.
    pub fn of(&self, covariates: &Covariates) -> Posterior {
        Posterior {
            mean: self.mean.index_select(0, &covariates.condition),
            var: self.var.index_select(0, &covariates.condition),
        }
    }
}

/// What rounding leaves of equal totals is below this.
const NO_VARIANCE: f32 = 1e-12;
