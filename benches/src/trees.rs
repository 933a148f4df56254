//! Trees of cell types: learned from three data sets, asked about a fourth, updated with it.

use std::path::Path;

use anyhow::{Context as _, Result};
use archipelago_analysis::{
    Labels,
    hierarchy::{Classifier, DataSet, LabelledCells, LearnOptions, TrainOptions, learn, update},
};
use archipelago_anndata::{AnnData, Array, Column, Compression, DataFrame, Matrix};
use ndarray::{Array2, Axis};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::measure::{Kinds, timed};

/// What is measured, in the table's order.
pub(crate) const KINDS: [&str; 6] =
    ["learn-knn", "predict-knn", "update-knn", "learn-svm", "predict-svm", "update-svm"];

/// Positions of cells in a latent space: types around random places, in four data sets of equal size.
pub(crate) fn write(folder: &Path, n_cells: usize, n_dims: usize, n_types: usize) -> Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut bell = || (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0;
    // Cells of a type come from all data sets.
    let type_of = |cell: usize| cell / N_SETS % n_types;
    let places = Array2::from_shape_fn((n_types, n_dims), |_| 3.0 * bell());
    let x = Array2::from_shape_fn((n_cells, n_dims), |(cell, dim)| places[[type_of(cell), dim]] + bell());
    let mut obs = DataFrame::new((0..n_cells).map(|cell| format!("c{cell}")));
    let set_of = |cell: usize| (cell % N_SETS).to_string();
    let label = |cell: usize| format!("type{:02}-{}", type_of(cell), set_of(cell));
    obs.insert("batch", Column::categorical(&(0..n_cells).map(set_of).collect::<Vec<_>>()))?;
    obs.insert("label", Column::categorical(&(0..n_cells).map(label).collect::<Vec<_>>()))?;
    let var = DataFrame::new((0..n_dims).map(|dim| format!("z{dim}")));
    std::fs::create_dir_all(folder)?;
    let x = Matrix::Dense(Array::matrix(n_cells, n_dims, x.into_raw_vec_and_offset().0)?);
    Ok(AnnData::new(x, obs, var)?.write(folder.join(FILE), Compression::None)?)
}

/// Measures our side in this process.
pub(crate) fn measure(folder: &Path) -> Result<Kinds> {
    let file = AnnData::read(folder.join(FILE))?;
    let csr = file.matrix(None)?.to_csr()?;
    let x = Array2::from_shape_vec((csr.n_rows(), csr.n_cols()), csr.to_dense())?;
    let labels: Option<Vec<String>> = file.obs.column("label")?.to_strings().into_iter().collect();
    let labels = Labels::from_names(&labels.context("a cell has no label")?);
    let set = |set: usize| DataSet { name: set.to_string(), rows: (set..x.nrows()).step_by(N_SETS).collect() };
    let sets: Vec<DataSet> = (0..N_SETS).map(set).collect();
    let (known, new) = sets.split_at(N_SETS - 1);
    let query = x.select(Axis(0), &new[0].rows);
    let cells = LabelledCells { x: x.view(), labels: &labels };
    let mut kinds = Kinds::new();
    for (name, classifier) in [("knn", Classifier::Knn), ("svm", Classifier::Svm)] {
        let train = TrainOptions { classifier, ..TrainOptions::default() };
        let options = LearnOptions { train, ..LearnOptions::default() };
        let learned = timed(&mut kinds, &format!("learn-{name}"), || learn(cells, known, &options, &mut |_| {}))??;
        let predict = || learned.trained.predict(query.view(), options.rej_threshold);
        let found = timed(&mut kinds, &format!("predict-{name}"), predict)??;
        anyhow::ensure!(found.n_rejected() < query.nrows(), "all cells were rejected");
        let grow = || update(learned.trained, cells, known, new, false, &options, &mut |_| {});
        timed(&mut kinds, &format!("update-{name}"), grow)??;
    }
    Ok(kinds)
}

const N_SETS: usize = 4;
const FILE: &str = "cells.h5ad";
