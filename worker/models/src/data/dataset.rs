//! Encoded cells, and the minibatches drawn from them.

use archipelago_anndata::Csr;
use archipelago_common::hash::{Digest, FieldHasher, StreamHasher};
use ndarray::Array2;
use tch::{Device, Kind, Tensor};

use super::Minified;

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
    /// Protein counts, cells × proteins of the panel, where proteins are registered.
    pub proteins: Option<Array2<f32>>,
    /// What is known instead of counts.
    pub minified: Option<Minified>,
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
    /// For layers that no covariate enters; on the device of `like`.
    pub fn none(like: &Tensor) -> Self {
        Self { condition: Tensor::zeros([0], (Kind::Int64, like.device())), categorical: vec![] }
    }

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
    /// Protein counts, `[n, n_proteins]`.
    pub proteins: Option<Tensor>,
    /// What is known instead of counts.
    pub minified: Option<MinifiedBatch>,
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
    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.x.size()[0] as usize
    }

    /// Some of these cells, `[n]` places, with what stands for their counts.
    pub(super) fn select(&self, cells: &Tensor, x: Tensor) -> Self {
        let rows = |tensor: &Tensor| tensor.index_select(0, cells);
        let some = |tensor: &Option<Tensor>| tensor.as_ref().map(rows);
        Self {
            x,
            covariates: Covariates {
                condition: rows(&self.covariates.condition),
                categorical: self.covariates.categorical.iter().map(rows).collect(),
            },
            labels: some(&self.labels),
            continuous: some(&self.continuous),
            size_factor: some(&self.size_factor),
            proteins: some(&self.proteins),
            minified: self.minified.as_ref().map(|kept| MinifiedBatch {
                qz_mean: rows(&kept.qz_mean),
                qz_var: rows(&kept.qz_var),
                library: rows(&kept.library),
            }),
        }
    }
}

impl Dataset<'_> {
    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.counts.n_rows()
    }

    /// Mean and population variance of the log total count in each of `n_conditions` conditions: the prior of a latent library
    /// size. Empty cells count as 0; a condition without cells has 0 and 1.
    pub fn log_library_moments(&self, n_conditions: usize) -> (Vec<f32>, Vec<f32>) {
        let mut logs = vec![Vec::new(); n_conditions];
        for (total, &code) in self.counts.row_sums().into_iter().zip(&self.conditions) {
            logs[code as usize].push(if total > 0.0 { total.ln() } else { 0.0 });
        }
        let moments = |logs: &Vec<f64>| {
            if logs.is_empty() {
                return (0.0, 1.0);
            }
            let n = logs.len() as f64;
            let mean = logs.iter().sum::<f64>() / n;
            (mean as f32, (logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / n) as f32)
        };
        logs.iter().map(moments).unzip()
    }

    /// Whether a cell carries a label.
    pub fn is_labelled(&self, cell: usize) -> bool {
        self.labels.as_ref().is_some_and(|labels| Some(labels[cell]) != self.unlabelled)
    }

    /// Digest of every number in here.
    pub fn digest(&self) -> Digest {
        let counts = self.counts;
        let mut hasher = FieldHasher::new("archipelago/dataset/1");
        let mut field = |digest: Digest| {
            hasher.field(digest.as_bytes());
        };
        field(stream(counts.indptr().iter().map(|&at| (at as u64).to_le_bytes())));
        field(stream(counts.indices().iter().map(|gene| gene.to_le_bytes())));
        field(stream(counts.data().iter().map(|count| count.to_le_bytes())));
        let columns = std::iter::once(&self.conditions).chain(&self.labels).chain(&self.covariates);
        columns.for_each(|codes| field(stream(codes.iter().map(|code| code.to_le_bytes()))));
        let numbers = self.continuous.iter().chain(&self.size_factor);
        numbers.for_each(|values| field(stream(values.iter().map(|value| value.to_le_bytes()))));
        let kept = self.minified.iter().flat_map(|kept| [&kept.mean, &kept.var]);
        let matrices = self.proteins.iter().chain(kept);
        matrices.for_each(|values| field(stream(values.iter().map(|value| value.to_le_bytes()))));
        hasher.finish()
    }

    /// The cells at `cells`, in that order, as tensors.
    pub fn minibatch(&self, cells: &[usize], device: Device) -> Minibatch {
        self.minibatch_with(self.dense_counts(cells).to_device(device), cells, device)
    }

    /// The cells at `cells`, with what stands for their counts.
    pub(super) fn minibatch_with(&self, x: Tensor, cells: &[usize], device: Device) -> Minibatch {
        let n = cells.len() as i64;
        let codes = |column: &[i64]| Tensor::from_slice(&gather(column, cells)).to_device(device);
        let continuous = (!self.continuous.is_empty()).then(|| {
            let columns: Vec<Tensor> = self.continuous.iter().map(|c| Tensor::from_slice(&gather(c, cells))).collect();
            Tensor::stack(&columns, 1).to_device(device)
        });
        Minibatch {
            x,
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
            proteins: self.proteins.as_ref().map(|proteins| rows(proteins, cells).to_device(device)),
            minified: self.minified.as_ref().map(|kept| MinifiedBatch {
                qz_mean: rows(&kept.mean, cells).to_device(device),
                qz_var: rows(&kept.var, cells).to_device(device),
                library: Tensor::from_slice(&gather(&kept.library, cells)).view([n, 1]).to_device(device),
            }),
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

fn rows(values: &Array2<f32>, cells: &[usize]) -> Tensor {
    let rows: Vec<f32> = cells.iter().flat_map(|&cell| values.row(cell).to_vec()).collect();
    Tensor::from_slice(&rows).view([cells.len() as i64, values.ncols() as i64])
}

/// Digest of a long sequence of numbers, without a copy of it.
fn stream<const N: usize>(numbers: impl Iterator<Item = [u8; N]>) -> Digest {
    let mut hasher = StreamHasher::default();
    numbers.for_each(|bytes| hasher.update(&bytes));
    hasher.finish()
}

fn gather<T: Copy>(values: &[T], cells: &[usize]) -> Vec<T> {
    cells.iter().map(|&cell| values[cell]).collect()
}
