//! How long the exact and the approximate search for neighbours take, and what the latter finds: where to switch.
//!
//! `cargo run --release -p archipelago-analysis --example neighbours -- 10000,50000,100000`
//!
//! Cells are made up like principal components of a tissue: thirty types, variances that fall from component to component,
//! most of them within the types.

use std::io::Write as _;
use std::time::Instant;

use archipelago_analysis::neighbours::{approximate_self_knn, recall, self_knn};
use archipelago_analysis::progress::silent;
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let sizes = std::env::args().nth(1).unwrap_or_else(|| "10000,50000,100000".to_owned());
    let mut out = std::io::stdout().lock();
    writeln!(out, "cells    dims  exact (s)  approximate (s)  recall")?;
    for size in sizes.split(',') {
        for n_dims in [10, 50] {
            let x = cells(size.parse()?, n_dims);
            let started = Instant::now();
            let exact = self_knn(x.view(), N_NEIGHBOURS)?;
            let of_exact = started.elapsed().as_secs_f64();
            let started = Instant::now();
            let found = approximate_self_knn(x.view(), N_NEIGHBOURS, 0, &silent)?;
            let of_approximate = started.elapsed().as_secs_f64();
            let recall = recall(&found, &exact)?;
            writeln!(out, "{size:<8} {n_dims:>4}  {of_exact:>9.1}  {of_approximate:>15.1}  {recall:>6.4}")?;
        }
    }
    Ok(())
}

fn cells(n_cells: usize, n_dims: usize) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut normal = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
    let deviation = |dim: usize| 10.0 / (1.0 + dim as f32);
    let centres = Array2::from_shape_fn((N_TYPES, n_dims), |(_, dim)| deviation(dim) * normal());
    Array2::from_shape_fn((n_cells, n_dims), |(cell, dim)| {
        centres[[cell % N_TYPES, dim]] + (0.3 * deviation(dim)).max(1.0) * normal()
    })
}

const N_NEIGHBOURS: usize = 14;
const N_TYPES: usize = 30;
