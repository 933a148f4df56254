//! Files and habits of the field that used to stop a command, or to change data silently.

use archipelago_anndata::{AnnData, Array, Categorical, Column, Compression, Csr, DataFrame, MuData, Raw};

use super::{Bench, TRAIN, read_json};

const SMALL: [&str; 8] = ["--epochs", "1", "--n-hidden", "8", "--n-latent", "3", "--device", "cpu"];

fn change(bench: &Bench, name: &str, change: impl FnOnce(&mut AnnData)) {
    let mut adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    change(&mut adata);
    adata.write(bench.path(name), Compression::None).unwrap();
}

fn run(bench: &Bench, args: &[&str]) -> String {
    bench.run(&[args, &SMALL].concat())
}

#[test]
fn a_missing_number_is_a_missing_label_and_a_missing_batch() {
    let bench = Bench::new();
    change(&bench, "floats.h5ad", |adata| {
        let n = adata.n_obs();
        let cluster: Vec<f64> = (0..n).map(|cell| if cell % 4 == 0 { f64::NAN } else { (cell % 3) as f64 }).collect();
        let lane: Vec<f32> = (0..n).map(|cell| if cell == 0 { f32::NAN } else { 1.0 + (cell % 2) as f32 }).collect();
        adata.obs.insert("cluster", cluster).unwrap();
        adata.obs.insert("lane", lane).unwrap();
    });
    run(&bench, &["train", "floats.h5ad", "--model", "scanvi", "--labels-key", "cluster", "--out", "labelled"]);
    assert_eq!(read_json(&bench.path("labelled/summary.json"))["n_labelled"], 90);
    let said = bench.fail(1, &["train", "floats.h5ad", "--batch-key", "lane", "--out", "lanes"]);
    assert!(said.contains("1 of 120 cells") && said.contains("archipelago-worker subset"), "{said}");
    // The advice works, and the batches are called like integers.
    bench.run(&["subset", "floats.h5ad", "--obs", "lane=1,2.0", "--out", "whole.h5ad"]);
    run(&bench, &["train", "whole.h5ad", "--batch-key", "lane", "--out", "lanes"]);
    let conditions = read_json(&bench.path("lanes/summary.json"))["conditions"].clone();
    assert_eq!(conditions, serde_json::json!(["reference/atlas/1", "reference/atlas/2"]));
    let said = bench.fail(1, &["subset", "floats.h5ad", "--obs", "lane=NaN", "--out", "none.h5ad"]);
    assert!(said.contains("no value `NaN`"), "{said}");
    let kept = AnnData::read(bench.path("whole.h5ad")).unwrap();
    assert_eq!(kept.obs.column("lane").unwrap().kind(), "float32");
}

#[test]
fn values_with_commas_are_named_as_they_are() {
    let bench = Bench::new();
    change(&bench, "studies.h5ad", |adata| {
        let studies: Vec<&str> = (0..adata.n_obs()).map(|cell| ["Smith, 2020", "Mueller 2021"][cell % 2]).collect();
        adata.obs.insert("batch", Column::categorical(&studies)).unwrap();
        adata.obs.insert("size, mm", vec![1.0_f32; adata.n_obs()]).unwrap();
    });
    bench.run(&["subset", "studies.h5ad", "--obs", "batch=Smith, 2020", "--out", "smith.h5ad"]);
    assert_eq!(AnnData::read(bench.path("smith.h5ad")).unwrap().n_obs(), 60);
    bench.run(&["subset", "studies.h5ad", "--obs", "batch=Smith, 2020,Mueller 2021", "--out", "all.h5ad"]);
    assert_eq!(AnnData::read(bench.path("all.h5ad")).unwrap().n_obs(), 120);
    run(&bench, &["train", "studies.h5ad", "--batches", "Smith, 2020", "--out", "one"]);
    run(&bench, &["train", "studies.h5ad", "--batches", "\"Smith, 2020\",Mueller 2021", "--out", "two"]);
    assert_eq!(read_json(&bench.path("two/summary.json"))["n_cells"], 120);
    run(&bench, &["train", "studies.h5ad", "--batches", "Mueller 2021", "--batches", "Smith, 2020", "--out", "each"]);
    bench.run(&["plot", "violin", "studies.h5ad", "--values", "size, mm", "--groupby", "batch", "--out", "a.svg"]);
    let keys = ["--label", "study", "--keys", "Smith, 2020", "--keys", "b"];
    bench.run(&[&["concat", "smith.h5ad", "smith.h5ad", "--index-unique", "--out", "c.h5ad"], &keys[..]].concat());
    let both = AnnData::read(bench.path("c.h5ad")).unwrap();
    assert_eq!(both.obs.column("study").unwrap().to_strings()[0].as_deref(), Some("Smith, 2020"));
}

#[test]
fn counts_in_raw_train_to_the_same_bits_as_in_x() {
    let bench = Bench::new();
    change(&bench, "raw.h5ad", |adata| {
        let counts = adata.x.clone().unwrap();
        adata.raw = Some(Raw { x: counts, var: adata.var.clone(), varm: Default::default() });
        // X holds normalised values of half of the genes, as files of CELLxGENE do.
        *adata = adata.select_vars(&(0..30).collect::<Vec<_>>()).unwrap();
        let n = adata.n_obs() * 30;
        adata.x = Some(Csr::from_dense(adata.n_obs(), 30, &vec![0.5; n]).unwrap().into());
    });
    let said = bench.fail(1, &["train", "raw.h5ad", "--out", "refused"]);
    assert!(said.contains("expected raw counts") && said.contains("`--layer raw`"), "{said}");
    assert!(bench.run(&["inspect", "raw.h5ad"]).contains("raw       60 genes"), "inspect tells of raw");
    run(&bench, &["train", "cells.h5ad", "--batches", "a,b", "--out", "x"]);
    run(&bench, &["train", "raw.h5ad", "--layer", "raw", "--batches", "a,b", "--out", "raw"]);
    let base = |name: &str| std::fs::read(bench.path(name).join("base.safetensors")).unwrap();
    assert!(base("x") == base("raw"));
    bench.run(&["map", "x", "raw.h5ad", "--layer", "raw", "--batches", "c", "--epochs", "1", "--out", "mapped"]);
    bench.run(&["preprocess", "raw.h5ad", "--layer", "raw", "--min-cells", "1", "--normalize", "--out", "clean.h5ad"]);
    let clean = AnnData::read(bench.path("clean.h5ad")).unwrap();
    assert!(clean.n_vars() > 30 && clean.layers.contains_key("counts") && clean.raw.is_none());
    let said = bench.fail(1, &["train", "cells.h5ad", "--layer", "raw", "--out", "refused"]);
    assert!(said.contains("no layer `raw`"), "{said}");
}

#[test]
fn protein_counts_may_be_in_a_layer_of_their_modality() {
    let bench = Bench::new();
    let rna = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let (n, names) = (rna.n_obs(), DataFrame::new(rna.obs_names().to_vec()));
    let fractions = Csr::from_dense(n, 2, &vec![0.5; 2 * n]).unwrap();
    let counts: Vec<f32> = (0..2 * n).map(|at| (3 + at % 17) as f32).collect();
    let mut proteins = AnnData::new(fractions, names, DataFrame::new(["CD3", "CD4"])).unwrap();
    proteins.layers.insert("counts".into(), Csr::from_dense(n, 2, &counts).unwrap().into());
    let write = |proteins: &AnnData, name: &str| {
        let both = [("rna".to_owned(), rna.clone()), ("prot".to_owned(), proteins.clone())];
        MuData { modalities: both.into() }.write(bench.path(name), Compression::None).unwrap();
    };
    write(&proteins, "cite.h5mu");
    let shown = bench.run(&["inspect", "cite.h5mu"]);
    assert!(shown.contains("modality prot") && shown.contains("modality rna") && shown.contains("CD3"), "{shown}");
    let asked = ["--model", "totalvi", "--protein-modality", "prot"];
    let train = |file: &'static str, more: &[&'static str]| [&["train", file][..], &asked, more].concat();
    run(&bench, &train("cite.h5mu", &["--protein-layer", "counts", "--batches", "a,b", "--out", "layer"]));
    proteins.x = proteins.layers.remove("counts");
    write(&proteins, "plain.h5mu");
    run(&bench, &train("plain.h5mu", &["--batches", "a,b", "--out", "plain"]));
    let fit = |name: &str| read_json(&bench.path(name).join("summary.json"))["elbo"].clone();
    assert_eq!(fit("layer"), fit("plain"));
    // The reference remembers the layer.
    bench.run(&["map", "layer", "cite.h5mu", "--batches", "c", "--epochs", "1", "--out", "mapped"]);
    let said = bench.fail(1, &train("cite.h5mu", &["--protein-layer", "raw_counts", "--out", "refused"]));
    assert!(said.contains("no layer `raw_counts`") && said.contains("`counts`"), "{said}");
    proteins.obs.rename_rows((0..n).map(|cell| format!("c{}", cell / 2)).collect()).unwrap();
    assert!(
        MuData { modalities: [("prot".to_owned(), proteins)].into() }
            .write(bench.path("x.h5mu"), Compression::None)
            .is_err()
    );
}

#[test]
fn a_batch_of_one_cell_has_no_say_and_is_named() {
    let bench = Bench::new();
    change(&bench, "lonely.h5ad", |adata| {
        let batches: Vec<&str> = (0..adata.n_obs()).map(|cell| if cell == 7 { "lonely" } else { "many" }).collect();
        adata.obs.insert("batch", Column::categorical(&batches)).unwrap();
    });
    for flavor in ["seurat_v3", "seurat", "cell_ranger"] {
        let out = format!("{flavor}.h5ad");
        let args = ["preprocess", "lonely.h5ad", "--n-top-genes", "20", "--flavor", flavor, "--normalize"];
        let args = [&args[..], &["--batch-key", "batch", "--out", &out]].concat();
        let done = bench.command(&args).output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success() && said.contains("lonely"), "{said}");
        let chosen = AnnData::read(bench.path(&out)).unwrap().var.column("highly_variable").unwrap().to_f64().unwrap();
        assert_eq!(chosen.iter().sum::<f64>(), 20.0, "{flavor}");
    }
    change(&bench, "alone.h5ad", |adata| {
        let batches: Vec<String> = (0..adata.n_obs()).map(|cell| cell.to_string()).collect();
        adata.obs.insert("batch", Column::categorical(&batches)).unwrap();
    });
    let args = ["preprocess", "alone.h5ad", "--n-top-genes", "20", "--flavor", "seurat_v3", "--batch-key", "batch"];
    let said = bench.fail(1, &[&args[..], &["--out", "x.h5ad"]].concat());
    assert!(said.contains("variable genes") && said.contains("hint: join small batches"), "{said}");
    let said = bench.fail(2, &["preprocess", "cells.h5ad", "--batch-key", "btach", "--out", "x.h5ad"]);
    assert!(said.contains("--batch-key"), "{said}");
}

#[test]
fn cells_without_a_label_do_not_vote() {
    let bench = Bench::new();
    change(&bench, "labelled.h5ad", |adata| {
        let n = adata.n_obs();
        let places: Vec<f32> = (0..n).flat_map(|cell| [cell as f32, 0.0]).collect();
        adata.obsm.insert("X_pca".into(), Array::matrix(n, 2, places).unwrap().into());
        let codes = (0..n as i32).map(|cell| {
            if cell < 60 {
                0
            } else if cell < 100 {
                1
            } else {
                Column::MISSING
            }
        });
        let level = Categorical::new(codes.collect(), vec!["T", "B"], false).unwrap();
        adata.obs.insert("level", Column::Categorical(level)).unwrap();
        adata
            .obs
            .insert("cluster", (0..n).map(|cell| if cell < 100 { 1.0 } else { f64::NAN }).collect::<Vec<_>>())
            .unwrap();
    });
    let args = ["transfer", "labelled.h5ad", "labelled.h5ad", "--n-neighbors", "5", "--out", "a.h5ad"];
    let done = bench.command(&[&args[..], &["--labels-key", "level,cluster"]].concat()).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success() && said.contains("20 reference cells have no value in `level`"), "{said}");
    let adata = AnnData::read(bench.path("a.h5ad")).unwrap();
    let labels = |name: &str| adata.obs.column(&format!("{name}_transferred_label")).unwrap().to_strings();
    assert_eq!((labels("level")[119].as_deref(), labels("cluster")[119].as_deref()), (Some("B"), Some("1")));
    let few = ["transfer", "labelled.h5ad", "labelled.h5ad", "--n-neighbors", "101", "--out", "b.h5ad"];
    let said = bench.fail(1, &[&few[..], &["--labels-key", "level"]].concat());
    assert!(said.contains("101 cells") && said.contains("hint: lower `--n-neighbors`"), "{said}");
}

#[test]
fn few_cells_have_a_picture_and_a_perplexity_beyond_them_is_named() {
    let bench = Bench::new();
    change(&bench, "few.h5ad", |adata| {
        *adata = adata.select_obs(&(0..30).collect::<Vec<_>>()).unwrap();
        let places: Vec<f32> = (0..90).map(|at| ((at * 7919) % 101) as f32).collect();
        adata.obsm.insert("X_pca".into(), Array::matrix(30, 3, places).unwrap().into());
    });
    bench.run(&["tsne", "few.h5ad", "--maxiter", "100", "--out", "a.h5ad"]);
    let places = AnnData::read(bench.path("a.h5ad")).unwrap().obsm("X_tsne").unwrap().to_table("X_tsne").unwrap();
    assert!(places.n_rows == 30 && places.values.iter().all(|value| value.is_finite()));
    let said = bench.fail(2, &["tsne", "few.h5ad", "--perplexity", "30", "--out", "b.h5ad"]);
    assert!(said.contains("perplexity must be below the number of cells"), "{said}");
}

#[test]
fn labels_that_the_font_lacks_are_told_apart_in_pixels() {
    let bench = Bench::new();
    let picture = |names: [&str; 2], out: &str| {
        change(&bench, "names.h5ad", |adata| {
            let n = adata.n_obs();
            let types: Vec<&str> = (0..n).map(|cell| names[cell % 2]).collect();
            adata.obs.insert("cell_type", Column::categorical(&types)).unwrap();
            let places: Vec<f32> = (0..2 * n).map(|at| at as f32).collect();
            adata.obsm.insert("X_umap".into(), Array::matrix(n, 2, places).unwrap().into());
        });
        let args = ["plot", "embedding", "names.h5ad", "--color", "cell_type", "--overwrite", "--out", out];
        let done = bench.command(&args).output().unwrap();
        assert!(done.status.success());
        (std::fs::read(bench.path(out)).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (first, said) = picture(["T细胞", "T单核"], "a.png");
    assert_eq!(said.matches("boxes with their code points").count(), 1, "{said}");
    assert!(!said.contains("No fonts"), "{said}");
    let (second, _) = picture(["T细胞", "T粒核"], "b.png");
    assert!(first != second, "another letter is another box");
    let (svg, said) = picture(["T细胞", "🧬"], "c.svg");
    assert!(
        String::from_utf8(svg).unwrap().contains("T细胞</text>") && said.is_empty(),
        "an SVG keeps its text: {said}"
    );
}

#[test]
fn files_of_other_formats_are_called_by_their_names() {
    let bench = Bench::new();
    let file = hdf5::File::create(bench.path("matrix.h5")).unwrap();
    let matrix = file.create_group("matrix").unwrap();
    for name in ["barcodes", "data", "indices", "indptr", "shape"] {
        matrix.new_dataset::<i32>().shape(1).create(name).unwrap();
    }
    drop(matrix);
    file.close().unwrap();
    let file = hdf5::File::create(bench.path("cells.loom")).unwrap();
    file.create_group("row_attrs").and_then(|_| file.create_group("col_attrs")).unwrap();
    file.close().unwrap();
    std::fs::create_dir(bench.path("store")).unwrap();
    std::fs::write(bench.path("store/zarr.json"), "{}").unwrap();
    std::fs::write(bench.path("cells.gz"), b"\x1f\x8b\x08\0").unwrap();
    for (name, format, advice) in [
        // Cell Ranger's own are read, where they are whole.
        ("matrix.h5", "`/matrix` in `matrix.h5` is malformed", "expected features and cells"),
        ("cells.loom", "a loom file", "scanpy.read_loom"),
        ("store", "a zarr store", "anndata.read_zarr"),
        ("cells.gz", "compressed as a whole", "gzip"),
    ] {
        for args in [&["inspect", name][..], &["train", name, "--out", "x"], &["subset", name, "--out", "x.h5ad"]] {
            let said = bench.fail(1, args);
            assert!(said.contains(format) && said.contains(advice), "{args:?}: {said}");
        }
    }
}

#[test]
fn a_name_that_is_not_there_is_an_error_also_in_a_report() {
    let bench = Bench::with_reference();
    bench.run(&["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "1", "--out", "mapped"]);
    let said = bench.fail(1, &["report", "mapped", "--labels-key", "cel_type"]);
    assert!(said.contains("no column `cel_type`") && said.contains("`cell_type`"), "{said}");
    assert!(!bench.path("mapped/report.html").exists());
}

#[test]
fn a_name_cannot_command_the_terminal() {
    let bench = Bench::new();
    change(&bench, "names.h5ad", |adata| {
        let types = vec!["B\u{1b}[2J\u{202e}\u{9b}x"; adata.n_obs()];
        adata.obs.insert("type\u{1b}]0;x\u{7}", Column::categorical(&types)).unwrap();
    });
    let is_shown = |text: &str| !text.contains(['\u{1b}', '\u{202e}', '\u{9b}', '\u{7}']);
    let shown = bench.run(&["inspect", "names.h5ad"]);
    assert!(is_shown(&shown) && shown.contains("\\u{1b}") && shown.contains("\\u{202e}"), "{shown:?}");
    let json = bench.run(&["inspect", "names.h5ad", "--format", "json"]);
    assert!(is_shown(&json) && json.contains("\\u202e"), "{json:?}");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(value.to_string().contains('\u{202e}'), "a program reads the name as it is");
    let said = bench.fail(1, &["subset", "names.h5ad", "--obs", "type\u{1b}]0;x\u{7}=z", "--out", "x.h5ad"]);
    assert!(is_shown(&said) && said.contains("\\u{1b}[2J"), "{said:?}");
}

#[test]
fn what_cannot_be_written_is_known_before_training() {
    let bench = Bench::with_reference();
    // Cells of an embedding that is shorter than they are: found when a file of them is written.
    std::fs::copy(bench.path("cells.h5ad"), bench.path("query.h5ad")).unwrap();
    let file = hdf5::File::open_rw(bench.path("query.h5ad")).unwrap();
    file.group("obsm").unwrap().new_dataset::<f32>().shape([3, 2]).create("X_short").unwrap();
    file.close().unwrap();
    for args in [
        &["map", "reference", "query.h5ad", "--batches", "c", "--epochs", "100000", "--out", "mapped"][..],
        &["latent", "reference", "query.h5ad", "--batches", "a", "--out", "latent.h5ad"],
    ] {
        let said = bench.fail(1, args);
        assert!(said.contains("obsm/X_short") && !said.contains("epoch"), "{said}");
    }
    assert!(!bench.path("mapped").exists());
    let nowhere = ["latent", "reference", "cells.h5ad", "--batches", "a", "--out", "nowhere/x.csv"];
    let said = bench.fail(1, &nowhere);
    assert!(said.contains("nowhere/x.csv"), "{said}");
}

#[test]
fn genes_of_one_name_are_not_chosen_by_it() {
    let bench = Bench::new();
    change(&bench, "twice.h5ad", |adata| {
        let mut names = adata.var_names().to_vec();
        names[1] = names[0].clone();
        adata.var.rename_rows(names).unwrap();
    });
    let said = bench.fail(1, &["subset", "twice.h5ad", "--genes", "GENE00001", "--out", "x.h5ad"]);
    assert!(said.contains("GENE00001") && said.contains("more than once"), "{said}");
    let args = ["plot", "dots", "twice.h5ad", "--genes", "GENE00001", "--groupby", "batch", "--out", "x.svg"];
    assert!(bench.fail(1, &args).contains("more than once"));
    bench.run(&["subset", "twice.h5ad", "--genes", "GENE00003", "--out", "one.h5ad"]);
    let said = bench.fail(1, &[&TRAIN[..1], &["twice.h5ad", "--out", "x"]].concat());
    assert!(said.contains("hint: add their counts with `--duplicate-genes sum`"), "{said}");
}
