//! Several modalities of the same cells, from files to a mapped query: with all of them, and with one alone.

use archipelago_anndata::{AnnData, Compression, Csr, H5adFile, MuData};

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

/// A modality of an h5mu file with other values.
fn change(bench: &Bench, (from, to): (&str, &str), change: impl FnOnce(&mut MuData)) {
    let mut mdata = MuData::read(bench.path(from)).unwrap();
    change(&mut mdata);
    mdata.write(bench.path(to), Compression::None).unwrap();
}

#[test]
fn what_a_cell_lacks_is_imputed_and_every_modality_has_its_own_latent_state() {
    let bench = bench();
    let lacking = ["--batches", "c", "--field", "adt=none"];
    bench.run(&[&["map", "reference", "cells.h5ad", "--epochs", "2", "--out", "mapped"], &lacking[..]].concat());
    let ask = |question: &str, out: &str, more: &[&str]| {
        let about = ["results", question, "mapped", "cells.h5ad", "--dataset", "query", "--out", out];
        bench.run(&[&about[..], &lacking, more].concat());
    };
    ask("impute", "proteins.csv", &["--modality", "adt", "--total", "100"]);
    let text = std::fs::read_to_string(bench.path("proteins.csv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("cell,CD3,CD4,CD8,CD14,CD19,CD56"));
    for line in lines {
        let sum: f64 = line.split(',').skip(1).map(|value| value.parse::<f64>().unwrap()).sum();
        assert!((sum - 100.0).abs() < 1e-2, "{line}");
    }
    ask("impute", "all.h5ad", &["--from", "draw"]);
    let all = AnnData::read(bench.path("all.h5ad")).unwrap();
    assert_eq!((all.n_obs(), all.n_vars()), (60, 56));
    assert_eq!(all.var_names()[50], "adt:CD3");
    ask("modality-latent", "latent.h5ad", &[]);
    let latent = AnnData::read(bench.path("latent.h5ad")).unwrap();
    let width = |name: &str| latent.obsm(name).unwrap().to_table(name).unwrap().n_cols;
    assert_eq!(["X_multigrate", "X_multigrate_rna", "X_multigrate_adt"].map(width), [3, 3, 3]);
    let has = |name: &str| latent.obs.column(name).unwrap().to_f64().unwrap();
    assert!(has("has_rna").iter().all(|&has| has == 1.0) && has("has_adt").iter().all(|&has| has == 0.0));
    ask("modality-latent", "latent.csv", &[]);
    let text = std::fs::read_to_string(bench.path("latent.csv")).unwrap();
    assert!(text.starts_with("cell,has_rna,has_adt,X_multigrate_1,"), "{text}");
    let unknown =
        ["results", "impute", "mapped", "cells.h5ad", "--dataset", "query", "--modality", "atac", "--out", "x.csv"];
    let unknown = bench.fail(2, &[&unknown[..], &lacking].concat());
    assert!(unknown.contains("`--modality` is `atac`, expected some of rna, adt"), "{unknown}");
    let shown = bench.run(&["results", "questions", "mapped"]);
    assert!(shown.contains("decodes     rna") && shown.contains("modality-latent"), "{shown}");
    bench.run(
        &[&["results", "expression", "mapped", "cells.h5ad", "--dataset", "query", "--out", "x.h5ad"], &lacking[..]]
            .concat(),
    );
    bench.run(&["plot", "loss", "reference", "mapped", "--by-term", "--out", "loss.svg"]);
    let picture = std::fs::read_to_string(bench.path("loss.svg")).unwrap();
    assert!(picture.contains("modality 1 reconstruction loss"), "{picture}");
    bench.run(&["report", "mapped"]);
    let page = std::fs::read_to_string(bench.path("mapped/report.html")).unwrap();
    assert!(page.contains("Terms of the loss") && page.contains("loss of the second modality"));
}

/// Cells of batch `b` without proteins, of `c` without genes.
fn scatter(bench: &Bench) {
    change(bench, ("cite.h5mu", "scattered.h5mu"), |mdata| {
        let batches = mdata.modalities["rna"].obs.column("batch").unwrap().to_strings();
        let without = |batch: &str| -> Vec<usize> {
            (0..batches.len()).filter(|&row| batches[row].as_deref() != Some(batch)).collect()
        };
        let batch = mdata.modalities["rna"].obs.column("batch").unwrap().clone();
        let proteins = mdata.modalities.get_mut("prot").unwrap();
        proteins.obs.insert("batch", batch).unwrap();
        *proteins = proteins.select_obs(&without("b")).unwrap();
        let rna = mdata.modalities.get_mut("rna").unwrap();
        *rna = rna.select_obs(&without("c")).unwrap();
    });
}

#[test]
fn modalities_of_different_cells_are_laid_together_and_trained_on() {
    let bench = bench();
    scatter(&bench);
    let train = |file: &str, out: &str| {
        let small = ["--z-dim", "3", "--n-hidden-encoders", "8", "--n-hidden-decoders", "8", "--epochs", "2"];
        let modalities = ["--modalities", "prot", "--losses", "nb", "--field", "prot=mod/prot", "--out"];
        let train = ["train".to_owned(), file.to_owned(), "--model".to_owned(), "multigrate".to_owned()];
        let more = [&small[..], &modalities].concat().into_iter().map(str::to_owned);
        train.into_iter().chain(more).chain([out.to_owned()]).collect::<Vec<String>>()
    };
    let args = |all: &[String]| all.iter().map(String::as_str).map(str::to_owned).collect::<Vec<_>>();
    let refused = args(&train("scattered.h5mu", "x"));
    let refused = bench.fail(1, &refused.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        refused.contains("60 cells of modality `prot`") && refused.contains("organize scattered.h5mu"),
        "{refused}"
    );
    let shown = bench.run(&["organize", "scattered.h5mu", "--modalities-key", "Modality", "--out", "all.h5mu"]);
    assert!(shown.contains("rna         50 features of 120 cells"), "{shown}");
    assert!(shown.contains("prot        6 features of 120 cells"), "{shown}");
    let all = MuData::read(bench.path("all.h5mu")).unwrap();
    for (name, adata) in &all.modalities {
        assert_eq!(adata.n_obs(), 180, "{name}");
        let of_cell = adata.obs.column("Modality").unwrap().to_strings();
        let sums = adata.matrix(None).unwrap().to_csr().unwrap().row_sums();
        for (modalities, sum) in of_cell.iter().zip(sums) {
            let has = modalities.as_deref().unwrap().split('-').any(|one| one == name);
            assert_eq!(has, sum > 0.0, "{name} of a cell with {modalities:?}");
        }
    }
    let joint = H5adFile::open(bench.path("all.h5mu")).unwrap();
    assert!(joint.obs().column("group").is_ok() && joint.obs().column("batch").is_ok());
    let trained = train("all.h5mu", "organized");
    bench.run(&trained.iter().map(String::as_str).collect::<Vec<_>>());
    // The same cells from a file of each modality and data set.
    let both = ["organize", "rna=cite.h5ad,cite.h5ad", "prot=cite.h5ad@obsm/protein_expression,none"];
    let keys = ["--label", "lab", "--keys", "north,south", "--index-unique", "--out", "table.h5ad"];
    bench.run(&[&both[..], &keys].concat());
    let table = AnnData::read(bench.path("table.h5ad")).unwrap();
    assert_eq!((table.n_obs(), table.n_vars()), (360, 56));
    assert!(table.obs_names()[0].ends_with("-north") && table.obs.column("lab").is_ok());
    let twice = bench.fail(1, &["organize", "rna=cite.h5ad,cite.h5ad", "--out", "x.h5mu"]);
    assert!(twice.contains("cell names occur more than once"), "{twice}");
    let none = bench.fail(2, &["organize", "cite.h5ad", "--out", "x.h5mu"]);
    assert!(none.contains("`NAME=FILE,FILE,…`, or a single h5mu file"), "{none}");
    // Cells that lack a modality other than gene expression need no table.
    change(&bench, ("scattered.h5mu", "without.h5mu"), |mdata| {
        let cells = mdata.modalities["rna"].obs_names().to_vec();
        let proteins = mdata.modalities.get_mut("prot").unwrap();
        let kept: Vec<usize> =
            (0..proteins.n_obs()).filter(|&row| cells.contains(&proteins.obs_names()[row])).collect();
        *proteins = proteins.select_obs(&kept).unwrap();
    });
    let trained = train("without.h5mu", "without");
    bench.run(&trained.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn values_that_cannot_be_learnt_from_are_refused_in_words() {
    let bench = bench();
    let train = |file: &str, more: &[&str], code: i32| {
        let train =
            ["train", file, "--model", "multigrate", "--modalities", "prot", "--field", "prot=mod/prot", "--out", "x"];
        bench.fail(code, &[&train[..], more].concat())
    };
    let with = |name: &str, value: fn(f32) -> f32| {
        change(&bench, ("cite.h5mu", name), |mdata| {
            let proteins = mdata.modalities.get_mut("prot").unwrap();
            let values = proteins.matrix(None).unwrap().to_csr().unwrap().to_dense().into_iter().map(value);
            let values: Vec<f32> = values.collect();
            proteins.x = Some(Csr::from_dense(proteins.n_obs(), proteins.n_vars(), &values).unwrap().into());
        });
    };
    with("zeros.h5mu", |_| 0.0);
    let zeros = train("zeros.h5mu", &["--losses", "nb"], 1);
    assert!(zeros.contains("`prot` holds nothing but zeros"), "{zeros}");
    with("nan.h5mu", |value| if value == 3.0 { f32::NAN } else { value });
    for loss in ["nb", "nb,mse", "nb,bce"] {
        let nan = train("nan.h5mu", &["--losses", loss], 1);
        assert!(nan.contains("NaN for `CD3`"), "{loss}: {nan}");
    }
    with("halves.h5mu", |value| value / 2.0);
    let halves = train("halves.h5mu", &["--losses", "nb"], 1);
    assert!(halves.contains("expected raw counts"), "{halves}");
    let unknown =
        bench.fail(2, &["map", "reference", "cite.h5mu", "--batches", "c", "--field", "atac=mod/prot", "--out", "x"]);
    assert!(unknown.contains("`multigrate` does not take `atac`; it takes `rna`, `adt`, "), "{unknown}");
    let many = (0..8).map(|m| format!("m{m}")).collect::<Vec<_>>().join(",");
    let many = bench.fail(2, &["train", "cite.h5mu", "--model", "multigrate", "--modalities", &many, "--out", "x"]);
    assert!(many.contains("`modalities` makes 9 with gene expression, at most 8"), "{many}");
    let jeffreys = |batch_size: &str| {
        let on = ["--condition-keys", "batch", "--integrate-on", "batch", "--modality-alignment", "Jeffreys"];
        let short = ["--losses", "nb", "--epochs", "1", "--batch-size", batch_size];
        [&on[..], &short].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let large = jeffreys("200");
    let large = train("cite.h5mu", &large.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    assert!(
        large.contains("fewer than half a minibatch (100)") && large.contains("Jeffreys' divergence goes row by row"),
        "{large}"
    );
    let small = jeffreys("20");
    let train = [
        "train",
        "cite.h5mu",
        "--model",
        "multigrate",
        "--modalities",
        "prot",
        "--field",
        "prot=mod/prot",
        "--out",
        "small",
    ];
    bench.run(&[&train[..], &small.iter().map(String::as_str).collect::<Vec<_>>()].concat());
}

#[test]
fn the_weight_of_the_divergence_and_the_learning_rate_can_go_in_cycles() {
    let bench = bench();
    let train = ["train", "cite.h5ad", "--model", "multigrate", "--modalities", "adt", "--losses", "nb"];
    let more_of = |out| ["--field", "adt=obsm/protein_expression", "--epochs", "4", "--z-dim", "3", "--out", out];
    let more = more_of("cycles");
    bench.run(&[&train[..], &more, &["--kl-cycles", "2", "--optimizer", "adamw"]].concat());
    let none = bench.fail(2, &[&train[..], &more, &["--kl-cycles", "0", "--overwrite"]].concat());
    assert!(none.contains("cycles of the KL weight"), "{none}");
    let version = |more: &[&str]| {
        let run = ["--initialization", "xavier", "--seed", "1", "--overwrite"];
        bench.run_json(&[&train[..], &more_of("rates"), &run, more].concat())["version"].clone()
    };
    assert_ne!(version(&["--lr-cycles", "2"]), version(&[]));
    assert_eq!(version(&["--lr-cycles", "2"]), version(&["--lr-cycles", "2"]));
    let both = bench.fail(2, &[&train[..], &more, &["--lr-cycles", "2", "--reduce-lr-on-plateau"]].concat());
    assert!(both.contains("--lr-cycles"), "{both}");
}
