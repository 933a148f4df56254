//! Models of scvi-tools: in, out, and what is refused.

use std::path::{Path, PathBuf};

use archipelago_anndata::{AnnData, Column, Compression, Csr, DataFrame};

use super::{Bench, read_json};

/// A saved model among the golden cases.
fn saved(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/import").join(name)
}

fn import<'a>(model: &'a str, out: &'a str) -> [&'a str; 8] {
    ["import", model, "--owner", "anna", "--dataset", "lung", "--out", out]
}

/// A saved model under the name `model` in the bench, to be damaged.
fn copy(bench: &Bench, name: &str) {
    std::fs::create_dir(bench.path("model")).unwrap();
    for entry in std::fs::read_dir(saved(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), bench.path("model").join(entry.file_name())).unwrap();
    }
}

fn empty_bench() -> Bench {
    Bench { dir: tempfile::tempdir().unwrap() }
}

#[test]
fn a_saved_model_becomes_a_reference_and_a_saved_model_again() {
    for (name, model, saved_by) in [
        ("minimal_export_scvi", "scvi", "1.4.2"),
        ("scvi_legacy_layout", "scvi", "0.14"),
        ("minimal_export_scanvi", "scanvi", "1.4.2"),
    ] {
        let bench = empty_bench();
        let first = bench.run_json(&import(saved(name).to_str().unwrap(), "reference"));
        assert_eq!(first["model"], model, "{name}");
        assert!(first["saved_by"].as_str().unwrap().contains(saved_by), "{}", first["saved_by"]);
        assert!(first["conditions"][0].as_str().unwrap().starts_with("anna/lung/"), "{name}");
        let exported = bench.run_json(&["export", "reference", "--out", "again"]);
        assert_eq!(exported["class"], model.to_uppercase(), "{name}");
        let second = bench.run_json(&import("again/model.pt", "second"));
        // The cards name the versions that saved them; tensors and columns are the same.
        let files = |reference: &str| {
            let version = read_json(&bench.path(&format!("{reference}/version.json")));
            version["columns"].as_object().unwrap().values().map(|file| file["digest"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(files("reference"), files("second"), "{name}");
        assert_eq!(first["labels"], second["labels"], "{name}");
    }
}

/// scvi-tools 1.5.1 under pandas 3.1, with its training history in the file.
#[test]
fn a_model_of_today_s_stack_places_cells_as_it_did_there() {
    let bench = empty_bench();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    std::fs::create_dir(bench.path("model")).unwrap();
    std::fs::copy(files.join("scanvi_1.5.1.pt"), bench.path("model/model.pt")).unwrap();
    let cells = files.join("scanvi_1.5.1_cells.h5ad");
    let imported = bench.run_json(&import("model", "reference"));
    assert_eq!((imported["model"].as_str(), &imported["labels"]), (Some("scanvi"), &serde_json::json!(["y", "x"])));
    assert!(imported["saved_by"].as_str().unwrap().contains("1.5.1"), "{imported}");
    bench.run(&["latent", "reference", cells.to_str().unwrap(), "--out", "latent.h5ad"]);
    let adata = AnnData::read(bench.path("latent.h5ad")).unwrap();
    let values = |key: &str| adata.obsm(key).unwrap().to_table(key).unwrap().values;
    for (ours, theirs) in values("X_archipelago").iter().zip(values("latent")) {
        assert!((ours - theirs).abs() < 1e-4 * (1.0 + theirs.abs()), "{ours}, upstream {theirs}");
    }
}

#[test]
fn a_query_is_mapped_onto_an_imported_model() {
    let bench = empty_bench();
    bench.run(&import(saved("scvi_v1_4_2").to_str().unwrap(), "reference"));
    let genes = bench.run_json(&["inspect", "reference"])["n_genes"].as_u64().unwrap() as usize;
    let names = read_json(&saved("scvi_v1_4_2").join("expected.json"))["genes"].clone();
    let names: Vec<String> = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let counts: Vec<f32> = (0..20 * genes).map(|i| (i % 7) as f32).collect();
    let mut obs = DataFrame::new((0..20).map(|i| format!("c{i}")));
    obs.insert("batch", Column::categorical(&["new"; 20])).unwrap();
    let x = Csr::from_dense(20, genes, &counts).unwrap();
    let adata = AnnData::new(x, obs, DataFrame::new(names)).unwrap();
    adata.write(bench.path("query.h5ad"), Compression::None).unwrap();
    let mapped = bench.run_json(&["map", "reference", "query.h5ad", "--epochs", "1", "--out", "mapped"]);
    assert_eq!(mapped["conditions"]["local/query/new"]["n_cells"], 20);
    let exported = bench.run_json(&["export", "mapped", "--out", "grown"]);
    assert!(exported["batches"].as_array().unwrap().contains(&"local/query/new".into()), "{exported}");
}

#[test]
fn a_pickle_that_asks_for_more_is_refused_with_class_and_byte() {
    for (pickle, words) in [
        // What `os.system` called on text looks like; reading it must not call anything.
        (&b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R."[..], ["`posix.system`", "at byte 2"]),
        (&b"\x80\x02I1\n."[..], ["opcode INT", "at byte 2"]),
        (&b"\x80\x02}q\x00X\x03\x00\x00\x00ab"[..], ["ends at byte", "before its value is complete"]),
    ] {
        let bench = empty_bench();
        copy(&bench, "scvi_legacy_layout");
        std::fs::write(bench.path("model/attr.pkl"), pickle).unwrap();
        let said = bench.fail(1, &import("model", "reference"));
        for word in words.into_iter().chain(["attr.pkl", "error: ", "hint: if you trust"]) {
            assert!(said.contains(word), "no `{word}` in:\n{said}");
        }
        assert!(!bench.path("reference/version.json").exists());
    }
}

#[test]
fn a_truncated_archive_is_refused() {
    let bench = empty_bench();
    copy(&bench, "minimal_export_scvi");
    let bytes = std::fs::read(bench.path("model/model.pt")).unwrap();
    for n in [0, 10, bytes.len() / 2, bytes.len() - 30] {
        std::fs::write(bench.path("model/model.pt"), &bytes[..n]).unwrap();
        let said = bench.fail(1, &import("model", "reference"));
        assert!(said.contains("model.pt") && said.contains("error: "), "{n} bytes:\n{said}");
    }
}

#[test]
fn a_folder_without_a_model_and_a_file_of_another_kind_are_named() {
    let bench = empty_bench();
    std::fs::create_dir(bench.path("empty")).unwrap();
    let said = bench.fail(1, &import("empty", "reference"));
    assert!(said.contains("neither `model.pt` nor `model_params.pt`"), "{said}");
    std::fs::write(bench.path("weights.bin"), "x").unwrap();
    let said = bench.fail(1, &import("weights.bin", "reference"));
    assert!(said.contains("expected a folder, or a file whose name ends in `model.pt`"), "{said}");
    let said = bench.fail(1, &import("nowhere", "reference"));
    assert!(said.contains("nowhere"), "{said}");
}
