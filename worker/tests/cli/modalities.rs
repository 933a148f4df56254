//! Several modalities of the same cells, from files to a mapped query: with all of them, and with one alone.

use archipelago_anndata::AnnData;

use super::{Bench, proteins::add_proteins};

/// A reference of batches `a` and `b`, of genes and of surface proteins.
fn bench() -> Bench {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let sizes = ["--n-cells", "60", "--n-genes", "50", "--n-types", "3", "--out", "cells.h5ad"];
    bench.run(&[&["generate", "--batches", "a,b,c"], &sizes[..]].concat());
    add_proteins(&bench);
    let small = ["--z-dim", "3", "--cond-dim", "2", "--n-hidden-encoders", "8", "--n-hidden-decoders", "8"];
    let modalities = ["--modalities", "adt", "--losses", "nb,nb", "--field", "adt=obsm/protein_expression"];
    let train =
        ["train", "cite.h5ad", "--model", "multigrate", "--batches", "a,b", "--epochs", "3", "--out", "reference"];
    bench.run(&[&train[..], &modalities, &small].concat());
    bench
}

fn positions(bench: &Bench, file: &str) -> Vec<f32> {
    let adata = AnnData::read(bench.path(file)).unwrap();
    adata.obsm("X_archipelago").unwrap().to_table("X_archipelago").unwrap().values.into_iter().collect()
}

#[test]
fn a_query_is_mapped_by_the_modalities_that_it_has() {
    let bench = bench();
    let shown = bench.run(&["inspect", "reference"]);
    assert!(shown.contains("adt"), "{shown}");
    bench.run(&["map", "reference", "cite.h5ad", "--batches", "c", "--epochs", "2", "--out", "both"]);
    let lacking =
        bench.fail(1, &["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "2", "--out", "genes"]);
    assert!(lacking.contains("no obsm `protein_expression`"), "{lacking}");
    let genes =
        ["map", "reference", "cells.h5ad", "--batches", "c", "--field", "adt=none", "--epochs", "2", "--out", "genes"];
    bench.run(&genes);
    let (both, genes) = (positions(&bench, "both/mapped.h5ad"), positions(&bench, "genes/mapped.h5ad"));
    assert!(both.iter().chain(&genes).all(|value| value.is_finite()));
    assert_ne!(both, genes);
    bench.run(&[
        "latent",
        "both",
        "cite.h5ad",
        "--batches",
        "c",
        "--owner",
        "local",
        "--dataset",
        "query",
        "--out",
        "latent.h5ad",
    ]);
    assert_eq!(positions(&bench, "latent.h5ad"), both);
}

#[test]
fn modalities_that_do_not_fit_are_refused_in_words() {
    let bench = bench();
    let lacking =
        ["train", "cells.h5ad", "--model", "multigrate", "--modalities", "adt", "--losses", "nb", "--out", "x"];
    let lacking = bench.fail(2, &lacking);
    assert!(lacking.contains("adt"), "{lacking}");
    let counts =
        ["--modalities", "adt", "--losses", "nb,nb,nb", "--field", "adt=obsm/protein_expression", "--out", "x"];
    let counts = bench.fail(2, &[&["train", "cite.h5ad", "--model", "multigrate"], &counts[..]].concat());
    assert!(counts.contains("`losses` has 3 items, expected one, or one for each of 2 modalities"), "{counts}");
    let shares = ["--modalities", "adt", "--losses", "nb,bce", "--field", "adt=obsm/protein_expression", "--out", "x"];
    let shares = bench.fail(1, &[&["train", "cite.h5ad", "--model", "multigrate"], &shares[..]].concat());
    assert!(shares.contains("holds 3 for `CD3` in row 0, expected numbers from 0 to 1"), "{shares}");
}
