//! A model of gene sets, from a GMT file to enriched terms, with new terms at the site that maps.

use archipelago_anndata::{AnnData, Array, Compression};

use crate::{Bench, read_json};

/// Sets over the genes of the bench: odd and even ones, and one too small for most.
pub(crate) fn write_sets(bench: &Bench) {
    let set = |name: &str, genes: Vec<usize>| {
        let genes: Vec<String> = genes.into_iter().map(|gene| format!("GENE{gene:05}")).collect();
        format!("SET_{name}\tna\t{}\n", genes.join("\t"))
    };
    let all = |rest: usize| (1..50).filter(move |gene| gene % 2 == rest).collect::<Vec<_>>();
    let text = [set("ODD", all(1)), set("EVEN", all(0)), set("SMALL", vec![1, 2, 3])].concat();
    std::fs::write(bench.path("sets.gmt"), text).unwrap();
    std::fs::write(bench.path("new.gmt"), set("NEW", (40..56).collect())).unwrap();
    std::fs::write(bench.path("foreign.gmt"), "SET_OTHER\tna\tMX1\tISG15\n").unwrap();
}

const SMALL: [&str; 8] = ["--model", "expimap", "--batches", "a,b", "--hidden-layer-sizes", "8", "--epochs", "3"];

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "cells.h5ad"][..], &SMALL, more].concat()
}

fn bench() -> Bench {
    let bench = Bench::new();
    write_sets(&bench);
    bench.run(&train(&["--gene-sets", "sets.gmt", "--out", "reference"]));
    bench
}

/// The first line and the number of further ones of a table.
fn table(bench: &Bench, name: &str) -> (String, usize) {
    let text = std::fs::read_to_string(bench.path(name)).unwrap();
    let mut lines = text.lines();
    (lines.next().unwrap().to_owned(), lines.count())
}

#[test]
fn genes_in_no_set_are_left_out_and_small_sets_too() {
    let bench = bench();
    // Genes 50 to 60 are in no set.
    assert_eq!(read_json(&bench.path("reference/summary.json"))["n_genes"], 49);
    let shown = bench.run_json(&["results", "terms", "reference", "--out", "terms.csv"]);
    assert_eq!((&shown["n_rows"], table(&bench, "terms.csv").1), (&3.into(), 3));
    bench.run(&train(&["--gene-sets", "sets.gmt", "--set-min-genes", "3", "--set-full-names", "--out", "larger"]));
    bench.run(&["results", "terms", "larger", "--out", "larger.csv"]);
    let text = std::fs::read_to_string(bench.path("larger.csv")).unwrap();
    assert!(text.contains("SET_EVEN") && !text.contains("SMALL"), "{text}");
}

#[test]
fn a_mask_in_varm_is_what_its_gmt_file_is() {
    let bench = bench();
    let mut cells = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let member = |gene: usize, term: usize| match term {
        0 => gene < 50 && gene % 2 == 1,
        1 => gene < 50 && gene.is_multiple_of(2),
        _ => gene < 4,
    };
    let number = |name: &String| name.trim_start_matches("GENE").parse::<usize>().unwrap();
    let genes: Vec<usize> = cells.var_names().iter().map(number).collect();
    let mask: Vec<f32> = genes
        .iter()
        .flat_map(|&gene| (0..3).map(move |term| f32::from(u8::from(gene > 0 && member(gene, term)))))
        .collect();
    cells.varm.insert("I".to_owned(), Array::matrix(genes.len(), 3, mask).unwrap().into());
    cells.uns.insert("terms".to_owned(), Array::vector(vec!["ODD", "EVEN", "SMALL"]).into());
    cells.write(bench.path("cells.h5ad"), Compression::None).unwrap();
    bench.run(&train(&["--field", "gene_sets=varm/I@uns/terms", "--out", "masked"]));
    let version = |name: &str| read_json(&bench.path(&format!("{name}/summary.json")))["loss"].clone();
    assert_eq!(version("masked"), version("reference"));
}

#[test]
fn terms_are_asked_for_by_name_and_compared_between_groups() {
    let bench = bench();
    let ask = |args: &[&str]| bench.run_json(&[&["results"], args].concat());
    ask(&["term-genes", "reference", "--term", "ODD", "--out", "genes.csv"]);
    assert_eq!(table(&bench, "genes.csv").1, 25);
    ask(&["term-sets", "reference", "--terms", "SMALL", "--out", "sets"]);
    let sets = std::fs::read_to_string(bench.path("sets/gene_sets.gmt")).unwrap();
    assert_eq!(sets, "SMALL\tna\tGENE00001\tGENE00002\tGENE00003\n");
    ask(&["term-overlap", "reference", "--out", "overlap.csv"]);
    let overlap = std::fs::read_to_string(bench.path("overlap.csv")).unwrap();
    assert!(overlap.lines().nth(1).unwrap().starts_with("ODD,1,0,"), "{overlap}");
    ask(&["term-scores", "reference", "cells.h5ad", "--batches", "a", "--terms", "EVEN,ODD", "--out", "scores.csv"]);
    assert!(table(&bench, "scores.csv").0.ends_with("EVEN,ODD"));
    let groups = ["--groups", "cell_type", "--n-sample", "50", "--seed", "3"];
    let cells = ["enrich", "reference", "cells.h5ad", "--batches", "a,b"];
    ask(&[&cells[..], &groups, &["--out", "factors.csv"]].concat());
    ask(&[&cells[..], &groups, &["--out", "again.csv"]].concat());
    let factors = |name: &str| std::fs::read(bench.path(name)).unwrap();
    assert_eq!(factors("factors.csv"), factors("again.csv"), "one seed, one result");
    assert_eq!(table(&bench, "factors.csv").1, 3);
    ask(&[&cells[..], &groups, &["--sampled", "--directions", "none", "--out", "drawn.csv"]].concat());
    assert_ne!(factors("factors.csv"), factors("drawn.csv"));
}

const ADDED: [&str; 7] = ["--n-ext", "2", "--new-gene-sets", "new.gmt", "--use-hsic", "--gamma-ext", "0.1"];

#[test]
fn new_terms_stay_with_the_site_and_are_asked_like_the_others() {
    let bench = bench();
    let map = ["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "3"];
    bench.run(&[&map[..], &ADDED, &["--out", "mapped"]].concat());
    bench.run(&[&map[..], &["--out", "plain"]].concat());
    assert!(bench.path("mapped/local.safetensors").is_file());
    bench.run(&["results", "terms", "mapped", "--out", "terms.csv"]);
    let terms = std::fs::read_to_string(bench.path("terms.csv")).unwrap();
    for name in ["ODD", "NEW", "unconstrained_0", "unconstrained_1"] {
        assert!(terms.contains(name), "{terms}");
    }
    // The cells of the reference are seen through the new terms, too.
    for (batch, out) in [("a", "a.csv"), ("c", "c.csv")] {
        let scores = ["results", "term-scores", "mapped", "cells.h5ad", "--batches", batch, "--out", out];
        bench.run(&scores);
        assert!(table(&bench, out).0.ends_with("NEW,unconstrained_0,unconstrained_1"), "{}", table(&bench, out).0);
    }
    let mapped = AnnData::read(bench.path("mapped/mapped.h5ad")).unwrap();
    assert_eq!(mapped.obsm("X_archipelago").unwrap().to_table("X").unwrap().n_cols, 6);
    // A plain reference has forgotten nothing and knows nothing new.
    bench.run(&["results", "terms", "plain", "--out", "plain.csv"]);
    assert_eq!(table(&bench, "plain.csv").1, 3);
    // They are in no part of what was written: whoever publishes the folder does not publish them.
    let version = read_json(&bench.path("mapped/version.json"));
    assert!(version["columns"].as_object().unwrap().keys().all(|key| !key.contains('+')), "{version}");
    // scArches has a place for them, and their names come back.
    bench.run(&["export", "mapped", "--out", "saved"]);
    bench.run(&["import", "saved", "--out", "imported"]);
    assert_eq!(terms_of(&bench, "imported"), terms_of(&bench, "mapped"));
}

/// The names of a reference's terms.
fn terms_of(bench: &Bench, reference: &str) -> Vec<String> {
    bench.run(&["results", "terms", reference, "--out", "listed.csv", "--overwrite"]);
    let text = std::fs::read_to_string(bench.path("listed.csv")).unwrap();
    text.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect()
}

/// A folder that scArches saved, which has no names of terms: those of the cells are given.
#[test]
fn terms_of_a_saved_model_get_the_names_that_scarches_keeps_with_the_cells() {
    let bench = Bench::new();
    let saved = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/expimap/saved_model_nb");
    let saved = saved.to_str().unwrap();
    let names: Vec<String> = (0..8).map(|term| format!("PATHWAY {term}")).collect();
    let mut cells = AnnData::read(bench.path("cells.h5ad")).unwrap();
    cells.uns.insert("terms".to_owned(), Array::vector(names.clone()).into());
    cells.uns.insert("few".to_owned(), Array::vector(names[..7].to_vec()).into());
    cells.write(bench.path("cells.h5ad"), Compression::None).unwrap();
    std::fs::write(bench.path("terms.txt"), names.join("\n")).unwrap();
    let import = |more: &[&str], out: &str| {
        bench.run(&[&["import", saved][..], more, &["--out", out]].concat());
        terms_of(&bench, out)
    };
    assert_eq!(import(&[], "unnamed"), (0..8).map(|term| format!("term_{term}")).collect::<Vec<_>>());
    assert_eq!(import(&["--terms", "cells.h5ad"], "of-cells"), names);
    assert_eq!(import(&["--terms", "terms.txt"], "of-text"), names);
    bench.run(&["export", "of-cells", "--out", "exported"]);
    bench.run(&["import", "exported", "--out", "again"]);
    assert_eq!(terms_of(&bench, "again"), names);
    for (code, more, words) in [
        (1, &["--terms", "cells.h5ad", "--terms-key", "few"][..], "7 names of terms, expected 8"),
        (1, &["--terms", "cells.h5ad", "--terms-key", "none"], "none"),
        (2, &["--terms", "absent.txt"], "absent.txt"),
    ] {
        let said = bench.fail(code, &[&["import", saved], more, &["--out", "x"]].concat());
        assert!(said.contains(words), "no `{words}` in:\n{said}");
    }
    let scvi = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/import/minimal_export_scvi");
    let said = bench.fail(2, &["import", scvi.to_str().unwrap(), "--terms", "terms.txt", "--out", "x"]);
    assert!(said.contains("--terms") && said.contains("have no terms"), "{said}");
    assert!(!bench.path("x").exists());
}

#[test]
fn upstreams_surgery_makes_new_terms_part_of_the_reference() {
    let bench = bench();
    let map = |from: &str, batch: &str, out: &str| {
        let args =
            ["map", from, "cells.h5ad", "--batches", batch, "--epochs", "2", "--surgery", "upstream", "--out", out];
        bench.run(&[&args[..], &ADDED].concat());
        bench.run(&["results", "terms", out, "--out", &format!("{out}.csv")]);
        table(&bench, &format!("{out}.csv")).1
    };
    assert_eq!(map("reference", "c", "grown"), 6);
    assert!(!bench.path("grown/local.safetensors").exists());
    bench.run(&[
        "generate",
        "--batches",
        "d",
        "--n-cells",
        "40",
        "--n-genes",
        "60",
        "--out",
        "cells.h5ad",
        "--overwrite",
    ]);
    assert_eq!(map("grown", "d", "again"), 9);
}

#[test]
fn what_cannot_be_a_model_of_gene_sets_is_refused_in_words() {
    let bench = bench();
    let refused = |args: &[&str], words: &[&str]| {
        let said = bench.fail(2, args);
        words.iter().for_each(|word| assert!(said.contains(word), "no `{word}` in:\n{said}"));
    };
    refused(&train(&["--out", "x"]), &["`gene_sets`", "--gene-sets"]);
    refused(&train(&["--gene-sets", "foreign.gmt", "--out", "x"]), &["foreign.gmt", "no gene of the data"]);
    let large = ["--gene-sets", "sets.gmt", "--set-min-genes", "100", "--out", "x"];
    refused(&train(&large), &["sets.gmt", "more than 100 genes"]);
    let small = std::fs::read_to_string(bench.path("sets.gmt")).unwrap().replace("GENE", "gene");
    std::fs::write(bench.path("small.gmt"), small).unwrap();
    bench.run(&train(&["--gene-sets", "small.gmt", "--out", "same"]));
    let told_apart = ["--gene-sets", "small.gmt", "--set-match-case", "--out", "x"];
    refused(&train(&told_apart), &["small.gmt", "no gene of the data"]);
    refused(&train(&["--gene-sets", "sets.gmt", "--omega", "NOPE=2", "--out", "x"]), &["omega", "`NOPE`"]);
    let mut cells = AnnData::read(bench.path("cells.h5ad")).unwrap();
    // A mask with fewer columns than there are names, and cells without their condition.
    cells.varm.insert("I".to_owned(), Array::matrix(60, 2, vec![1.0; 120]).unwrap().into());
    cells.uns.insert("terms".to_owned(), Array::vector(vec!["ODD", "EVEN", "SMALL"]).into());
    cells.write(bench.path("cells.h5ad"), Compression::None).unwrap();
    cells.obs.remove("batch");
    cells.write(bench.path("bare.h5ad"), Compression::None).unwrap();
    let map = |more: &[&'static str]| {
        [&["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "1", "--out", "y"][..], more].concat()
    };
    refused(&map(&["--new-gene-sets", "foreign.gmt"]), &["foreign.gmt", "no gene"]);
    refused(&map(&["--use-hsic"]), &["use_hsic", "n_ext"]);
    let said = bench.fail(1, &["map", "reference", "bare.h5ad", "--epochs", "1", "--out", "y"]);
    assert!(said.contains("no column `batch`") && said.contains("--batch-key"), "{said}");
    let said = bench.fail(1, &train(&["--field", "gene_sets=varm/I@uns/terms", "--out", "x"]));
    assert!(said.contains("varm/I") && said.contains("60 rows and 2 columns"), "{said}");
    refused(&["results", "term-genes", "reference", "--term", "NOPE", "--out", "z.csv"], &["`NOPE`", "results terms"]);
    bench.run(&[&crate::TRAIN[..12], &["--out=scvi"]].concat());
    refused(&["map", "scvi", "cells.h5ad", "--batches", "c", "--n-ext", "2", "--out", "y"], &["scvi", "adds nothing"]);
    assert!(!bench.path("x").join("version.json").exists() && !bench.path("y").exists());
}
