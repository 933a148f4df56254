//! Encoded cells, and the minibatches drawn from them.

use archipelago_anndata::Csr;
use tch::{Device, Kind, Tensor};

/// Cells whose covariates are codes. Counts stay sparse; only a minibatch is ever dense.
#[derive(Clone, Debug)]
pub struct Dataset<'a> {
    /// Counts, cells × genes.
    pub counts: &'a Csr,
    /// Condition code of each cell.
    pub conditions: Vec<i64>,
    /// Label code of each cell, where labels are registered.
    pub labels: Option<Vec<i64>>,
    /// The code of cells without a label, where there may be some.
    pub unlabelled: Option<i64>,
    /// Codes of each further categorical covariate, in block order.
    pub covariates: Vec<Vec<i64>>,
    /// Values of each continuous covariate.
    pub continuous: Vec<Vec<f32>>,
    /// Size factor of each cell.
    pub size_factor: Option<Vec<f32>>,
}

/// What layers that take covariates are handed: codes, never one-hot vectors.
#[derive(Debug)]
pub struct Covariates {
    /// Condition code of each cell, `[n]`.
    pub condition: Tensor,
    /// Codes of each further categorical covariate, `[n]` each.
    pub categorical: Vec<Tensor>,
}

impl Covariates {
    /// The same cells as if they all came from one condition.
    #[must_use]
    pub fn with_condition(&self, code: i64) -> Self {
        Self {
            condition: self.condition.full_like(code),
            categorical: self.categorical.iter().map(Tensor::shallow_clone).collect(),
        }
    }
}

/// Some cells as tensors on the device where the model lives.
#[derive(Debug)]
pub struct Minibatch {
    /// Counts, `[n, n_genes]`.
    pub x: Tensor,
    /// Condition and further categorical covariates.
    pub covariates: Covariates,
    /// Label codes, `[n]`.
    pub labels: Option<Tensor>,
    /// Continuous covariates, `[n, n_continuous]`.
    pub continuous: Option<Tensor>,
    /// Size factors, `[n, 1]`.
    pub size_factor: Option<Tensor>,
}

impl Minibatch {
    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.x.size()[0] as usize
    }
}

impl Dataset<'_> {
    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.counts.n_rows()
    }

    /// Whether a cell carries a label.
    pub fn is_labelled(&self, cell: usize) -> bool {
        self.labels.as_ref().is_some_and(|labels| Some(labels[cell]) != self.unlabelled)
    }

    /// The cells at `cells`, in that order, as tensors.
    pub fn minibatch(&self, cells: &[usize], device: Device) -> Minibatch {
        let n = cells.len() as i64;
        let codes = |column: &[i64]| Tensor::from_slice(&gather(column, cells)).to_device(device);
        let continuous = (!self.continuous.is_empty()).then(|| {
            let columns: Vec<Tensor> = self.continuous.iter().map(|c| Tensor::from_slice(&gather(c, cells))).collect();
            Tensor::stack(&columns, 1).to_device(device)
        });
        Minibatch {
            x: self.dense_counts(cells).to_device(device),
            covariates: Covariates {
                condition: codes(&self.conditions),
                categorical: self.covariates.iter().map(|column| codes(column)).collect(),
            },
            labels: self.labels.as_deref().map(codes),
            continuous,
            size_factor: self
                .size_factor
                .as_deref()
                .map(|column| Tensor::from_slice(&gather(column, cells)).view([n, 1]).to_device(device)),
        }
    }

    fn dense_counts(&self, cells: &[usize]) -> Tensor {
        let n_genes = self.counts.n_cols();
        let mut dense = vec![0.0_f32; cells.len() * n_genes];
        for (row, &cell) in dense.chunks_exact_mut(n_genes.max(1)).zip(cells) {
            let (genes, values) = self.counts.row(cell);
            for (&gene, &value) in genes.iter().zip(values) {
                row[gene as usize] = value;
            }
        }
        Tensor::from_slice(&dense).view([cells.len() as i64, n_genes as i64]).to_kind(Kind::Float)
    }
}

fn gather<T: Copy>(values: &[T], cells: &[usize]) -> Vec<T> {
    cells.iter().map(|&cell| values[cell]).collect()
}
