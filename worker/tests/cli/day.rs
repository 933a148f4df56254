//! A data scientist's day after preprocessing: components, graphs, pictures, labels, figures, a page.

use archipelago_anndata::{AnnData, Compression, Element};

use super::{Bench, TRAIN};

/// `reference_cells.h5ad` and `mapped/mapped.h5ad` in one latent space.
fn mapped() -> Bench {
    let bench = Bench::new();
    bench.run(&[&TRAIN[..], &["--model", "scvi"]].concat());
    bench.run(&[
        "map",
        "reference",
        "cells.h5ad",
        "--batches",
        "c",
        "--epochs",
        "2",
        "--device",
        "cpu",
        "--out",
        "mapped",
    ]);
    bench.run(&[
        "latent",
        "reference",
        "cells.h5ad",
        "--batches",
        "a,b",
        "--out",
        "reference_cells.h5ad",
        "--device",
        "cpu",
    ]);
    bench
}

fn shape(adata: &AnnData, name: &str) -> (usize, usize) {
    let table = adata.obsm(name).unwrap().to_table(name).unwrap();
    (table.n_rows, table.n_cols)
}

#[test]
fn cells_are_placed_and_clustered_where_scanpy_looks() {
    let bench = Bench::new();
    let components = bench.run_json(&["pca", "cells.h5ad", "--n-comps", "8", "--in-place"]);
    assert_eq!((&components["n_comps"], &components["n_genes"]), (&8.into(), &60.into()));
    bench.run(&["neighbors", "cells.h5ad", "--n-neighbors", "10", "--in-place"]);
    bench.run(&["umap", "cells.h5ad", "--maxiter", "20", "--in-place"]);
    bench.run(&["tsne", "cells.h5ad", "--maxiter", "50", "--perplexity", "10", "--in-place"]);
    let clusters = bench.run_json(&["leiden", "cells.h5ad", "--in-place"]);
    let sizes: u64 = clusters["clusters"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(sizes, 120);
    let adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    for name in ["X_umap", "X_tsne"] {
        assert_eq!(shape(&adata, name), (120, 2));
    }
    assert_eq!(adata.obsp["distances"].to_csr().unwrap().nnz(), 120 * 9);
    let Element::Dict(graph) = &adata.uns["neighbors"] else { panic!("`neighbors` is no dictionary") };
    assert!(graph.contains_key("connectivities_key") && graph.contains_key("params"));
    assert!(adata.varm.contains_key("PCs") && adata.uns.contains_key("leiden"));
    let exact = adata.obsp["connectivities"].clone();
    bench.run(&["neighbors", "cells.h5ad", "--n-neighbors", "10", "--method", "approximate", "--in-place"]);
    let again = AnnData::read(bench.path("cells.h5ad")).unwrap();
    assert_eq!(again.obsp["connectivities"].shape(), exact.shape());
}

#[test]
fn a_command_that_lacks_an_embedding_says_how_to_make_one() {
    let bench = Bench::new();
    let said = bench.fail(1, &["umap", "cells.h5ad", "--in-place"]);
    assert!(said.contains("neither `X_archipelago` nor `X_pca`") && said.contains("archipelago-worker pca"), "{said}");
    let said = bench.fail(1, &["neighbors", "cells.h5ad", "--use-rep", "X_harmony", "--in-place"]);
    assert!(said.contains("no obsm `X_harmony`"), "{said}");
    let said = bench.fail(2, &["neighbors", "cells.h5ad", "--n-neighbors", "1", "--in-place"]);
    assert!(said.contains("--n-neighbors"), "{said}");
}

#[test]
fn labels_reach_the_query_with_an_uncertainty() {
    let bench = mapped();
    let transfer = |more: &[&str]| {
        let base = ["transfer", "reference_cells.h5ad", "mapped/mapped.h5ad", "--n-neighbors", "20", "--overwrite"];
        bench.run_json(&[&base[..], &["--out", "labelled.h5ad"], more].concat())
    };
    let found = transfer(&["--labels-key", "cell_type,donor", "--max-uncertainty", "0"]);
    let of_type = &found["columns"]["cell_type"];
    assert!(of_type["n_unknown"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(of_type["judged"]["n_cells"], 40);
    let adata = AnnData::read(bench.path("labelled.h5ad")).unwrap();
    let column = |name: &str| adata.obs.column(name).unwrap().clone();
    let (kept, all) =
        (column("cell_type_transferred_label").to_strings(), column("cell_type_transferred_label_unfiltered"));
    assert!(kept.iter().any(|label| label.as_deref() == Some("Unknown")));
    assert!(all.to_strings().iter().all(|label| label.as_deref() != Some("Unknown")));
    let uncertainty = column("donor_transfer_uncert").to_f64().unwrap();
    assert!(uncertainty.iter().all(|value| (0.0..=1.0).contains(value)));
    assert_eq!(transfer(&["--labels-key", "cell_type"])["columns"]["cell_type"]["n_unknown"], 0);
    let first = all.to_strings()[0].clone().unwrap();
    let restricted = transfer(&["--labels-key", "cell_type", "--among", &first, "--majority-by", "batch"]);
    let uncertainty = restricted["columns"]["cell_type"]["mean_uncertainty"].as_f64().unwrap();
    assert!(uncertainty.abs() < 1e-12, "there is one label to give: {uncertainty}");
    let labelled = AnnData::read(bench.path("labelled.h5ad")).unwrap();
    let given = labelled.obs.column("cell_type_majority_label").unwrap().to_strings();
    assert!(given.iter().all(|label| label.as_ref() == Some(&first)), "{given:?}");
    let of_truth = transfer(&["--labels-key", "cell_type", "--mode", "paper"]);
    assert!(of_truth["columns"]["cell_type"]["mean_uncertainty"].as_f64() >= of_type["mean_uncertainty"].as_f64());

    bench.run(&["pca", "cells.h5ad", "--n-comps", "5", "--out", "pca.h5ad"]);
    let other = ["transfer", "pca.h5ad", "mapped/mapped.h5ad", "--labels-key", "nothing", "--in-place"];
    assert!(bench.fail(1, &other).contains("no column `nothing`"));
}

#[test]
fn figures_stand_beside_those_of_the_unintegrated_data() {
    let bench = mapped();
    let judged = bench.run_json(&[
        "metrics",
        "reference_cells.h5ad",
        "mapped/mapped.h5ad",
        "--labels-key",
        "cell_type",
        "--unintegrated",
        "--out",
        "f.csv",
    ]);
    assert_eq!((&judged["n_cells"], &judged["n_batches"]), (&120.into(), &3.into()));
    let names: Vec<&str> = judged["embeddings"].as_array().unwrap().iter().map(|e| e[0].as_str().unwrap()).collect();
    assert_eq!(names, ["X_archipelago", "unintegrated"]);
    let value = |space: usize, name: &str| {
        let figures = judged["embeddings"][space][1]["figures"].as_array().unwrap();
        figures.iter().find(|figure| figure["name"] == name).unwrap()["value"].as_f64()
    };
    assert_eq!(value(1, "pcr_comparison"), Some(0.0), "the unintegrated data is no better than itself");
    assert!(value(0, "ilisi").is_some() && value(0, "isolated_f1").is_none());
    let table = std::fs::read_to_string(bench.path("f.csv")).unwrap();
    assert!(table.starts_with("figure,X_archipelago,unintegrated\nnmi_leiden,"), "{table}");
}

#[test]
fn every_kind_of_picture_is_drawn() {
    let bench = mapped();
    bench.run(&["umap", "mapped/mapped.h5ad", "--maxiter", "20", "--out", "u.h5ad"]);
    bench.run(&["transfer", "reference_cells.h5ad", "u.h5ad", "--labels-key", "cell_type", "--in-place"]);
    let labels = ["--observed", "cell_type", "--predicted", "cell_type_transferred_label"];
    let pictures: [(&str, Vec<&str>); 6] = [
        ("a.png", vec!["embedding", "u.h5ad", "--color", "cell_type,cell_type_transfer_uncert,GENE00001"]),
        (
            "b.svg",
            vec!["violin", "u.h5ad", "--values", "GENE00001,cell_type_transfer_uncert", "--groupby", "cell_type"],
        ),
        ("c.svg", vec!["dots", "u.h5ad", "--genes", "GENE00001,GENE00002", "--groupby", "cell_type"]),
        ("d.svg", [&["confusion", "u.h5ad"][..], &labels].concat()),
        ("e.svg", [&["sankey", "u.h5ad"][..], &labels].concat()),
        ("f.svg", vec!["loss", "reference", "mapped"]),
    ];
    for (file, args) in pictures {
        bench.run(&[&["plot"][..], &args, &["--out", file, "--theme", "dark"]].concat());
        let bytes = std::fs::read(bench.path(file)).unwrap();
        let is_png = bytes.starts_with(b"\x89PNG");
        assert!(if file.ends_with("png") { is_png } else { bytes.starts_with(b"<svg") }, "{file}");
    }
    let said = bench.fail(1, &["plot", "embedding", "u.h5ad", "--color", "GENE1", "--out", "x.png"]);
    assert!(said.contains("`GENE1` is neither a column nor a gene"), "{said}");
    let table = |column: &str| format!("X_archipelago:{column}");
    bench.run(&["plot", "embedding", "u.h5ad", "--color", &table("1"), "--out", "table.png"]);
    let said = bench.fail(1, &["plot", "embedding", "u.h5ad", "--color", &table("0"), "--out", "x.png"]);
    assert!(said.contains("`X_archipelago:0` is neither a column nor a gene; columns are: 1, 2"), "{said}");
    let said = bench.fail(2, &["plot", "embedding", "u.h5ad", "--color", "batch", "--out", "x.jpg"]);
    assert!(said.contains("ends in .png or .svg"), "{said}");
}

#[test]
fn cells_of_another_network_are_not_compared() {
    let bench = mapped();
    let mut adata = AnnData::read(bench.path("reference_cells.h5ad")).unwrap();
    adata.uns.insert("archipelago_network".to_owned(), Element::from("0123456789abcdef"));
    adata.write(bench.path("other.h5ad"), Compression::None).unwrap();
    let transfer = ["transfer", "other.h5ad", "mapped/mapped.h5ad", "--labels-key", "cell_type", "--out", "x.h5ad"];
    let report = ["report", "mapped", "--reference-cells", "other.h5ad"];
    for command in [&transfer[..], &report] {
        let said = bench.fail(1, command);
        assert!(said.contains("0123456789ab") && said.contains("place both with the same reference"), "{said}");
    }
}

#[test]
fn one_page_tells_all_of_a_mapping_and_needs_no_network() {
    let bench = mapped();
    let base = ["report", "mapped", "--labels-key", "cell_type"];
    bench.run(&[&base[..], &["--reference-cells", "reference_cells.h5ad"]].concat());
    let page = std::fs::read_to_string(bench.path("mapped/report.html")).unwrap();
    for heading in [
        "What was mapped onto what",
        "Training",
        "Where the cells lie",
        "Labels from the reference",
        "How well it fits",
        "What left the site",
    ] {
        assert!(page.contains(&format!(">{heading}</h2>")), "no `{heading}`");
    }
    assert!(page.contains("local/query/c") && page.contains("prefers-color-scheme: dark"));
    for outside in ["http://", "https://", "src=\"/", "<script", "@import"] {
        assert!(!page.contains(outside), "the page holds `{outside}`");
    }
    assert_eq!(page.matches("<img alt=\"\"").count(), 0, "every picture says what it shows");
    // Without the reference's cells the query is shown alone.
    bench.run(&[&base[..], &["--out", "alone.html"]].concat());
    let alone = std::fs::read_to_string(bench.path("alone.html")).unwrap();
    assert!(!alone.contains("Labels from the reference") && alone.contains("--reference-cells"));
}
