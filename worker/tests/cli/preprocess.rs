//! Preparing cells: filters, recipes that travel with a reference, files laid together and cut down.

use archipelago_anndata::AnnData;

use super::Bench;

const RECIPE: &str = "
[genes]
table = \"ids.csv\"
[filter_cells]
min_genes = 47
[normalize]
[highly_variable]
n_top_genes = 40
subset = true
";

/// Genes `GENE00001`… are called `SYM1`…, the second as the first.
fn with_recipe() -> Bench {
    let bench = Bench::new();
    let symbol = |gene: usize| if gene == 2 { 1 } else { gene };
    let table: String = (1..=60).map(|gene| format!("GENE{gene:05},SYM{}\n", symbol(gene))).collect();
    std::fs::write(bench.path("ids.csv"), table).unwrap();
    std::fs::write(bench.path("recipe.toml"), RECIPE).unwrap();
    bench
}

#[test]
fn a_recipe_prepares_the_reference_and_every_query() {
    let bench = with_recipe();
    let done = bench.run_json(&["preprocess", "cells.h5ad", "--recipe", "recipe.toml", "--out", "clean.h5ad"]);
    assert_eq!((&done["n_genes_merged"], &done["n_genes"][0]), (&1.into(), &60.into()));
    let clean = AnnData::read(bench.path("clean.h5ad")).unwrap();
    assert!(clean.var_names().iter().all(|gene| gene.starts_with("SYM")));
    assert!(clean.layers.contains_key("counts") && clean.n_obs() < 120, "{} cells", clean.n_obs());

    // Counts are found where the recipe put them; a query as it came is prepared while it is read.
    bench.run(&["train", "clean.h5ad", "--batches", "a,b", "--epochs", "1", "--out", "reference", "--device", "cpu"]);
    let map = |file: &str, out: &str| {
        bench.run_json(&["map", "reference", file, "--batches", "c", "--epochs", "1", "--device", "cpu", "--out", out])
    };
    let (raw, prepared) = (map("cells.h5ad", "mapped"), map("clean.h5ad", "mapped2"));
    assert_eq!(raw["n_genes_found"], raw["n_genes_panel"]);
    assert_eq!(raw["conditions"]["local/query/c"]["n_cells"], prepared["conditions"]["local/query/c"]["n_cells"]);
    assert_eq!(raw["version"], prepared["version"], "both ways train on the same counts");
}

#[test]
fn cells_prepared_by_another_recipe_are_refused() {
    let bench = with_recipe();
    bench.run(&["preprocess", "cells.h5ad", "--recipe", "recipe.toml", "--out", "clean.h5ad"]);
    bench.run(&["train", "clean.h5ad", "--batches", "a,b", "--epochs", "1", "--out", "reference", "--device", "cpu"]);
    bench.run(&["preprocess", "cells.h5ad", "--min-genes", "3", "--out", "other.h5ad"]);
    let said = bench.fail(1, &["map", "reference", "other.h5ad", "--batches", "c", "--out", "mapped"]);
    assert!(said.contains("was prepared by recipe") && said.contains("hint: name the file as it was"), "{said}");
}

#[test]
fn flags_make_a_recipe_that_can_be_repeated() {
    let bench = Bench::new();
    let flags = ["--min-genes", "5", "--min-cells", "2", "--target-sum", "1e4", "--n-top-genes", "20"];
    let first = ["preprocess", "cells.h5ad", "--write-recipe", "recipe.toml", "--out", "first.h5ad"];
    bench.run(&[&first[..], &flags].concat());
    bench.run(&["preprocess", "cells.h5ad", "--recipe", "recipe.toml", "--out", "second.h5ad"]);
    let read = |name| AnnData::read(bench.path(name)).unwrap();
    assert_eq!(read("first.h5ad"), read("second.h5ad"));
    let chosen = read("first.h5ad").var.column("highly_variable").unwrap().to_f64().unwrap();
    assert_eq!(chosen.iter().sum::<f64>(), 20.0);
}

#[test]
fn files_are_laid_together_and_cut_down() {
    let bench = Bench::new();
    bench.run(&["subset", "cells.h5ad", "--obs", "batch=a", "--out", "a.h5ad"]);
    bench.run(&["subset", "cells.h5ad", "--not-obs", "batch=a,b", "--genes", "GENE00002,GENE00001", "--out", "c.h5ad"]);
    let c = AnnData::read(bench.path("c.h5ad")).unwrap();
    assert_eq!((c.n_obs(), c.var_names()), (40, &["GENE00002".to_owned(), "GENE00001".to_owned()][..]));
    let both = ["concat", "a.h5ad", "c.h5ad", "--label", "lab", "--keys", "north,south", "--out", "both.h5ad"];
    let inner = bench.run_json(&both);
    assert_eq!((&inner["n_cells"], &inner["n_genes"]), (&80.into(), &2.into()));
    let outer = bench.run_json(&[&both[..], &["--join", "outer", "--overwrite"]].concat());
    assert_eq!(outer["n_genes"], 60);
    let shown = bench.run(&["inspect", "both.h5ad", "--format", "json"]);
    assert!(shown.contains("lab"), "{shown}");
    let said = bench.fail(1, &["concat", "a.h5ad", "a.h5ad", "--out", "twice.h5ad"]);
    assert!(said.contains("--index-unique"), "{said}");
    let said = bench.fail(1, &["subset", "cells.h5ad", "--obs", "batch=z", "--out", "z.h5ad"]);
    assert!(said.contains("has no value `z`; there are: `a`, `b`, `c`"), "{said}");
}

#[test]
fn a_recipe_that_does_not_fit_is_a_usage_error() {
    let bench = Bench::new();
    std::fs::write(bench.path("recipe.toml"), "[filter_cell]\nmin_genes = 3\n").unwrap();
    let said = bench.fail(2, &["preprocess", "cells.h5ad", "--recipe", "recipe.toml", "--out", "x.h5ad"]);
    assert!(said.contains("unknown field `filter_cell`") && said.contains("hint:"), "{said}");
    let said = bench.fail(2, &["preprocess", "cells.h5ad", "--n-top-genes", "5", "--out", "x.h5ad"]);
    assert!(said.contains("needs `[normalize]`"), "{said}");
    assert!(!bench.path("x.h5ad").exists());
}

#[test]
fn peaks_of_a_query_are_weighed_as_those_of_its_reference() {
    let bench = Bench::new();
    let weigh = |file: &str, more: &[&str], out: &str| {
        bench.run(&[&["preprocess", file, "--tf-idf", "--out", out], more].concat());
        AnnData::read(bench.path(out)).unwrap()
    };
    bench.run(&["subset", "cells.h5ad", "--obs", "batch=a,b", "--out", "known.h5ad"]);
    bench.run(&["subset", "cells.h5ad", "--obs", "batch=c", "--out", "query.h5ad"]);
    let known = weigh("known.h5ad", &[], "reference.h5ad");
    let idf = |adata: &AnnData| adata.var.column("idf").unwrap().to_f64().unwrap();
    let (alone, query) =
        (weigh("query.h5ad", &[], "alone.h5ad"), weigh("query.h5ad", &["--idf-of", "reference.h5ad"], "weighed.h5ad"));
    assert_eq!(idf(&query), idf(&known));
    assert_ne!(idf(&alone), idf(&known));
    let counts = query.layers["counts"].to_csr().unwrap();
    let values = query.matrix(None).unwrap().to_csr().unwrap();
    let (at, gene) = (0, counts.indices()[0] as usize);
    let expected = (f64::from(counts.data()[at]) * 1e4 / counts.row_sums()[0]).ln_1p() * idf(&known)[gene];
    assert!((f64::from(values.data()[at]) - expected).abs() < 1e-4, "{} for {expected}", values.data()[at]);

    let both = bench.fail(2, &["preprocess", "cells.h5ad", "--tf-idf", "--normalize", "--out", "x.h5ad"]);
    assert!(both.contains("--normalize"), "{both}");
    let none = bench.fail(1, &["preprocess", "cells.h5ad", "--tf-idf", "--idf-of", "known.h5ad", "--out", "x.h5ad"]);
    assert!(none.contains("known.h5ad") && none.contains("`idf`"), "{none}");
    std::fs::write(bench.path("both.toml"), "[normalize]\n[tf_idf]\n").unwrap();
    let both = bench.fail(2, &["preprocess", "cells.h5ad", "--recipe", "both.toml", "--out", "x.h5ad"]);
    assert!(both.contains("`normalize` and `tf_idf`"), "{both}");
}
