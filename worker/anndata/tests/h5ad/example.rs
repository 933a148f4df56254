//! One data set with every kind of thing an h5ad file can hold.

use std::collections::BTreeMap;

use archipelago_anndata::{
    AnnData, Array, Categorical, Column, Csr, DataFrame, Dict, Element, Layout, Matrix, Raw, Sparse, Values,
};

/// Three cells × four genes with everything.
pub(crate) fn everything() -> AnnData {
    let counts = Csr::from_dense(3, 4, &[1., 0., 2., 0., 0., 0., 0., 3., 4., 5., 0., 0.]).unwrap();
    let mut adata = AnnData::new(counts.clone(), obs(), var()).unwrap();
    let by_columns = Sparse::new(Layout::Csc, (3, 4), vec![0, 1, 2, 3, 3], vec![0, 2, 0], vec![7_i32, 8, 9]).unwrap();
    let dense = Array::matrix(3, 4, (0..12).collect::<Vec<u16>>()).unwrap();
    adata.layers.insert("by_columns".into(), by_columns.into());
    adata.layers.insert("dense".into(), Matrix::dense(dense).unwrap());
    adata.obsm.insert("X_latent".into(), Array::matrix(3, 2, vec![0.5_f32, -1.0, 2.0, 3.5, 0.0, 1.0]).unwrap().into());
    adata.obsm.insert("protein_expression".into(), proteins().into());
    adata.varm.insert("mask".into(), Array::matrix(4, 1, vec![true, false, true, true]).unwrap().into());
    adata.obsp.insert("distances".into(), Csr::from_dense(3, 3, &[0., 1., 0., 1., 0., 0., 0., 0., 0.]).unwrap().into());
    adata.varp.insert("correlation".into(), Matrix::dense(Array::matrix(4, 4, vec![0.25_f64; 16]).unwrap()).unwrap());
    adata.uns = uns();
    let raw_var = DataFrame::new(["g0", "g1", "g2", "g3", "g4"]);
    let raw = Csr::from_dense(3, 5, &[1.; 15]).unwrap();
    let varm = Dict::from([("PCs".to_owned(), Array::matrix(5, 2, vec![1.0_f64; 10]).unwrap().into())]);
    adata.raw = Some(Raw { x: raw.into(), var: raw_var, varm });
    adata
}

fn obs() -> DataFrame {
    let mut obs = DataFrame::new(["cell-1", "cell-2", "Zelle-ß"]).with_index_name("barcode");
    let stages = Categorical::new(vec![1, -1, 0], vec!["early", "late"], true).unwrap();
    let plates = Categorical::new(vec![0, 1, 1], vec![10_i64, 20], false).unwrap();
    obs.insert("batch", Column::categorical(&["a", "b", "a"])).unwrap();
    obs.insert("stage", Column::Categorical(stages)).unwrap();
    obs.insert("plate", Column::Categorical(plates)).unwrap();
    obs.insert("note", Column::text(["", "ü", "x/y"])).unwrap();
    obs.insert("is_doublet", vec![true, false, true]).unwrap();
    obs.insert("n_counts", vec![3_i64, 3, 9]).unwrap();
    obs.insert("n_genes", vec![2_u32, 1, 2]).unwrap();
    obs.insert("percent_mito", vec![0.5_f32, f32::INFINITY, -0.0]).unwrap();
    obs.insert("age", Column::Nullable { values: vec![30_i64, 0, 50].into(), missing: vec![false, true, false] })
        .unwrap();
    let smoker = Column::Nullable { values: vec![false, true, false].into(), missing: vec![true, false, false] };
    obs.insert("smoker", smoker).unwrap();
    let site = Column::Nullable { values: vec!["Ulm", "", "Köln"].into(), missing: vec![false, true, false] };
    obs.insert("site", site).unwrap();
    obs
}

fn var() -> DataFrame {
    let mut var = DataFrame::new(["CD3D", "MS4A1", "LYZ", "HLA-DRA"]);
    var.insert("highly_variable", vec![true, true, false, true]).unwrap();
    var
}

fn proteins() -> DataFrame {
    let mut proteins = DataFrame::new(["cell-1", "cell-2", "Zelle-ß"]).with_index_name("barcode");
    proteins.insert("CD3", vec![10_i32, 0, 2]).unwrap();
    proteins.insert("CD45RA", vec![1_i32, 5, 2]).unwrap();
    proteins
}

fn uns() -> Dict {
    let genes: Values = vec!["CD3D", "LYZ"].into();
    let records = vec![("names".to_owned(), genes), ("scores".to_owned(), vec![2.5_f32, -1.0].into())];
    let nested: Dict = BTreeMap::from([
        ("title".to_owned(), Element::from("a study")),
        ("n_neighbors".to_owned(), Array::int(15).into()),
        ("resolution".to_owned(), Array::float(0.8).into()),
        ("nothing".to_owned(), Element::Null),
        ("empty".to_owned(), Element::Dict(Dict::new())),
    ]);
    BTreeMap::from([
        ("nested".to_owned(), Element::Dict(nested)),
        ("colors".to_owned(), Array::vector(vec!["#ff0000", "#00ff00"]).into()),
        ("log1p".to_owned(), Array::new(vec![], vec![true]).unwrap().into()),
        ("graph".to_owned(), Csr::from_dense(2, 2, &[0., 1., 1., 0.]).unwrap().into()),
        ("table".to_owned(), var().into()),
        ("rank_genes_groups".to_owned(), Element::Records(records)),
        ("kinds".to_owned(), Element::Column(Column::categorical(&["x", "y", "x"]))),
        ("nothing_in_it".to_owned(), Array::vector(Vec::<f64>::new()).into()),
    ])
}
