//! Forms that files had before anndata 0.7, made here with the HDF5 library.

use std::{path::Path, str::FromStr};

use archipelago_anndata::{AnnData, Array, Column, Compression, Element, H5adFile, Values};
use hdf5::{
    File, Group, H5Type,
    types::{FixedAscii, FixedUnicode, VarLenUnicode},
};

#[derive(H5Type, Clone, Copy)]
#[repr(C)]
struct Cell {
    index: FixedAscii<6>,
    n_counts: i32,
    louvain: i8,
    is_doublet: bool,
    score: f64,
}

#[derive(H5Type, Clone)]
#[repr(C)]
struct Gene {
    index: VarLenUnicode,
    mean: f32,
}

#[derive(H5Type, Clone, Copy)]
#[repr(C)]
struct Embeddings {
    pca: [f32; 3],
    tsne: [f64; 2],
}

fn text(text: &str) -> VarLenUnicode {
    VarLenUnicode::from_str(text).unwrap()
}

fn put<T: H5Type>(group: &Group, name: &str, shape: &[usize], values: &[T]) {
    group.new_dataset::<T>().shape(shape.to_vec()).create(name).unwrap().write_raw(values).unwrap();
}

fn cells() -> Vec<Cell> {
    let cell = |name: &str, n_counts, louvain, is_doublet, score| Cell {
        index: FixedAscii::from_ascii(name).unwrap(),
        n_counts,
        louvain,
        is_doublet,
        score,
    };
    vec![cell("AAAC", 5, 1, true, 0.5), cell("AAAGTC", 7, 0, false, -1.5)]
}

/// A file of two cells and three genes whose obs, var and obsm are records.
fn records_file(path: &Path) -> File {
    let file = File::create(path).unwrap();
    put(&file, "obs", &[2], &cells());
    let genes: Vec<Gene> = ["a", "ß", "c"].iter().map(|name| Gene { index: text(name), mean: 0.5 }).collect();
    put(&file, "var", &[3], &genes);
    let embeddings =
        [Embeddings { pca: [1.0, 2.0, 3.0], tsne: [0.5, 1.5] }, Embeddings { pca: [4.0, 5.0, 6.0], tsne: [2.5, 3.5] }];
    put(&file, "obsm", &[2], &embeddings);
    let uns = file.create_group("uns").unwrap();
    put(&uns, "louvain_categories", &[2], &[text("T"), text("B")]);
    put(&uns, "iroot", &[], &[1_i64]);
    file
}

/// A sparse matrix 2 × 3 with the attributes of anndata before 0.7.
fn old_sparse(parent: &Group, name: &str, format: &str, indptr: &[i32], indices: &[i32]) -> Group {
    let group = parent.create_group(name).unwrap();
    group.new_attr::<VarLenUnicode>().create("h5sparse_format").unwrap().write_scalar(&text(format)).unwrap();
    group.new_attr::<i64>().shape(2).create("h5sparse_shape").unwrap().write_raw(&[2_i64, 3]).unwrap();
    put(&group, "data", &[3], &[1.0_f32, 2.0, 3.0]);
    put(&group, "indices", &[indices.len()], indices);
    put(&group, "indptr", &[indptr.len()], indptr);
    group
}

fn check(make: impl FnOnce(&Path)) -> AnnData {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.h5ad");
    make(&path);
    for rows in [&[0, 1][..], &[1]] {
        crate::copied::check(&path, rows, Compression::None);
    }
    AnnData::read(&path).unwrap()
}

#[test]
fn records_are_frames_and_their_categories_stand_in_uns() {
    let adata = check(|path| {
        let file = records_file(path);
        put(&file, "X", &[2, 3], &[1.0_f32, 0.0, 2.0, 0.0, 3.0, 0.0]);
    });
    assert_eq!(adata.obs_names(), ["AAAC", "AAAGTC"]);
    assert_eq!(adata.var_names(), ["a", "ß", "c"]);
    assert_eq!(adata.obs.column_names(), ["n_counts", "louvain", "is_doublet", "score"]);
    assert_eq!(adata.obs.column("n_counts").unwrap(), &Column::from(vec![5_i32, 7]));
    assert_eq!(adata.obs.column("is_doublet").unwrap(), &Column::from(vec![true, false]));
    assert_eq!(adata.obs.column("score").unwrap(), &Column::from(vec![0.5_f64, -1.5]));
    assert_eq!(adata.obs.column("louvain").unwrap().to_strings(), [Some("B".into()), Some("T".into())]);
    assert_eq!(adata.var.column("mean").unwrap(), &Column::from(vec![0.5_f32; 3]));
    assert_eq!(adata.uns.keys().collect::<Vec<_>>(), ["iroot"]);
}

#[test]
fn records_of_arrays_are_embeddings() {
    let adata = check(|path| drop(records_file(path)));
    let array = |name| match adata.obsm(name).unwrap() {
        Element::Array(array) => array.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(array("pca"), Array::matrix(2, 3, vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap());
    assert_eq!(array("tsne"), Array::matrix(2, 2, vec![0.5_f64, 1.5, 2.5, 3.5]).unwrap());
    assert_eq!(adata.x, None);
}

#[test]
fn old_sparse_matrices_are_read_whole_and_by_rows() {
    for (format, indptr, indices) in
        [("csr", &[0, 2, 3][..], &[0, 2, 1][..]), ("csc", &[0, 1, 2, 3][..], &[0, 1, 0][..])]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.h5ad");
        let file = records_file(&path);
        old_sparse(&file, "X", format, indptr, indices);
        file.close().unwrap();
        let whole = AnnData::read(&path).unwrap().matrix(None).unwrap().to_csr().unwrap();
        let expected = if format == "csr" { [1., 0., 2., 0., 3., 0.] } else { [1., 0., 3., 0., 2., 0.] };
        assert_eq!(whole.to_dense(), expected, "{format}");
        let rows = H5adFile::open(&path).unwrap().rows(None).unwrap();
        assert_eq!(rows.read(1..2).unwrap().to_dense(), expected[3..], "{format}");
    }
}

#[test]
fn raw_stands_in_dotted_names() {
    let adata = check(|path| {
        let file = records_file(path);
        put(&file, "raw.X", &[2, 3], &[1.0_f32; 6]);
        let genes: Vec<Gene> = ["x", "y", "z"].iter().map(|name| Gene { index: text(name), mean: 0.0 }).collect();
        put(&file, "raw.var", &[3], &genes);
    });
    let raw = adata.raw.unwrap();
    assert_eq!((raw.x.shape(), raw.var.index()[2].as_str()), ((2, 3), "z"));
}

#[test]
fn fixed_length_text_of_any_width_is_read() {
    let adata = check(|path| {
        let file = records_file(path);
        let uns = file.group("uns").unwrap();
        put(&uns, "narrow", &[2], &[FixedAscii::<3>::from_ascii("abc").unwrap(), FixedAscii::from_ascii("d").unwrap()]);
        put(&uns, "wide", &[1], &[FixedUnicode::<300>::from_str(&"ü".repeat(150)).unwrap()]);
    });
    let values = |name: &str| match &adata.uns[name] {
        Element::Array(array) => array.values().clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(values("narrow"), Values::from(vec!["abc", "d"]));
    assert_eq!(values("wide"), Values::from(vec!["ü".repeat(150)]));
}

#[test]
fn tables_of_categories_stand_beside_the_columns() {
    let adata = check(|path| {
        let file = File::create(path).unwrap();
        put(&file, "X", &[2, 1], &[1.0_f32, 2.0]);
        for (name, n) in [("obs", 2), ("var", 1)] {
            let frame = file.create_group(name).unwrap();
            frame.new_attr::<VarLenUnicode>().create("_index").unwrap().write_scalar(&text("index")).unwrap();
            let names: Vec<VarLenUnicode> = (0..n).map(|i| text(&format!("{name}{i}"))).collect();
            put(&frame, "index", &[n], &names);
            let columns = if n == 2 { vec![text("stage")] } else { vec![] };
            frame
                .new_attr::<VarLenUnicode>()
                .shape(columns.len())
                .create("column-order")
                .unwrap()
                .write_raw(&columns)
                .unwrap();
        }
        let obs = file.group("obs").unwrap();
        put(&obs, "stage", &[2], &[-1_i8, 1]);
        let tables = obs.create_group("__categories").unwrap();
        put(&tables, "stage", &[2], &[text("early"), text("late")]);
        tables.dataset("stage").unwrap().new_attr::<bool>().create("ordered").unwrap().write_scalar(&true).unwrap();
    });
    let Column::Categorical(stage) = adata.obs.column("stage").unwrap() else { panic!("not categorical") };
    assert_eq!((stage.codes(), stage.ordered), (&[-1, 1][..], true));
    assert_eq!((adata.obs.index_name(), adata.var_names()), (Some("index"), &["var0".to_owned()][..]));
}

#[test]
fn codes_beyond_the_old_table_are_no_codes() {
    let adata = check(|path| {
        let file = records_file(path);
        let uns = file.group("uns").unwrap();
        uns.unlink("louvain_categories").unwrap();
        put(&uns, "louvain_categories", &[1], &[text("T")]);
    });
    // As in anndata: the entry belongs to something else, and both stay as they are.
    assert_eq!(adata.obs.column("louvain").unwrap(), &Column::from(vec![1_i8, 0]));
    assert!(adata.uns.contains_key("louvain_categories"));
}

#[test]
fn what_was_old_is_written_in_the_new_form() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.h5ad"), folder.path().join("new.h5ad"));
    let file = records_file(&old);
    old_sparse(&file, "X", "csr", &[0, 2, 3], &[0, 2, 1]);
    file.close().unwrap();
    let adata = AnnData::read(&old).unwrap();
    adata.write(&new, Default::default()).unwrap();
    assert_eq!(AnnData::read(&new).unwrap(), adata);
    let version = archipelago_anndata::inspect::inspect(&new).unwrap().encoding_version;
    assert_eq!(version.as_deref(), Some("0.1.0"));
}
