//! Some cells as tensors.

use tch::{Kind, Tensor};

use super::{PerCell, Registry, Slot};

/// Some cells as tensors on the device where the model lives.
#[derive(Debug)]
pub struct Minibatch {
    /// Expression, `[n, n_genes]`.
    pub x: Tensor,
    /// Condition and further categorical covariates.
    pub covariates: Covariates,
    /// What is known instead of counts.
    pub minified: Option<MinifiedBatch>,
    /// The fields that have a value for each cell, in the order of the registry.
    pub(super) fields: Vec<Tensor>,
}

/// What layers that take covariates are handed: codes, never one-hot vectors.
#[derive(Debug)]
pub struct Covariates {
    /// Condition code of each cell, `[n]`.
    pub condition: Tensor,
    /// Code of each cell on each further axis, `[n]` each.
    pub axes: Vec<Tensor>,
    /// Codes of each further categorical covariate, `[n]` each.
    pub categorical: Vec<Tensor>,
}

impl Covariates {
    /// For layers that no covariate enters; on the device of `like`.
    pub fn none(like: &Tensor) -> Self {
        Self { condition: Tensor::zeros([0], (Kind::Int64, like.device())), axes: vec![], categorical: vec![] }
    }

    /// The same cells as if they all came from one condition.
    #[must_use]
    pub fn with_condition(&self, code: i64) -> Self {
        Self {
            condition: self.condition.full_like(code),
            axes: self.axes.iter().map(Tensor::shallow_clone).collect(),
            categorical: self.categorical.iter().map(Tensor::shallow_clone).collect(),
        }
    }
}

/// What an encoder said of cells whose counts are gone.
#[derive(Debug)]
pub struct MinifiedBatch {
    /// Posterior mean of the latent state, `[n, n_latent]`.
    pub qz_mean: Tensor,
    /// Posterior variance of the latent state, `[n, n_latent]`.
    pub qz_var: Tensor,
    /// Total count, `[n, 1]`.
    pub library: Tensor,
}

impl Minibatch {
    /// Cells whose tensors are at hand. `field` gives that of each field that the registry has a value for each cell of.
    pub fn of_tensors(registry: &Registry, x: Tensor, covariates: Covariates, field: impl Fn(&str) -> Tensor) -> Self {
        let per_cell = registry.fields().filter(|(_, registered)| registered.encoding.is_per_cell());
        Self { x, covariates, minified: None, fields: per_cell.map(|(name, _)| field(name)).collect() }
    }

    /// The tensor of a field.
    pub fn get<K: PerCell>(&self, slot: Slot<K>) -> &Tensor {
        &self.fields[slot.index]
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.x.size()[0] as usize
    }

    /// Some of these cells, `[n]` places, with what stands for their expression. `matrix` gives the rows of a field that is
    /// kept sparse.
    pub(super) fn select(&self, cells: &Tensor, x: Tensor, matrix: impl Fn(usize) -> Option<Tensor>) -> Self {
        let rows = |tensor: &Tensor| tensor.index_select(0, cells);
        let field = |(at, all): (usize, &Tensor)| matrix(at).unwrap_or_else(|| rows(all));
        Self {
            x,
            covariates: Covariates {
                condition: rows(&self.covariates.condition),
                axes: self.covariates.axes.iter().map(rows).collect(),
                categorical: self.covariates.categorical.iter().map(rows).collect(),
            },
            fields: self.fields.iter().enumerate().map(field).collect(),
            minified: self.minified.as_ref().map(|kept| MinifiedBatch {
                qz_mean: rows(&kept.qz_mean),
                qz_var: rows(&kept.qz_var),
                library: rows(&kept.library),
            }),
        }
    }
}
