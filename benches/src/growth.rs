//! How the time of surgery grows with cells, genes and conditions that are already there. Ours only.

use anyhow::Result;
use archipelago_common::{
    progress::{EpochReport, Silent},
    task::TrainSpec,
};
use archipelago_models::{
    CellConditions, Cells, Device, NoCheckpoints, Query, Reference, Training, surgery, train::FurtherOptions,
    train_reference, zoo::scvi::Scvi,
};
use serde::Serialize;

use crate::{cases, measure, measure::Clock, report::median};

/// One point of a curve.
#[derive(Serialize, Debug)]
pub(crate) struct Point {
    /// What grows: `cells`, `genes` or `conditions`.
    pub(crate) by: &'static str,
    pub(crate) n: usize,
    /// Seconds per epoch of surgery.
    pub(crate) seconds: f64,
}

/// All curves.
pub(crate) fn run() -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for n_cells in [5_000, 10_000, 20_000, 40_000] {
        points.push(Point { by: "cells", n: n_cells, seconds: surgery_s(n_cells, 1_000, 3)? });
    }
    for n_genes in [500, 1_000, 2_000, 4_000] {
        points.push(Point { by: "genes", n: n_genes, seconds: surgery_s(5_000, n_genes, 3)? });
    }
    for n_conditions in [2, 20, 200] {
        points.push(Point { by: "conditions", n: n_conditions, seconds: surgery_s(5_000, 1_000, n_conditions)? });
    }
    Ok(points)
}

fn surgery_s(n_cells: usize, n_genes: usize, n_conditions: usize) -> Result<f64> {
    let base = reference(n_genes, n_conditions)?;
    let counts = cases::counts_of(n_cells, n_genes, 9)?;
    let query = Query { key: measure::key("q")?, cells: Cells::new(&counts) };
    let mut clock = Clock::start();
    let mut lap = |_: &EpochReport| clock.lap();
    surgery(&base.base, &query, &measure::spec(6, 0.0), Device::Cpu, &mut lap, &mut NoCheckpoints)?;
    Ok(median(&clock.epochs_s))
}

fn reference(n_genes: usize, n_conditions: usize) -> Result<Reference> {
    let counts = cases::counts_of(10 * n_conditions, n_genes, 8)?;
    let keys = (0..counts.n_rows()).map(|cell| measure::key(&format!("b{}", cell % n_conditions)));
    let conditions = CellConditions::from_keys(&keys.collect::<Result<Vec<_>>>()?);
    let genes: Vec<String> = (0..n_genes).map(|gene| format!("g{gene}")).collect();
    let training = Training {
        model: &Scvi,
        options: &measure::options(),
        genes: &genes,
        cells: &Cells::new(&counts),
        conditions: &conditions,
        batch_key: "batch",
        further: &FurtherOptions::default(),
        spec: &TrainSpec { epochs: Some(1), ..measure::spec(1, 1e-6) },
        compute: Device::Cpu.into(),
    };
    Ok(train_reference(&training, &mut Silent, &mut NoCheckpoints)?.reference)
}
