//! `obs`: a file's columns are edited and cells chosen, and Cell Ranger's files go the whole way.

use std::fs;

use archipelago_anndata::AnnData;

use super::Bench;

fn column(bench: &Bench, file: &str, name: &str) -> Vec<Option<String>> {
    AnnData::read(bench.path(file)).unwrap().obs.column(name).unwrap().to_strings()
}

fn edit(bench: &Bench, args: &[&str]) -> AnnData {
    bench.run(&[&["obs", "cells.h5ad"], args, &["--out", "edited.h5ad", "--overwrite"]].concat());
    AnnData::read(bench.path("edited.h5ad")).unwrap()
}

#[test]
fn columns_are_joined_renamed_pasted_mapped_and_cast() {
    let bench = Bench::new();
    let before = AnnData::read(bench.path("cells.h5ad")).unwrap();
    fs::write(bench.path("batches.csv"), "batch,age,\"place, town\",code\na,61,\"Bonn, Beuel\",007\nb,,Ulm,12\n")
        .unwrap();
    fs::write(bench.path("coarse.tsv"), "old\tnew\na\tfirst\n").unwrap();
    let steps = [
        "--join=batches.csv",
        "--join-on=batch",
        "--rename=place, town=place",
        "--set=study=one",
        "--paste=both=study,batch",
        "--map=both=coarse.tsv",
        "--paste=coarse=batch",
        "--map=coarse=coarse.tsv",
        "--cast=age=number",
        "--drop=study",
    ];
    let edited = edit(&bench, &steps);
    assert_eq!(edited.n_obs(), before.n_obs());
    let batches = before.obs.column("batch").unwrap().to_strings();
    for (cell, batch) in batches.iter().enumerate() {
        let batch = batch.as_deref().unwrap();
        let of = |name: &str| edited.obs.column(name).unwrap().to_strings()[cell].clone();
        let place = match batch {
            "a" => Some("Bonn, Beuel"),
            "b" => Some("Ulm"),
            _ => None,
        };
        assert_eq!(of("place").as_deref(), place);
        assert_eq!(
            of("code").as_deref(),
            match batch {
                "a" => Some("007"),
                "b" => Some("12"),
                _ => None,
            }
        );
        assert_eq!(of("both"), Some(format!("one_{batch}")));
        assert_eq!(of("coarse").as_deref(), Some(if batch == "a" { "first" } else { batch }));
    }
    let ages = edited.obs.column("age").unwrap().to_f64().unwrap();
    assert!(ages.iter().zip(&batches).all(|(age, batch)| (*age == 61.0) == (batch.as_deref() == Some("a"))));
    assert!(edited.obs.column("study").is_err());
}

#[test]
fn cells_are_chosen_by_a_condition_by_number_and_by_lot() {
    let bench = Bench::new();
    let batches = |adata: &AnnData| adata.obs.column("batch").unwrap().to_strings();
    let some = edit(&bench, &["--where", "batch in (a, b)"]);
    assert!(batches(&some).iter().all(|batch| batch.as_deref() != Some("c")));
    let n = some.n_obs();
    let drawn = edit(&bench, &["--where", "batch in (a, b)", "--sample", "0.5", "--seed", "3"]);
    assert_eq!(drawn.n_obs(), (n as f64 / 2.0).round() as usize);
    assert_eq!(edit(&bench, &["--where", "batch in (a, b)", "--sample", "0.5", "--seed", "3"]).obs, drawn.obs);
    assert_ne!(edit(&bench, &["--where", "batch in (a, b)", "--sample", "0.5", "--seed", "4"]).obs, drawn.obs);
    // One cell of `a` is one too few.
    let first = some.obs_names()[0].clone();
    fs::write(bench.path("first.csv"), format!("cell,is_first\n{first},yes\n")).unwrap();
    let rest = edit(
        &bench,
        &["--join", "first.csv", "--where", "is_first is missing or batch != a", "--min-cells", "batch=2"],
    );
    assert!(rest.n_obs() > 1);
    let one =
        edit(&bench, &["--join", "first.csv", "--where", "is_first = yes or batch = b", "--min-cells", "batch=2"]);
    assert!(
        batches(&one).iter().all(|batch| batch.as_deref() == Some("b")),
        "the only cell of the other batch is rare"
    );
}

#[test]
fn what_cannot_be_done_is_told_and_nothing_is_written() {
    let bench = Bench::new();
    fs::write(bench.path("twice.csv"), "cell,x\na,1\na,2\n").unwrap();
    fs::write(bench.path("torn.csv"), "cell,x\na,1,2\n").unwrap();
    fs::write(bench.path("other.csv"), "cell,x\nnobody,1\n").unwrap();
    for (args, found) in [
        (&["--join", "twice.csv"][..], "`a` has two rows"),
        (&["--join", "torn.csv"], "line"),
        (&["--join", "other.csv"], "no cell is in its first column"),
        (&["--join", "other.csv", "--join-on", "batch"], "no value of `batch`"),
        (&["--rename", "batch=cell_type"], "`cell_type` already"),
        (&["--rename", "donor2=x"], "no column `donor2`"),
        (&["--cast", "batch=integer"], "`a`, not a whole number"),
        (&["--cast", "batch=colour"], "`colour` is none of"),
        (&["--where", "batch = z"], "no value `z`; there are: `a`"),
        (&["--where", "batch >"], "expected a number"),
        (&["--sample", "0"], "`obs` leaves none of"),
    ] {
        let output = bench.command(&[&["obs", "cells.h5ad", "--out", "edited.h5ad"], args].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(found), "{args:?}: {said}");
        assert!(!bench.path("edited.h5ad").exists());
    }
}

/// As it comes from the sequencer: a folder, and neither batches nor types.
#[test]
fn a_folder_of_cell_ranger_is_trained_on_and_mapped() {
    let bench = Bench::new();
    let cells = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let counts = cells.matrix(None).unwrap().to_csr().unwrap();
    for name in ["atlas", "query"] {
        let folder = bench.path(name);
        fs::create_dir(&folder).unwrap();
        let mut entries = String::new();
        for cell in 0..counts.n_rows() {
            let (genes, values) = counts.row(cell);
            genes
                .iter()
                .zip(values)
                .for_each(|(gene, value)| entries += &format!("{} {} {value}\n", gene + 1, cell + 1));
        }
        let head = "%%MatrixMarket matrix coordinate integer general\n";
        let sizes = format!("{} {} {}\n", counts.n_cols(), counts.n_rows(), counts.nnz());
        fs::write(folder.join("matrix.mtx"), [head, &sizes, &entries].concat()).unwrap();
        fs::write(folder.join("barcodes.tsv"), cells.obs_names().join("\n")).unwrap();
        let genes: Vec<String> = cells.var_names().iter().map(|gene| format!("id_{gene}\t{gene}")).collect();
        fs::write(folder.join("genes.tsv"), genes.join("\n")).unwrap();
        bench.run(&["obs", name, "--set", &format!("batch={name}"), "--out", &format!("{name}.h5ad")]);
        assert!(column(&bench, &format!("{name}.h5ad"), "batch").iter().all(|batch| batch.as_deref() == Some(name)));
    }
    let told = bench.run(&["inspect", "atlas"]);
    assert!(told.contains(&format!("{} cells × {} genes", counts.n_rows(), counts.n_cols())), "{told}");
    bench.run(&["train", "atlas.h5ad", "--batch-key", "batch", "--epochs", "1", "--n-hidden", "8", "--out", "trained"]);
    bench.run(&["map", "trained", "query.h5ad", "--epochs", "1", "--out", "mapped"]);
    assert_eq!(AnnData::read(bench.path("mapped/mapped.h5ad")).unwrap().n_obs(), counts.n_rows());
}
