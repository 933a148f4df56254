//! Cells that networks placed in partitions: how sure that is, and how far apart they are.

use ndarray::{Array2, ArrayView2, Zip};

use crate::{AnalysisError, Result};

/// Entropy of each cell's probabilities as a share of the largest possible one: 0 is sure. Zero for a single class.
///
/// # Shapes   `probabilities`: `[n_cells, n_classes]`, rows sum to 1
pub fn entropies(probabilities: ArrayView2<'_, f64>) -> Vec<f64> {
    let n_classes = probabilities.ncols() as f64;
    let of_cell = |row: ndarray::ArrayView1<'_, f64>| {
        let entropy: f64 = row.iter().filter(|&&p| p > 0.0).map(|p| -p * p.log2()).sum();
        if n_classes > 1.0 { entropy / n_classes.log2() } else { 0.0 }
    };
    probabilities.rows().into_iter().map(of_cell).collect()
}

/// How sure all networks together are of each cell: one minus their mean entropy.
///
/// # Errors   no network, networks of different numbers of cells
pub fn confidence(entropies: &[Vec<f64>]) -> Result<Vec<f64>> {
    let Some(first) = entropies.first() else {
        return Err(AnalysisError::TooFew { step: "a confidence", unit: "networks", needed: 1, found: 0 });
    };
    if let Some(other) = entropies.iter().find(|other| other.len() != first.len()) {
        let (found, expected) = (other.len(), first.len());
        return Err(AnalysisError::Length { what: "the entropies of a network", found, expected });
    }
    let n = entropies.len() as f64;
    Ok((0..first.len()).map(|cell| 1.0 - entropies.iter().map(|of| of[cell]).sum::<f64>() / n).collect())
}

/// Distances between cells, summed over networks. Memory is quadratic in the cells.
#[derive(Debug, Clone, PartialEq)]
pub struct DistanceMap {
    distances: Array2<f64>,
}

impl DistanceMap {
    /// Of no network yet.
    pub fn new(n_cells: usize) -> Self {
        Self { distances: Array2::zeros((n_cells, n_cells)) }
    }

    /// Adds a network's view: divergences between the cells' distributions, of which each is mixed with one drawn class as
    /// far as the network is unsure. In which order networks are added decides the last bits; go by their tags.
    ///
    /// A class that has no mass in a cell costs nothing there, as upstream has it.
    ///
    /// # Shapes   `probabilities`: `[n_cells, n_classes]`; `drawn`: one class per cell
    /// # Errors   another number of cells, a class beyond the last
    pub fn add(&mut self, probabilities: ArrayView2<'_, f64>, drawn: &[usize]) -> Result<()> {
        let (n_cells, n_classes) = probabilities.dim();
        for (what, found) in [("the probabilities of a network", n_cells), ("the classes drawn", drawn.len())] {
            if found != self.distances.nrows() {
                return Err(AnalysisError::Length { what, found, expected: self.distances.nrows() });
            }
        }
        if let Some(class) = drawn.iter().find(|&&class| class >= n_classes) {
            let found = class.to_string();
            return Err(AnalysisError::Option { option: "drawn", expected: "a class of the network", found });
        }
        let mixed = mixed(probabilities, drawn);
        let logs = mixed.mapv(|mass| if mass > 0.0 { mass.ln() } else { 0.0 });
        let entropy: Vec<f64> = mixed.rows().into_iter().zip(logs.rows()).map(|(mass, log)| -mass.dot(&log)).collect();
        let mut view = mixed.dot(&logs.t());
        for ((i, j), value) in view.indexed_iter_mut() {
            *value = if i == j { 0.0 } else { (-*value - entropy[j]) / std::f64::consts::LN_2 };
        }
        let symmetric = &view + &view.t();
        let norm = symmetric.iter().map(|value| value * value).sum::<f64>().sqrt();
        if norm > 0.0 {
            Zip::from(&mut self.distances).and(&symmetric).for_each(|sum, value| *sum += value / norm);
        }
        Ok(())
    }

    /// The distances, `[n_cells, n_cells]`.
    pub fn distances(&self) -> ArrayView2<'_, f64> {
        self.distances.view()
    }
}

fn mixed(probabilities: ArrayView2<'_, f64>, drawn: &[usize]) -> Array2<f64> {
    let mut mixed = probabilities.to_owned();
    for ((mut row, entropy), &class) in mixed.rows_mut().into_iter().zip(entropies(probabilities)).zip(drawn) {
        row *= 1.0 - entropy;
        row[class] += entropy;
    }
    mixed
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn entropy_is_a_share_of_the_largest_and_a_single_class_has_none() {
        let probabilities = array![[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]];
        let found = entropies(probabilities.view());
        assert_eq!(&found[..2], &[1.0, 0.0]);
        assert!((found[2] - 0.811_278_124_459_132_8).abs() < 1e-12);
        assert_eq!(entropies(array![[1.0], [1.0]].view()), [0.0, 0.0]);
        assert_eq!(confidence(&[vec![1.0, 0.0], vec![0.5, 0.0]]).unwrap(), [0.25, 1.0]);
    }

    #[test]
    fn a_map_is_symmetric_and_refuses_other_cells() {
        let mut map = DistanceMap::new(3);
        map.add(array![[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]].view(), &[0, 1, 0]).unwrap();
        let found = map.distances();
        assert_eq!(found, found.t());
        assert!(found[[0, 2]] < found[[0, 1]] && found[[1, 1]] == 0.0);
        assert!(matches!(map.add(array![[1.0, 0.0]].view(), &[0]), Err(AnalysisError::Length { .. })));
        let beyond = map.add(array![[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]].view(), &[0, 2, 0]);
        assert!(matches!(beyond, Err(AnalysisError::Option { .. })));
        assert!(matches!(confidence(&[]), Err(AnalysisError::TooFew { .. })));
    }
}
