//! Distances between cells and prototypes, and the losses that are made of them.

use tch::{Kind, Tensor};

/// How far cells are from prototypes, scalars.
#[derive(Debug)]
pub struct PrototypeLoss {
    /// From those of their types; 0 where no cell has one.
    pub labelled: Tensor,
    /// From those of clusters, where there are some.
    pub unlabelled: Option<Tensor>,
}

impl PrototypeLoss {
    /// Both together, with the weight of the second.
    pub fn total(&self, unlabelled_weight: f64) -> Tensor {
        match &self.unlabelled {
            Some(unlabelled) => &self.labelled + unlabelled * unlabelled_weight,
            None => self.labelled.shallow_clone(),
        }
    }
}

/// Distances between rows, `[n, n_prototypes]`: the norm of order `p` of their difference, not squared. Computed as differences: by a
/// product of matrices short distances would be rough.
pub fn distances(z: &Tensor, prototypes: &Tensor, p: f64) -> Tensor {
    const BY_DIFFERENCES: i64 = 2;
    Tensor::cdist(z, prototypes, p, BY_DIFFERENCES)
}

/// For each type that a cell has, the mean distance of its cells; the sum over types. A cell that has a type on each of several levels
/// counts for each. `types`: `[n, n_levels]`, -1 for none; `present`: `[n_types]`, whether a type has a prototype.
///
/// # Source   De Donno et al. 2023; checked against scArches 0.6.1
pub fn labelled_loss(z: &Tensor, types: &Tensor, means: &Tensor, present: &Tensor, p: f64) -> Tensor {
    let n_types = means.size()[0];
    if n_types == 0 || types.numel() == 0 {
        return Tensor::zeros([], (Kind::Float, z.device()));
    }
    let codes = Tensor::arange(n_types, (Kind::Int64, z.device())).view([1, 1, n_types]);
    let is_of = types.unsqueeze(2).eq_tensor(&codes).any_dim(1, false).logical_and(present).to_kind(Kind::Float);
    let n_cells = is_of.sum_dim_intlist([0_i64].as_slice(), false, Kind::Float);
    let sums = (distances(z, means, p) * is_of).sum_dim_intlist([0_i64].as_slice(), false, Kind::Float);
    (sums / n_cells.clamp_min(1.0)).sum(Kind::Float)
}

/// For each prototype that is the nearest of some cells, the mean of their distances; the mean over these prototypes.
///
/// # Source   as [`labelled_loss`]
pub fn unlabelled_loss(z: &Tensor, means: &Tensor, p: f64) -> Tensor {
    let (nearest, prototype) = distances(z, means, p).min_dim(1, false);
    let is_of = prototype.one_hot(means.size()[0]).to_kind(Kind::Float);
    let n_cells = is_of.sum_dim_intlist([0_i64].as_slice(), false, Kind::Float);
    let sums = (nearest.unsqueeze(1) * is_of).sum_dim_intlist([0_i64].as_slice(), false, Kind::Float);
    let n_occupied = n_cells.gt(0.0).to_kind(Kind::Float).sum(Kind::Float);
    (sums / n_cells.clamp_min(1.0)).sum(Kind::Float) / n_occupied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[[f32; 2]]) -> Tensor {
        Tensor::from_slice(&values.concat()).view([-1, 2])
    }

    fn types(values: &[[i64; 2]]) -> Tensor {
        Tensor::from_slice(&values.concat()).view([-1, 2])
    }

    #[test]
    fn types_are_summed_and_their_cells_averaged() {
        let z = points(&[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0], [9.0, 9.0]]);
        let means = points(&[[0.0, 0.0], [0.0, 2.0], [7.0, 7.0]]);
        let all = Tensor::from_slice(&[true, true, true]);
        // The first two are of type 0; the second one of type 1, too; the third one has none.
        let codes = types(&[[0, -1], [0, 1], [-1, -1], [-1, -1]]);
        let loss = |present: &Tensor, p| labelled_loss(&z, &codes, &means, present, p).double_value(&[]);
        assert_eq!(loss(&all, 2.0), (5.0 + 1.0) / 2.0 + 1.0);
        assert_eq!(loss(&all, 1.0), (7.0 + 1.0) / 2.0 + 1.0);
        assert_eq!(loss(&Tensor::from_slice(&[true, false, true]), 2.0), 3.0);
        let none = Tensor::zeros([4, 0], (Kind::Int64, z.device()));
        assert_eq!(labelled_loss(&z, &none, &means, &all, 2.0).double_value(&[]), 0.0);
    }

    #[test]
    fn clusters_that_are_occupied_are_averaged() {
        let z = points(&[[0.0, 1.0], [0.0, 3.0], [10.0, 0.0]]);
        let means = points(&[[0.0, 0.0], [10.0, 4.0], [99.0, 99.0]]);
        assert_eq!(unlabelled_loss(&z, &means, 2.0).double_value(&[]), (2.0 + 4.0) / 2.0);
    }

    #[test]
    fn a_cell_on_its_prototype_has_no_gradient_and_no_nan() {
        let z = points(&[[1.0, 2.0], [1.0, 3.0]]).set_requires_grad(true);
        let present = Tensor::from_slice(&[true]);
        let codes = Tensor::zeros([2, 1], (Kind::Int64, z.device()));
        labelled_loss(&z, &codes, &points(&[[1.0, 2.0]]), &present, 2.0).backward();
        assert_eq!(Vec::<f32>::try_from(z.grad().reshape(-1)).unwrap(), [0.0, 0.0, 0.0, 0.5]);
    }
}
