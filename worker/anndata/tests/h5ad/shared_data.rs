//! Real files against the facts that their description states.

use archipelago_anndata::{AnnData, Column, Compression, Element, H5adFile, Values, counts, inspect::inspect};

use crate::shared;

/// File, cells, genes, a column of obs, and the number of its categories.
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
        let text = inspect(&path).unwrap().to_string();
        assert!(text.starts_with(&format!("{n_obs} cells × {n_vars} genes")), "{text}");
        eprintln!("{name}\n{text}");
    }
}
