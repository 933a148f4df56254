//! Measures how a tree is learned from three data sets, used and updated with a fourth, on made-up cells of a latent space.
//!
//! `cargo run --release -p archipelago-analysis --example hierarchy -- 100000 10 30 [knn|svm|svm-occ] [cells.f32]`: cells,
//! dimensions, types, classifier, and a file that takes the cells for `benches/peers/tree_speed.py`, which runs scHPL on
//! them. One thread with `RAYON_NUM_THREADS=1`.

use std::io::Write as _;
use std::time::Instant;

use archipelago_analysis::Labels;
use archipelago_analysis::hierarchy::{
    Classifier, DataSet, LabelledCells, LearnOptions, Names, TrainOptions, learn, update,
};
use ndarray::{Array2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| args.get(at).and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let (n_cells, n_dims, n_types): (usize, usize, usize) = (number(0, 10_000), number(1, 10), number(2, 10));
    let classifier = match args.get(3).map(String::as_str) {
        None | Some("knn") => Classifier::Knn,
        Some("svm") => Classifier::Svm,
        Some("svm-occ") => Classifier::SvmOcc,
        Some(other) => return Err(format!("no classifier `{other}`").into()),
    };
    let (x, labels, sets) = cells(n_cells, n_dims, n_types);
    if let Some(path) = args.get(4) {
        let bytes: Vec<u8> = x.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(path, bytes)?;
    }
    let (before, mut out) = (peak_kib(), std::io::stdout().lock());
    let options =
        LearnOptions { train: TrainOptions { classifier, ..TrainOptions::default() }, ..LearnOptions::default() };
    let cells = LabelledCells { x: x.view(), labels: &labels };
    let (known, new) = sets.split_at(3);
    let (seconds, learned) = timed(|| learn(cells, known, &options, &mut |_| {}));
    let learned = learned?;
    writeln!(out, "learn    {seconds:8.2} s  {} leaves", learned.trained.tree.root().leaves().count())?;
    let query = x.select(Axis(0), &new[0].rows);
    let (seconds, found) = timed(|| learned.trained.predict(query.view(), options.rej_threshold));
    let found = found?;
    writeln!(out, "predict  {seconds:8.2} s  {} of {} cells rejected", found.n_rejected(), query.nrows())?;
    let (seconds, larger) = timed(|| update(learned.trained, cells, known, new, false, &options, &mut |_| {}));
    writeln!(out, "update   {seconds:8.2} s")?;
    let latents = x.len() * size_of::<f32>() / 1024;
    writeln!(
        out,
        "memory   {} KiB beyond {before} KiB; the latents have {latents} KiB",
        peak_kib().saturating_sub(before)
    )?;
    writeln!(out, "{}", larger?.trained.tree.newick(Names::First))?;
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}

/// Types around random places, in four data sets of equal size; the same in every run.
fn cells(n_cells: usize, n_dims: usize, n_types: usize) -> (Array2<f32>, Labels, Vec<DataSet>) {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut bell = || (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0;
    let places = Array2::from_shape_fn((n_types, n_dims), |_| 3.0 * bell());
    let x = Array2::from_shape_fn((n_cells, n_dims), |(cell, dim)| places[[type_of(cell, n_types), dim]] + bell());
    let names: Vec<String> =
        (0..n_cells).map(|cell| format!("type{:02}-{}", type_of(cell, n_types), cell % 4)).collect();
    let set = |set: usize| DataSet { name: set.to_string(), rows: (set..n_cells).step_by(4).collect() };
    (x, Labels::from_names(&names), (0..4).map(set).collect())
}

/// Cells of a type come from all data sets.
fn type_of(cell: usize, n_types: usize) -> usize {
    cell / 4 % n_types
}

/// Largest memory of this process so far; 0 where the system does not tell.
fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
