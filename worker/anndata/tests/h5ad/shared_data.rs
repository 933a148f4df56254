//! Real files against the facts that their description states.

use archipelago_anndata::{AnnData, Column, Compression, Csr, H5adFile, counts, inspect::inspect};

use crate::shared;

/// File, cells, genes, a column of obs, and the number of its categories (0: it holds integers).
const FACTS: [(&str, usize, usize, &str, usize); 18] = [
    ("pbmc_5batch", 3500, 1205, "cell_type", 9),
    ("pbmc_sorted_hierarchy", 3774, 2000, "label_fine", 10),
    ("kang_ifnb_donor101", 954, 1267, "cell_type", 5),
    ("kang_ifnb_unlabelled", 1959, 2000, "condition", 2),
    ("cite_pbmc5k", 200, 2000, "batch", 1),
    ("cite_pbmc10k", 200, 2000, "batch", 1),
    ("cite_cbmc_clr", 8617, 2000, "cell_type", 15),
    ("tcr_wu2020", 200, 2000, "donor", 14),
    ("tcr_lung_blood", 500, 2000, "donor", 4),
    ("spatial_starmap", 3704, 158, "cell_type", 16),
    ("spatial_merfish", 750, 134, "batch", 1),
    ("spatial_merfish_dissociated", 1308, 134, "cell_type", 14),
    ("pancreas_human_mouse", 350, 2000, "species", 2),
    ("kidney_young", 5685, 2000, "cell_type", 11),
    ("lung_ipf_query", 127, 2000, "batch", 1),
    ("compat_wu2020_original", 200, 3000, "patient", 14),
    ("compat_pbmc5k_protein_original", 200, 16581, "n_genes", 0),
    ("compat_paul15_original", 2730, 3451, "paul15_clusters", 19),
];

#[test]
fn every_file_has_the_stated_shape_and_categories() {
    let Some(folder) = shared("data") else { return };
    for (name, n_obs, n_vars, column, n_categories) in FACTS {
        let path = folder.join(name).with_extension("h5ad");
        let adata = AnnData::read(&path).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!((adata.n_obs(), adata.n_vars()), (n_obs, n_vars), "{name}");
        match adata.obs.column(column).unwrap() {
            Column::Categorical(categorical) => assert_eq!(categorical.categories().len(), n_categories, "{name}"),
            other => assert_eq!((n_categories, other.kind()), (0, "int64".into()), "{name}"),
        }
        let summary = inspect(&path).unwrap();
        assert!(summary.x.as_ref().unwrap().looks_like_counts, "{name}");
        assert!(summary.to_string().starts_with(&format!("{n_obs} cells × {n_vars} genes")), "{summary}");
    }
}

#[test]
fn every_file_survives_being_rewritten() {
    let Some(folder) = shared("data") else { return };
    let scratch = tempfile::tempdir().unwrap();
    for (name, ..) in FACTS {
        let adata = AnnData::read(folder.join(name).with_extension("h5ad")).unwrap();
        let copy = scratch.path().join("copy.h5ad");
        adata.write(&copy, Compression::Gzip(1)).unwrap();
        // As text, in which missing numbers (NaN) are equal.
        let (read, written) = (format!("{:?}", AnnData::read(&copy).unwrap()), format!("{adata:?}"));
        let same = read.bytes().zip(written.bytes()).take_while(|(read, written)| read == written).count();
        let from_there = |text: &str| text.chars().skip(same.saturating_sub(60)).take(300).collect::<String>();
        assert!(read == written, "{name}: {}\nwas\n{}", from_there(&read), from_there(&written));
    }
}

#[test]
fn every_other_cell_is_copied_as_it_would_be_written() {
    let Some(folder) = shared("data") else { return };
    for name in ["cite_pbmc5k", "compat_paul15_original", "compat_wu2020_original", "spatial_merfish"] {
        let path = folder.join(name).with_extension("h5ad");
        let rows: Vec<usize> = (0..H5adFile::open(&path).unwrap().n_obs()).step_by(2).collect();
        crate::copied::check(&path, &rows, Compression::Gzip(1));
    }
}

#[test]
fn chunks_are_the_whole_matrix_and_counts() {
    let Some(folder) = shared("data") else { return };
    for (name, _, n_vars, ..) in FACTS {
        let file = H5adFile::open(folder.join(name).with_extension("h5ad")).unwrap();
        let whole = file.read_all().unwrap().matrix(None).unwrap().to_csr().unwrap();
        let chunks: Vec<Csr> = file.rows(None).unwrap().chunks(300).collect::<Result<_, _>>().unwrap();
        assert!(Csr::vstack(n_vars, chunks).unwrap() == whole, "{name}");
        counts::check(&whole, file.var().index()).unwrap();
    }
}

#[test]
fn four_dissociated_cells_are_empty() {
    let Some(folder) = shared("data") else { return };
    let file = H5adFile::open(folder.join("spatial_merfish_dissociated.h5ad")).unwrap();
    let report = counts::check(&file.rows(Some("counts")).unwrap().read_all().unwrap(), &[]).unwrap();
    assert_eq!((report.n_empty_cells, report.first_empty_rows.len()), (4, 4));
}

#[test]
fn proteins_are_a_table_in_new_and_old_files() {
    let Some(folder) = shared("data") else { return };
    let table = |name: &str| {
        let file = H5adFile::open(folder.join(name)).unwrap();
        file.obsm("protein_expression").unwrap().to_table("protein_expression").unwrap()
    };
    let (new, old) = (table("cite_pbmc5k.h5ad"), table("compat_pbmc5k_protein_original.h5ad"));
    assert_eq!((new.n_rows, new.n_cols, new.columns.as_ref().unwrap().len()), (200, 29, 29));
    assert_eq!((old.n_rows, old.n_cols, old.columns), (200, 29, None));
    let sum = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>();
    assert_eq!(sum(&new.values), sum(&old.values));
}

#[test]
fn a_missing_layer_lists_those_there_are() {
    let Some(folder) = shared("data") else { return };
    let file = H5adFile::open(folder.join("pbmc_5batch.h5ad")).unwrap();
    let message = file.rows(Some("raw_counts")).unwrap_err().to_string();
    assert_eq!(message, "no layer `raw_counts`; there are: `counts`");
}
