//! What the keys of a further axis own in a layer: rows of the base that a query shares, and rows of its own.

use tch::Tensor;

/// Rows of the keys of one axis. The codes of a minibatch's `covariates.axes` count both kinds, shared ones first.
#[derive(Debug)]
pub struct Levels {
    pub(super) shared: Option<Tensor>,
    pub(super) own: Tensor,
}

impl Levels {
    /// All rows, `[n_keys, …]`. Gradients reach those only that are not shared.
    pub fn rows(&self) -> Tensor {
        match &self.shared {
            Some(shared) => Tensor::cat(&[shared, &self.own], 0),
            None => self.own.shallow_clone(),
        }
    }

    /// The row of each cell, `[n, …]`; `codes` are those of the axis, `[n]`.
    pub fn of_cells(&self, codes: &Tensor) -> Tensor {
        self.rows().index_select(0, codes)
    }

    /// The rows that are not shared, `[n_own_keys, …]`.
    pub fn own(&self) -> &Tensor {
        &self.own
    }

    /// The rows that are shared, `[n_shared_keys, …]`, where there are some.
    pub fn shared(&self) -> Option<&Tensor> {
        self.shared.as_ref()
    }
}
