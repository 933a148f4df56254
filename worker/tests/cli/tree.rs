//! Trees of cell types: learn, update, predict, show and edit, and what is said of bad input.

use std::path::{Path, PathBuf};

use archipelago_anndata::{AnnData, Array, Column, Compression, Csr, DataFrame, Element};

use super::{Bench, read_json};

/// Cells of three data sets around places in the plane; each place is a cell type, `c` has one of its own.
fn placed() -> Bench {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    write_cells(&bench.path("cells.h5ad"), 1.0);
    bench
}

fn write_cells(path: &Path, scale: f32) {
    let place = [(0.0, 0.0), (9.0, 0.0), (0.0, 9.0), (9.0, 9.0)];
    let (mut batches, mut types, mut x) = (Vec::new(), Vec::new(), Vec::new());
    for (batch, known) in [("a", &[0, 1, 2][..]), ("b", &[0, 1, 2]), ("c", &[0, 1, 2, 3])] {
        for i in 0..120 {
            let at = known[i % known.len()];
            let jitter = |salt: usize| ((i * salt + batch.len()) % 19) as f32 / 19.0;
            x.extend([scale * (place[at].0 + jitter(31)), scale * (place[at].1 + jitter(57))]);
            batches.push(batch);
            types.push(["B", "T", "NK", "Mono"][at]);
        }
    }
    let n = batches.len();
    let mut obs = DataFrame::new((0..n).map(|i| format!("cell{i}")));
    obs.insert("batch", Column::categorical(&batches)).unwrap();
    obs.insert("cell_type", Column::categorical(&types)).unwrap();
    let mut adata = AnnData::new(Csr::from_dense(n, 1, &vec![1.0; n]).unwrap(), obs, DataFrame::new(["g"])).unwrap();
    adata.obsm.insert("X_pca".to_owned(), Element::Array(Array::matrix(n, 2, x).unwrap()));
    adata.write(path, Compression::None).unwrap();
}

const LEARN: [&str; 7] = ["tree", "learn", "cells.h5ad", "--order", "a,b", "--append-batch", "--out=tree"];
const NEWICK: &str = "(B-a|B-b,NK-a|NK-b,T-a|T-b)root";

/// Runs a command that must fail, and looks for words in what it says.
#[track_caller]
fn check(bench: &Bench, code: i32, args: &[&str], words: &[&str]) {
    let said = bench.fail(code, args);
    for word in words {
        assert!(said.contains(word), "no `{word}` in:\n{said}");
    }
}

#[test]
fn data_sets_join_a_tree_and_new_cells_are_placed_in_it() {
    let bench = placed();
    let learned = bench.run_json(&LEARN);
    assert_eq!(learned["newick"], NEWICK);
    assert_eq!(learned["data_sets"][0]["matched"][0], serde_json::json!(["B-b", "B-a"]));

    let predict = ["tree", "predict", "tree", "cells.h5ad", "--out", "placed.h5ad"];
    let found = bench.run_json(&predict);
    let adata = AnnData::read(bench.path("placed.h5ad")).unwrap();
    let labels = adata.obs.column("tree_label").unwrap().to_strings();
    let probabilities = adata.obs.column("tree_probability").unwrap().to_f64().unwrap();
    let mut n_rejected = 0;
    for cell in 0..adata.n_obs() {
        let truth = adata.obs.column("cell_type").unwrap().to_strings()[cell].clone().unwrap();
        let label = labels[cell].clone().unwrap();
        let is_rejected = ["root", "Rejected (RE)", "Rejection (dist)"].contains(&label.as_str());
        n_rejected += usize::from(is_rejected);
        assert!(is_rejected || label == format!("{truth}-a"), "cell {cell}: {truth} is {label}");
        assert!(is_rejected || truth != "Mono", "a type that the tree does not know is not placed");
        assert_eq!(probabilities[cell] > 0.5, !is_rejected);
    }
    assert_eq!(found["n_rejected"], n_rejected);

    let larger = bench.run_json(&["tree", "update", "tree", "cells.h5ad", "--order", "c", "--out", "larger"]);
    assert_eq!(larger["newick"], "(B-a|B-b|B-c,NK-a|NK-b|NK-c,T-a|T-b|T-c,Mono-c)root");
    assert_eq!(larger["data_sets"][0]["added"], serde_json::json!(["Mono-c"]));
    let all = [&LEARN[..3], &["--order", "a,b,c", "--append-batch", "--out=all"]].concat();
    assert_eq!(bench.run_json(&all)["newick"], larger["newick"]);
    let arrays = |tree: &str| std::fs::read(bench.path(tree).join("arrays.safetensors")).unwrap();
    assert_eq!(arrays("all"), arrays("larger"), "one tree by either way");
    assert_eq!(read_json(&bench.path("all/tables.json")), read_json(&bench.path("larger/tables.json")));
}

#[test]
fn every_classifier_is_read_back_as_it_was_written() {
    let bench = placed();
    for more in [&["--classifier", "svm"][..], &["--classifier", "svm-occ", "--dimred"], &["--backend", "index"]] {
        bench.run(&[&LEARN[..], more, &["--overwrite"]].concat());
        let found = bench.run_json(&["tree", "predict", "tree", "cells.h5ad", "--out", "placed.h5ad"]);
        let placed: u64 = ["B-a", "T-a", "NK-a"].iter().filter_map(|label| found["labels"][label].as_u64()).sum();
        assert!(placed > 200, "{more:?}: {found}");
        std::fs::remove_file(bench.path("placed.h5ad")).unwrap();
    }
}

#[test]
fn a_tree_follows_from_its_tables_alone() {
    let bench = placed();
    bench.run(&LEARN);
    let again = bench.run_json(&["tree", "learn", "tree/tables.json", "--out", "again.json"]);
    assert_eq!(again["newick"], NEWICK);
    assert_eq!(bench.run_json(&["tree", "show", "again.json"])["newick"], NEWICK);
    let text = std::fs::read_to_string(bench.path("tree/tables.json")).unwrap();
    let learn = |changed: String| {
        std::fs::write(bench.path("tables.json"), changed).unwrap();
        bench.fail(1, &["tree", "learn", "tables.json", "--out", "no.nwk"])
    };
    let said = learn(text.replacen(" 3", " -3", 1).replacen(" 4", " -4", 1));
    assert!(said.contains("`tables.json`") && said.contains("expected a whole number of cells"), "{said}");
    let mut tables: serde_json::Value = serde_json::from_str(&text).unwrap();
    tables["additions"][0]["of_tree"]["counts"][0].as_array_mut().unwrap().pop();
    let said = learn(tables.to_string());
    assert!(said.contains("counts in row `B-a`") && said.contains("are expected"), "{said}");
}

#[test]
fn a_tree_is_changed_by_hand_and_trained_as_it_is() {
    let bench = placed();
    bench.run(&LEARN);
    let edit = |from: &str, to: &str, change: &[&str]| {
        bench.run_json(&[&["tree", "edit", from, "--out", to], change].concat())["newick"].clone()
    };
    let add = ["--add", "Lymphoid", "--above", "T-a,B-b"];
    assert_eq!(edit("tree", "1.json", &add), "(NK-a|NK-b,(B-a|B-b,T-a|T-b)Lymphoid)root");
    assert_eq!(edit("1.json", "2.nwk", &["--remove", "NK-a"]), "((B-a|B-b,T-a|T-b)Lymphoid)root");
    assert_eq!(edit("2.nwk", "3.nwk", &["--rename", "B-a", "--to", "B cell"]), "((B cell,T-a)Lymphoid)root");
    assert_eq!(edit("3.nwk", "4.nwk", &["--remove", "Lymphoid", "--keep-children"]), "(B cell,T-a)root");
    let learn =
        ["tree", "learn", "cells.h5ad", "--order", "a", "--append-batch", "--tree", "1.json", "--out", "trained"];
    assert!(bench.run(&learn).contains("Lymphoid"));
    check(
        &bench,
        1,
        &["tree", "edit", "tree", "--out", "5.nwk", "--remove", "DC"],
        &["no node `DC`", "`NK-a`", "hint:"],
    );
    check(
        &bench,
        2,
        &["tree", "edit", "tree", "--out", "4.nwk", "--remove", "T-a"],
        &["`4.nwk` exists already", "--overwrite"],
    );
    check(&bench, 2, &["tree", "edit", "tree", "--out", "5.txt", "--remove", "T-a"], &["`.nwk` or `.json`"]);
}

#[test]
fn a_tree_is_shown_as_text_picture_and_page() {
    let bench = placed();
    bench.run(&LEARN);
    bench.run(&["tree", "predict", "tree", "cells.h5ad", "--out", "placed.h5ad"]);
    assert_eq!(bench.run(&["tree", "show", "tree"]).trim(), "root\n  *B-a & B-b*\n  *NK-a & NK-b*\n  *T-a & T-b*");
    let show = ["tree", "show", "tree", "--picture", "tree.svg", "--page", "tree.html", "--cells", "placed.h5ad"];
    bench.run(&show);
    let picture = std::fs::read_to_string(bench.path("tree.svg")).unwrap();
    assert!(picture.contains("B-a &amp; B-b") && picture.contains("6 labels on 3 nodes"), "{picture}");
    let page = std::fs::read_to_string(bench.path("tree.html")).unwrap();
    for heading in ["The tree", "Where cells went", "b joins"] {
        assert!(page.contains(heading), "{heading}");
    }
    check(&bench, 2, &show, &["`tree.svg` exists already"]);
}

#[test]
fn where_cells_went_is_shown_in_the_order_that_is_asked_for() {
    let bench = placed();
    bench.run(&LEARN);
    bench.run(&["tree", "predict", "tree", "cells.h5ad", "--out", "placed.h5ad"]);
    let drawn = |more: &[&str]| {
        let asked = ["plot", "confusion", "placed.h5ad", "--observed", "cell_type", "--predicted", "tree_label"];
        bench.run(&[&asked[..], more, &["--out", "shares.svg", "--overwrite"]].concat());
        std::fs::read_to_string(bench.path("shares.svg")).unwrap()
    };
    let order = ["--observed-order", "T,pDC,B", "--predicted-order", "T-a,B-a,root"];
    let (shown, turned) = (drawn(&order), drawn(&[&order[..], &["--transpose"]].concat()));
    for picture in [&shown, &turned] {
        assert!(picture.contains(">pDC<") && picture.contains(">T-a<") && !picture.contains(">NK<"), "{picture}");
    }
    let at = |picture: &str, name: &str| picture.find(&format!(">{name}<")).unwrap();
    assert!(at(&shown, "T") < at(&shown, "pDC") && at(&shown, "pDC") < at(&shown, "B"));
    assert!(at(&turned, "T-a") < at(&turned, "B-a"));
}

#[test]
fn bad_cells_and_trees_are_refused_in_words() {
    let bench = placed();
    let without_names = ["tree", "learn", "cells.h5ad", "--order", "a,b", "--out=tree"];
    check(&bench, 1, &without_names, &["label `B` is in data set `a` and in `b`", "hint: make labels unique"]);
    check(&bench, 1, &["tree", "learn", "cells.h5ad", "--order", "a,z", "--out=t"], &["no batch `z`", "`a`, `b`, `c`"]);
    check(&bench, 2, &["tree", "learn", "cells.h5ad", "--out=t"], &["the data sets are `a`, `b`, `c`", "`--order`"]);
    check(&bench, 2, &["tree", "learn", "cells.h5ad", "--order", "a,a", "--out=t"], &["`a` twice"]);
    check(&bench, 2, &[&LEARN[..], &["--dist-knn", "101"]].concat(), &["dist_knn", "from 0 to 100"]);

    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let mut types: Vec<String> = adata.obs.column("cell_type").unwrap().to_strings().into_iter().flatten().collect();
    types[5] = "pDC".to_owned();
    adata.obs.insert("cell_type", Column::categorical(&types)).unwrap();
    adata.write(bench.path("rare.h5ad"), Compression::None).unwrap();
    let mut rare = LEARN;
    rare[2] = "rare.h5ad";
    check(&bench, 1, &rare, &["`pDC-a` of data set `a` has 1 cell", "--min-cells"]);
    assert_eq!(bench.run_json(&[&rare[..], &["--min-cells", "2"]].concat())["n_left_out"], 1);

    std::fs::write(bench.path("open.nwk"), "((CD4,CD8)T,B").unwrap();
    check(
        &bench,
        1,
        &["tree", "show", "open.nwk"],
        &["`open.nwk`", "letter 1", "a bracket is opened and not closed", "hint:"],
    );
    std::fs::write(bench.path("no.json"), "{").unwrap();
    check(&bench, 1, &["tree", "show", "no.json"], &["`no.json`", "hint:"]);
    check(&bench, 1, &["tree", "show", "nowhere.nwk"], &["nowhere.nwk"]);
}

#[test]
fn cells_of_another_space_and_damaged_trees_are_refused() {
    let bench = placed();
    bench.run(&LEARN);
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let three = Array::matrix(adata.n_obs(), 3, vec![0.0f32; 3 * adata.n_obs()]).unwrap();
    adata.obsm.insert("X_pca".to_owned(), Element::Array(three));
    adata.write(bench.path("other.h5ad"), Compression::None).unwrap();
    let predict = ["tree", "predict", "tree", "other.h5ad", "--out", "placed.h5ad"];
    check(&bench, 1, &predict, &["`X_pca` of `other.h5ad` has 3 dimensions", "2"]);
    let update = ["tree", "update", "tree", "other.h5ad", "--order", "c", "--out", "larger"];
    check(&bench, 1, &update, &["`X_pca` of `other.h5ad` has 3 dimensions"]);
    let again = ["tree", "update", "tree", "cells.h5ad", "--order", "b", "--out", "larger"];
    check(&bench, 2, &again, &["`b`, which the tree has already"]);

    // Cells that another version of the network placed, in as many dimensions.
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let places = adata.obsm.remove("X_pca").unwrap();
    adata.obsm.insert("X_archipelago".to_owned(), places);
    for (file, digest) in [("first.h5ad", "0123456789abcdef"), ("second.h5ad", "fedcba9876543210")] {
        adata.uns.insert("archipelago_network".to_owned(), Element::from(digest));
        adata.write(bench.path(file), Compression::None).unwrap();
    }
    let by_first = [&LEARN[..2], &["first.h5ad"], &LEARN[3..6], &["--use-rep", "X_archipelago", "--out=by-first"]];
    bench.run(&by_first.concat());
    let predict = ["tree", "predict", "by-first", "second.h5ad", "--out", "placed.h5ad"];
    check(&bench, 1, &predict, &["second.h5ad", "fedcba987654", "0123456789ab"]);

    let arrays = bench.path("tree/arrays.safetensors");
    let mut bytes = std::fs::read(&arrays).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&arrays, bytes).unwrap();
    let predict = ["tree", "predict", "tree", "cells.h5ad", "--out", "placed.h5ad"];
    check(&bench, 1, &predict, &["arrays.safetensors", "does not match its digest"]);
}

/// Bead-sorted blood cells of ten types, in three random parts: almost all types of two parts are matched one to one.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
#[test]
fn sorted_blood_cells_find_their_types_again() {
    let shared = std::env::var_os("ARCHIPELAGO_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    let file = shared.join("data/pbmc_sorted_hierarchy.h5ad");
    if !file.exists() {
        eprintln!("skipped: no {}", file.display());
        return;
    }
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let mut adata = AnnData::read(&file).unwrap();
    let parts: Vec<&str> = (0..adata.n_obs()).map(|cell| ["a", "b", "a", "b", "c"][(cell * 7) % 5]).collect();
    adata.obs.insert("part", Column::categorical(&parts)).unwrap();
    adata.write(bench.path("sorted.h5ad"), Compression::None).unwrap();
    bench.run(&["pca", "sorted.h5ad", "--n-comps", "20", "--out", "prepared.h5ad"]);
    let learned = bench.run_json(&[
        "tree",
        "learn",
        "prepared.h5ad",
        "--batch-key",
        "part",
        "--labels-key",
        "label_fine",
        "--order",
        "a,b",
        "--append-batch",
        "--out",
        "tree",
    ]);
    let matched = learned["data_sets"][0]["matched"].as_array().unwrap();
    let is_right = |pair: &serde_json::Value| {
        pair[0].as_str().unwrap().strip_suffix("-b") == pair[1].as_str().unwrap().strip_suffix("-a")
    };
    assert!(matched.len() >= 6 && matched.iter().all(is_right), "{learned}");
    let found = bench.run_json(&["tree", "predict", "tree", "prepared.h5ad", "--out", "placed.h5ad"]);
    assert_eq!(found["n_cells"], adata.n_obs());
    assert!(found["n_rejected"].as_u64().unwrap() * 4 < adata.n_obs() as u64, "{found}");
}

/// Trees that scHPL 1.0.5 pickled, with what it predicted for the same cells: nearest cells of scikit-learn and of FAISS, linear
/// and one-class machines.
#[test]
fn trees_that_schpl_pickled_predict_the_same() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let golden = std::env::var_os("ARCHIPELAGO_GOLDEN").map_or(repository, PathBuf::from).join("treearches");
    for kind in ["knn", "faiss", "svm", "occ"] {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        let case = read_json(&golden.join(format!("pickled_{kind}.json")));
        let pickle = golden.join(format!("pickled_{kind}.pickle"));
        let imported =
            bench.run_json(&["tree", "import", pickle.to_str().unwrap(), "--use-rep", "X_scanvi", "--out", "tree"]);
        assert_eq!(bench.run_json(&["tree", "show", "tree"])["tree"], case["tree"], "{imported}");
        let query: Vec<Vec<f64>> = serde_json::from_value(case["query"].clone()).unwrap();
        let values: Vec<f32> = query.iter().flatten().map(|&value| value as f32).collect();
        let n = query.len();
        let obs = DataFrame::new((0..n).map(|i| format!("cell{i}")));
        let mut adata =
            AnnData::new(Csr::from_dense(n, 1, &vec![1.0; n]).unwrap(), obs, DataFrame::new(["g"])).unwrap();
        let positions = Array::matrix(n, query[0].len(), values).unwrap();
        adata.obsm.insert("X_scanvi".to_owned(), Element::Array(positions));
        adata.write(bench.path("query.h5ad"), Compression::None).unwrap();
        bench.run(&["tree", "predict", "tree", "query.h5ad", "--out", "placed.h5ad"]);
        let placed = AnnData::read(bench.path("placed.h5ad")).unwrap();
        let labels = placed.obs.column("tree_label").unwrap().to_strings();
        let probabilities = placed.obs.column("tree_probability").unwrap().to_f64().unwrap();
        for cell in 0..n {
            assert_eq!(labels[cell].as_deref(), case["labels"][cell].as_str(), "{kind}: cell {cell}");
            let expected = case["probabilities"][cell].as_f64().unwrap();
            assert!((probabilities[cell] - expected).abs() <= 1e-5 + 1e-4 * expected, "{kind}: cell {cell}");
        }
    }
    let bench = placed();
    check(&bench, 1, &["tree", "import", "cells.h5ad", "--use-rep", "X", "--out", "t"], &["`cells.h5ad`", "hint:"]);
}
