//! What is written is read back the same.

use std::path::Path;

use archipelago_anndata::{
    AnnData, Array, Categorical, Column, Compression, Csr, CsrBuilder, DataFrame, Element, Error, H5adFile, Layout,
    Matrix, Sparse, Storage, Values,
};
use proptest::{collection::vec, prelude::*};

use crate::example::everything;

fn check(adata: &AnnData, folder: &Path, compression: Compression) -> Result<(), TestCaseError> {
    let path = folder.join("written.h5ad");
    adata.write(&path, compression).unwrap();
    let read = AnnData::read(&path).unwrap();
    prop_assert_eq!(&read, adata);
    let names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    prop_assert_eq!(names, ["written.h5ad"]);
    Ok(())
}

#[test]
fn everything_survives_with_and_without_gzip() {
    let folder = tempfile::tempdir().unwrap();
    for compression in [Compression::None, Compression::Gzip(4)] {
        check(&everything(), folder.path(), compression).unwrap();
    }
}

#[test]
fn a_file_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    let mut adata = everything();
    adata.write(&path, Compression::None).unwrap();
    adata.obs.insert("mapped", vec![1.0_f64, 2.0, 3.0]).unwrap();
    adata.write(&path, Compression::None).unwrap();
    assert_eq!(AnnData::read(&path).unwrap(), adata);
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    let mut adata = everything();
    adata.write(&path, Compression::None).unwrap();
    let before = std::fs::read(&path).unwrap();
    adata.uns.insert("a/b".into(), Element::Null);
    assert!(adata.write(&path, Compression::None).unwrap_err().to_string().contains("key `a/b`"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn parts_that_disagree_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut adata = everything();
    adata.obsm.insert("X_pca".into(), Array::matrix(2, 1, vec![0.0_f32, 1.0]).unwrap().into());
    let message = adata.write(folder.path().join("a.h5ad"), Compression::None).unwrap_err().to_string();
    assert_eq!(message, "`obsm/X_pca` has 2 cells but 3 are in `obs`");
}

#[test]
fn a_column_with_a_slash_survives() {
    let folder = tempfile::tempdir().unwrap();
    let mut adata = everything();
    adata.obs.insert("CD45RA/RO", vec![1_i64, 2, 3]).unwrap();
    check(&adata, folder.path(), Compression::None).unwrap();
}

#[test]
fn cells_are_selected_with_all_that_belongs_to_them() {
    let selected = everything().select_obs(&[2, 0]).unwrap();
    selected.check().unwrap();
    assert_eq!(selected.obs_names(), ["Zelle-ß", "cell-1"]);
    let expected = [4., 5., 0., 0., 1., 0., 2., 0.];
    assert_eq!(selected.matrix(None).unwrap().to_csr().unwrap().to_dense(), expected);
    assert_eq!(selected.matrix(Some("by_columns")).unwrap().to_csr().unwrap().value(0, 1), 8.0);
    assert_eq!(selected.obsm("protein_expression").unwrap().to_table("p").unwrap().values, [2., 2., 10., 1.]);
    assert_eq!(selected.obsp["distances"].shape(), (2, 2));
}

#[test]
fn genes_are_selected_with_all_that_belongs_to_them() {
    let selected = everything().select_vars(&[3, 0]).unwrap();
    selected.check().unwrap();
    assert_eq!(selected.var_names(), ["HLA-DRA", "CD3D"]);
    assert_eq!(selected.matrix(None).unwrap().to_csr().unwrap().to_dense(), [0., 1., 3., 0., 0., 4.]);
    assert_eq!((selected.varp["correlation"].shape(), selected.raw.unwrap().x.shape()), ((2, 2), (3, 5)));
}

#[test]
fn chunks_of_many_cells_hold_those_cells_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    let (n_cells, n_genes, per_cell) = (20_000_usize, 1_000_usize, 50_usize);
    let indices = (0..n_cells).flat_map(|cell| (0..per_cell).map(move |k| (cell % 20 + k * 19) as u32)).collect();
    let indptr = (0..=n_cells).map(|cell| cell * per_cell).collect();
    let data = (0..n_cells * per_cell).map(|at| (at % 7 + 1) as f32).collect();
    let counts = Csr::new(n_cells, n_genes, indptr, indices, data).unwrap();
    let name = |letter: char, n: usize| DataFrame::new((0..n).map(move |i| format!("{letter}{i}")));
    AnnData::new(counts.clone(), name('c', n_cells), name('g', n_genes))
        .unwrap()
        .write(&path, Compression::Gzip(1))
        .unwrap();
    let rows = H5adFile::open(&path).unwrap().rows(None).unwrap();
    let chunks: Vec<Csr> = rows.chunks(1024).collect::<Result<_, _>>().unwrap();
    assert_eq!(chunks.iter().map(Csr::nnz).max(), Some(1024 * per_cell));
    assert!(Csr::vstack(n_genes, chunks).unwrap() == counts);
    let mut ahead = CsrBuilder::new(n_genes, &Storage::new(1 << 20, folder.path()), rows.n_stored());
    rows.read_ahead(rows.pieces(), |_, piece| ahead.push(&piece)).unwrap();
    let ahead = ahead.finish().unwrap();
    assert!(ahead.is_spilled() && ahead == counts);
}

#[test]
fn compressed_matrices_have_chunks_that_hdf5_can_keep() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    let (n_cells, n_genes) = (700, 1_000);
    let mut adata = AnnData::new(
        Csr::from_dense(n_cells, n_genes, &vec![1.0; n_cells * n_genes]).unwrap(),
        DataFrame::new((0..n_cells).map(|i| i.to_string())),
        DataFrame::new((0..n_genes).map(|i| i.to_string())),
    )
    .unwrap();
    let dense = Matrix::dense(Array::matrix(n_cells, n_genes, vec![1.0_f64; n_cells * n_genes]).unwrap()).unwrap();
    adata.layers.insert("dense".to_owned(), dense);
    adata.write(&path, Compression::Gzip(1)).unwrap();
    let file = hdf5::File::open(&path).unwrap();
    let chunk = |name: &str| file.dataset(name).unwrap().chunk().unwrap();
    assert_eq!([chunk("X/data"), chunk("X/indices")], [[1 << 17], [1 << 17]]);
    assert_eq!((chunk("layers/dense"), chunk("X/indptr")), (vec![65, n_genes], vec![n_cells + 1]));
    drop(file);

    // Files of other programs, and of ours before, have larger ones.
    let file = hdf5::File::open_rw(&path).unwrap();
    let values: Vec<f32> = (0..n_cells * n_genes).map(|at| ((at * 2_654_435_761) >> 7) as f32).collect();
    file.unlink("X/data").unwrap();
    let data = file.group("X").unwrap().new_dataset::<f32>().deflate(1).chunk(values.len()).shape(values.len());
    data.create("data").unwrap().write_raw(&values).unwrap();
    file.close().unwrap();
    let rows = H5adFile::open(&path).unwrap().rows(None).unwrap();
    assert_eq!(rows.read(3..5).unwrap().data(), &values[3 * n_genes..5 * n_genes]);
    assert_eq!(rows.read_all().unwrap().data(), values);
}

#[test]
fn pieces_cover_all_rows_whatever_their_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    // One row alone has more stored values than a piece, all of one gene; the others have none.
    let (n_stored, row) = (5_000_000, 3);
    let indptr = (0..=9_000).map(|at| if at > row { n_stored } else { 0 }).collect();
    let counts = Sparse::new(Layout::Csr, (9_000, 1), indptr, vec![0; n_stored], vec![1_u8; n_stored]).unwrap();
    let obs = DataFrame::new((0..9_000).map(|i| i.to_string()));
    AnnData::new(counts, obs, DataFrame::new(["g"])).unwrap().write(&path, Compression::None).unwrap();
    let rows = H5adFile::open(&path).unwrap().rows(None).unwrap();
    assert_eq!(rows.pieces(), [0..3, 3..4, 4..8_196, 8_196..9_000]);
    let mut used = Vec::new();
    let stopped = rows.read_ahead(rows.pieces(), |range, piece| {
        used.push((range, piece.row_sums().iter().sum::<f64>()));
        if used.len() < 2 { Ok(()) } else { Err(Error::NoCells) }
    });
    assert!(matches!(stopped, Err(Error::NoCells)));
    assert_eq!(used, [(0..3, 0.0), (3..4, 5e6)], "nothing is used after a failure");
}

/// A matrix of up to 8 × 6 with many zeros, dense or sparse.
fn matrix() -> impl Strategy<Value = Matrix> {
    let value = prop_oneof![3 => Just(0.0_f32), 1 => (0_u16..1000).prop_map(f32::from), 1 => -1e6_f32..1e6];
    (1_usize..8, 1_usize..6).prop_flat_map(move |(n_rows, n_cols)| {
        (vec(value.clone(), n_rows * n_cols), any::<bool>()).prop_map(move |(dense, sparse)| match sparse {
            true => Csr::from_dense(n_rows, n_cols, &dense).unwrap().into(),
            false => Matrix::dense(Array::matrix(n_rows, n_cols, dense).unwrap()).unwrap(),
        })
    })
}

fn column(n: usize) -> impl Strategy<Value = Column> {
    let text = "[^\\x00]{0,6}";
    prop_oneof![
        vec(text, n).prop_map(Column::text::<String>),
        vec(any::<bool>(), n).prop_map(Column::from),
        vec(any::<i64>(), n).prop_map(Column::from),
        vec(any::<u8>(), n).prop_map(Column::from),
        vec(-1e9_f64..1e9, n).prop_map(Column::from),
        (vec(-1_i32..3, n), any::<bool>()).prop_map(|(codes, ordered)| {
            Column::Categorical(Categorical::new(codes, vec!["x", "", "ü"], ordered).unwrap())
        }),
        (vec(any::<i32>(), n), vec(any::<bool>(), n))
            .prop_map(|(values, missing)| Column::Nullable { values: Values::from(values), missing }),
    ]
}

fn data_set() -> impl Strategy<Value = AnnData> {
    matrix().prop_flat_map(|x| {
        let (n_obs, n_vars) = x.shape();
        let frame = |n: usize, letter: char| {
            proptest::collection::btree_map("[a-zA-Z_ ]{1,8}", column(n), 0..4).prop_map(move |columns| {
                let mut frame = DataFrame::new((0..n).map(|i| format!("{letter}{i}")));
                for (name, column) in columns.into_iter().filter(|(name, _)| name != "_index") {
                    frame.insert(name, column).unwrap();
                }
                frame
            })
        };
        (frame(n_obs, 'c'), frame(n_vars, 'g')).prop_map(move |(obs, var)| AnnData::new(x.clone(), obs, var).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_data_set_survives(adata in data_set(), level in 0_u8..3) {
        let compression = if level == 0 { Compression::None } else { Compression::Gzip(level) };
        check(&adata, tempfile::tempdir().unwrap().path(), compression)?;
    }

    #[test]
    fn rows_in_chunks_are_the_rows(adata in data_set(), n_rows in 1_usize..5, seed in any::<u8>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5ad");
        adata.write(&path, Compression::None).unwrap();
        let reader = H5adFile::open(&path).unwrap().rows(None).unwrap();
        let chunks: Vec<Csr> = reader.chunks(n_rows).collect::<Result<_, _>>().unwrap();
        prop_assert!(chunks.iter().all(|chunk| chunk.n_rows() <= n_rows));
        let whole = adata.matrix(None).unwrap().to_csr().unwrap();
        prop_assert_eq!(Csr::vstack(whole.n_cols(), chunks).unwrap(), whole);
        let chosen: Vec<usize> = (0..adata.n_obs()).filter(|row| seed >> row & 1 == 1).collect();
        crate::copied::check(&path, &chosen, Compression::Gzip(1));
    }

    #[test]
    fn selecting_rows_and_columns_agrees_with_dense(x in matrix(), seed in any::<u64>()) {
        let (n_rows, n_cols) = x.shape();
        let rows: Vec<usize> = (0..n_rows).filter(|row| seed >> row & 1 == 1).rev().collect();
        let cols: Vec<usize> = (0..n_cols).filter(|col| seed >> (16 + col) & 1 == 1).rev().collect();
        let csr = x.to_csr().unwrap();
        let dense = csr.to_dense();
        let expected: Vec<f32> =
            rows.iter().flat_map(|row| cols.iter().map(|col| dense[row * n_cols + col]).collect::<Vec<_>>()).collect();
        prop_assert_eq!(csr.select_rows(&rows).select_cols(&cols).unwrap().to_dense(), expected.clone());
        prop_assert_eq!(x.select_cols(&cols).select_rows(&rows).to_csr().unwrap().to_dense(), expected);
    }
}
