//! Number, mean and scatter of the cells of each type: what prototypes are made of, and what adds.

use archipelago_common::pool::{Pool, TableSpec, TableSpecs};
use ndarray::{Array1, Array2, ArrayView1};
use tch::Tensor;

use crate::error::{Error, Result};

/// Sums over the cells of each type.
#[derive(Clone, PartialEq, Debug)]
pub struct Statistics {
    types: Vec<OfType>,
}

/// Sums over the cells of one type.
#[derive(Clone, PartialEq, Debug)]
pub struct OfType {
    /// Its cells.
    pub n_cells: u64,
    sum: Array1<f64>,
    /// Sums of products.
    products: Array2<f64>,
}

impl Statistics {
    /// Of no cell, for so many types.
    pub fn new(n_types: usize, n_latent: usize) -> Self {
        let none = OfType { n_cells: 0, sum: Array1::zeros(n_latent), products: Array2::zeros((n_latent, n_latent)) };
        Self { types: vec![none; n_types] }
    }

    /// Adds a cell to a type.
    pub fn add(&mut self, of_type: usize, z: ArrayView1<'_, f32>) {
        let one = &mut self.types[of_type];
        let z = z.mapv(f64::from);
        one.n_cells += 1;
        one.sum += &z;
        for (mut row, &value) in one.products.rows_mut().into_iter().zip(&z) {
            row.scaled_add(value, &z);
        }
    }

    /// The types, by code.
    pub fn types(&self) -> &[OfType] {
        &self.types
    }

    /// What the tables of a pool of these look like.
    pub fn tables(n_latent: usize) -> TableSpecs {
        TableSpecs::from([
            (N.to_owned(), TableSpec::counts(&[])),
            (SUM.to_owned(), TableSpec::sums(&[n_latent])),
            (PRODUCTS.to_owned(), TableSpec::sums(&[n_latent, n_latent])),
        ])
    }

    /// Adds a cell to an entry of a pool of [these tables](Self::tables).
    ///
    /// # Errors  [`Error::Common`] for a number that no table can hold
    pub fn add_to_pool(pool: &mut Pool, entry: &str, z: ArrayView1<'_, f32>) -> Result<()> {
        pool.add(entry, N, 0, 1.0)?;
        for (i, &a) in z.iter().enumerate() {
            pool.add(entry, SUM, i, f64::from(a))?;
            for (j, &b) in z.iter().enumerate() {
                pool.add(entry, PRODUCTS, i * z.len() + j, f64::from(a) * f64::from(b))?;
            }
        }
        Ok(())
    }

    /// What a pool of [these tables](Self::tables) says of an entry, if it has it.
    ///
    /// # Errors  [`Error::Prototypes`] for sums that are those of no cells
    pub fn of_pool(pool: &Pool, entry: &str) -> Result<Option<OfType>> {
        let numbers = |table: &str| pool.table(entry, table).map(|table| table.to_f64());
        let (Some(n), Some(sum), Some(products)) = (numbers(N), numbers(SUM), numbers(PRODUCTS)) else {
            return Ok(None);
        };
        let shape = (sum.len(), sum.len());
        let products = Array2::from_shape_vec(shape, products).expect("there is one for each pair of dimensions");
        let of_type = OfType { n_cells: n[0] as u64, sum: Array1::from(sum), products };
        match of_type.fault() {
            None => Ok(Some(of_type)),
            Some(fault) => Err(Error::Prototypes { detail: format!("`{entry}` {fault}") }),
        }
    }
}

impl OfType {
    /// Why these are the sums of no cells, if they are not: whoever hands numbers in may hand in any.
    fn fault(&self) -> Option<&'static str> {
        let n = self.n_cells as f64;
        let squares = || self.products.diag().into_iter().zip(&self.sum);
        // Cells that are all alike have no scatter; sums are rounded to a fixed unit.
        let is_impossible = |(&square, &sum): (&f64, &f64)| square - sum * sum / n < -ROUNDING * square.abs().max(1.0);
        match self.n_cells {
            0 => Some("is of no cell"),
            _ => squares().any(is_impossible).then_some("is of cells that scatter by less than nothing"),
        }
    }

    /// Mean, `[n_latent]`; zeros without a cell.
    pub fn mean(&self) -> Tensor {
        let mean = &self.sum / self.n_cells.max(1) as f64;
        Tensor::from_slice(&mean.mapv(|value| value as f32).to_vec())
    }

    /// Unbiased covariance, `[n_latent, n_latent]`. One cell has none: zeros, where upstream has what is not a number.
    pub fn cov(&self) -> Tensor {
        let n_latent = self.sum.len();
        let (n, mut cov) = (self.n_cells as f64, self.products.clone());
        if self.n_cells < 2 {
            cov.fill(0.0);
        } else {
            for (i, mut row) in cov.rows_mut().into_iter().enumerate() {
                row.scaled_add(-self.sum[i] / n, &self.sum);
                row /= n - 1.0;
            }
        }
        let values: Vec<f32> = cov.iter().map(|&value| value as f32).collect();
        Tensor::from_slice(&values).view([n_latent as i64, n_latent as i64])
    }
}

const N: &str = "n";
const SUM: &str = "sum";
const PRODUCTS: &str = "products";
/// What of a sum can be lost where it is rounded.
const ROUNDING: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.reshape(-1)).unwrap()
    }

    #[test]
    fn mean_and_covariance_are_the_cells() {
        let cells = array![[1.0_f32, 2.0], [3.0, 6.0], [5.0, 1.0]];
        let mut statistics = Statistics::new(2, 2);
        cells.rows().into_iter().for_each(|z| statistics.add(1, z));
        let found = &statistics.types()[1];
        // import numpy as np; np.cov([[1, 3, 5], [2, 6, 1]])
        assert_eq!((numbers(&found.mean()), numbers(&found.cov())), (vec![3.0, 3.0], vec![4.0, -1.0, -1.0, 7.0]));
        assert_eq!(statistics.types()[0].n_cells, 0);
    }

    #[test]
    fn one_cell_has_a_mean_and_no_scatter() {
        let mut statistics = Statistics::new(1, 2);
        statistics.add(0, array![0.25_f32, -1.5].view());
        let found = &statistics.types()[0];
        assert_eq!((numbers(&found.mean()), numbers(&found.cov())), (vec![0.25, -1.5], vec![0.0; 4]));
    }

    #[test]
    fn a_pool_of_two_sites_is_that_of_their_cells() {
        let cells = array![[1.0_f32, 2.0], [3.5, 6.0], [5.0, 1.0], [-2.0, 0.5]];
        let pool = |rows: &[usize]| {
            let mut pool = Pool::new(Statistics::tables(2));
            rows.iter().for_each(|&row| Statistics::add_to_pool(&mut pool, "T", cells.row(row)).unwrap());
            pool
        };
        let (mut first, second, all) = (pool(&[2, 0]), pool(&[3, 1]), pool(&[0, 1, 2, 3]));
        first.absorb(&second).unwrap();
        assert_eq!(first, all);
        let mut direct = Statistics::new(1, 2);
        cells.rows().into_iter().for_each(|z| direct.add(0, z));
        let (pooled, direct) = (Statistics::of_pool(&first, "T").unwrap().unwrap(), &direct.types()[0]);
        assert_eq!(
            (numbers(&pooled.mean()), numbers(&pooled.cov())),
            (numbers(&direct.mean()), numbers(&direct.cov()))
        );
        assert!(Statistics::of_pool(&first, "B").unwrap().is_none());
    }

    #[test]
    fn sums_that_no_cells_have_are_refused_in_words() {
        let refused = |n: f64, sum: f64, square: f64| {
            let mut pool = Pool::new(Statistics::tables(1));
            [(N, n), (SUM, sum), (PRODUCTS, square)].iter().for_each(|(table, v)| pool.add("T", table, 0, *v).unwrap());
            Statistics::of_pool(&pool, "T").err().map(|error| error.to_string())
        };
        assert!(refused(0.0, 1.0, 1.0).unwrap().contains("`T` is of no cell"));
        assert!(refused(2.0, 4.0, 7.9).unwrap().contains("`T` is of cells that scatter by less than nothing"));
        assert_eq!((refused(2.0, 4.0, 8.0), refused(1.0, 1e-3, 1e-6)), (None, None), "cells that are all alike");
        let nan = Statistics::add_to_pool(&mut Pool::new(Statistics::tables(1)), "T", array![f32::NAN].view());
        assert!(nan.unwrap_err().to_string().contains("NaN"));
    }
}
