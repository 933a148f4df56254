//! Surgery of cells that lack genes of the panel, for every model that grows.

use archipelago_anndata::Csr;
use archipelago_common::{
    Tensor,
    progress::Silent,
    task::{MissingGenes, TrainSpec},
};
use archipelago_models::{Device, NoCheckpoints, Query, Surgery, surgery};

use crate::{Batch, N_GENES, batch, cells, every_model_that_grows, key, reference, spec};

/// Positions of the genes that are measured.
fn measured() -> Vec<usize> {
    (0..N_GENES).filter(|gene| gene % 4 != 1).collect()
}

/// Cells without a count of the other genes.
fn lacking(seed: u64, n_cells: usize) -> Batch {
    let Batch { counts, labels, .. } = batch(seed, n_cells);
    let measured = measured();
    let mut dense = counts.to_dense();
    (0..dense.len()).filter(|at| !measured.contains(&(at % N_GENES))).for_each(|at| dense[at] = 0.0);
    Batch::of(Csr::from_dense(n_cells, N_GENES, &dense).unwrap(), labels)
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.to_f32("columns").unwrap()
}

#[test]
fn genes_that_nobody_measured_are_left_out_of_the_loss_and_stay_as_they_started() {
    every_model_that_grows(|model| {
        let (reference, query, name) = (reference(model), lacking(3, 40), model.card().name);
        let map = |missing_genes: MissingGenes, genes: &[usize]| -> Surgery {
            let query = Query { key: key("q"), cells: cells(&query).measuring(genes) };
            let spec = TrainSpec { missing_genes, ..spec(3) };
            surgery(&reference.base, &query, &spec, Device::Cpu, &mut Silent, &mut NoCheckpoints).unwrap()
        };
        let all: Vec<usize> = (0..N_GENES).collect();
        let zeros = map(MissingGenes::Zeros, &measured());
        assert_eq!(map(MissingGenes::LeftOut, &all).columns, zeros.columns, "{name}: upstream's way is there");
        let left_out = map(MissingGenes::LeftOut, &measured());
        assert_eq!((&left_out.initial, left_out.frozen_after), (&zeros.initial, zeros.frozen_before), "{name}");
        let is_left_out = left_out.columns != zeros.columns;
        assert!(is_left_out || TAKE_ZEROS.contains(&name), "{name}");
        assert_eq!(map(MissingGenes::LeftOut, &measured()).columns, left_out.columns, "{name}: one seed, one result");
        if !is_left_out {
            return;
        }
        let loss = |surgery: &Surgery| surgery.fit.reconstruction();
        assert!(loss(&left_out).is_finite() && loss(&left_out) != loss(&zeros), "{name}");

        for (tensor, trained) in left_out.columns.0.iter().filter(|(_, tensor)| tensor.shape() == [N_GENES]) {
            let (trained, started) = (numbers(trained), numbers(left_out.initial.0.get(tensor).unwrap()));
            let moved: Vec<usize> = (0..N_GENES).filter(|&gene| trained[gene] != started[gene]).collect();
            assert!(!moved.is_empty() && moved.iter().all(|gene| measured().contains(gene)), "{name}: {tensor}");
        }
    });
}

/// Models whose networks cannot go without a gene, as where an encoder takes shares of all of them.
const TAKE_ZEROS: [&str; 3] = ["multigrate", "mvtcr", "totalvi"];
