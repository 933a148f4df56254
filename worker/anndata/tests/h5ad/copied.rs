//! Cells that are copied from file to file, beside those that went through memory.

use std::path::Path;

use archipelago_anndata::{AnnData, Array, Column, Compression, CsrBuilder, Error, H5adFile, Storage};
use hdf5::{File, Group, Location, types::VarLenUnicode};

use crate::example::everything;

/// Copies cells, and compares what is written with what reading, selecting and writing give, object by object.
pub(crate) fn check(path: &Path, rows: &[usize], compression: Compression) {
    let folder = tempfile::tempdir().unwrap();
    let (copied, written) = (folder.path().join("copied.h5ad"), folder.path().join("written.h5ad"));
    let file = H5adFile::open(path).unwrap();
    let mut shares = Vec::new();
    file.write_cells(rows, &copied, compression, |_| Ok(()), &mut |share| shares.push(share)).unwrap();
    file.read_all().unwrap().select_obs(rows).unwrap().write(&written, compression).unwrap();
    // As text, in which missing numbers (NaN) are equal.
    let read = |path: &Path| format!("{:?}", AnnData::read(path).unwrap());
    assert!(read(&copied) == read(&written), "{rows:?} of {}", path.display());
    assert_eq!(objects(&copied), objects(&written));
    assert!(shares.is_sorted() && shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
}

/// Every object of a file: its place, attributes, type, shape, chunks and filters.
fn objects(path: &Path) -> Vec<String> {
    fn walk(group: &Group, found: &mut Vec<String>) {
        found.push(format!("{} {}", group.name(), attributes(group)));
        let mut names = group.member_names().unwrap();
        names.sort();
        for name in names {
            if let Ok(inner) = group.group(&name) {
                walk(&inner, found);
                continue;
            }
            let dataset = group.dataset(&name).unwrap();
            let (dtype, shape, chunk) = (dataset.dtype().unwrap().to_descriptor(), dataset.shape(), dataset.chunk());
            let (name, attributes, filters) = (dataset.name(), attributes(&dataset), dataset.filters());
            found.push(format!("{name} {attributes} {dtype:?} {shape:?} {chunk:?} {filters:?}"));
        }
    }
    fn attributes(object: &Location) -> String {
        let mut names = object.attr_names().unwrap();
        names.sort();
        let value = |name: String| {
            let attribute = object.attr(&name).unwrap();
            let text = attribute.read_scalar::<VarLenUnicode>().map(|text| text.to_string());
            let numbers = attribute.read_raw::<i64>().map(|numbers| format!("{numbers:?}"));
            format!("{name}={}", text.or(numbers).unwrap_or_default())
        };
        names.into_iter().map(value).collect::<Vec<_>>().join(",")
    }
    let mut found = Vec::new();
    walk(&File::open(path).unwrap(), &mut found);
    found
}

fn example(folder: &Path, adata: &AnnData) -> H5adFile {
    let path = folder.join("a.h5ad");
    adata.write(&path, Compression::Gzip(4)).unwrap();
    H5adFile::open(path).unwrap()
}

#[test]
fn everything_is_copied_as_it_would_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = example(folder.path(), &everything());
    for rows in [&[0, 1, 2][..], &[0, 2], &[1], &[]] {
        for compression in [Compression::None, Compression::Gzip(4)] {
            check(file.path(), rows, compression);
        }
    }
}

#[test]
fn what_a_caller_changes_is_written_and_replaces_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let (file, to) = (example(folder.path(), &everything()), folder.path().join("b.h5ad"));
    let change = |rest: &mut AnnData| {
        assert!(rest.x.is_none() && rest.raw.is_none() && rest.n_obs() == 2);
        rest.obs.insert("new", Column::text(["x", "y"]))?;
        let latent = Array::matrix(2, 1, vec![7.0_f32, 8.0])?;
        rest.obsm.insert("X_latent".to_owned(), latent.into());
        Ok(())
    };
    file.write_cells(&[0, 2], &to, Compression::None, change, &mut |_| ()).unwrap();
    let mut expected = everything().select_obs(&[0, 2]).unwrap();
    change_whole(&mut expected);
    assert_eq!(AnnData::read(&to).unwrap(), expected);
}

fn change_whole(adata: &mut AnnData) {
    adata.obs.insert("new", Column::text(["x", "y"])).unwrap();
    adata.obsm.insert("X_latent".to_owned(), Array::matrix(2, 1, vec![7.0_f32, 8.0]).unwrap().into());
}

#[test]
fn a_matrix_in_scratch_is_written_as_one_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a.h5ad", "b.h5ad"].map(|name| folder.path().join(name));
    let whole = everything();
    let counts = whole.matrix(None).unwrap().to_csr().unwrap();
    let mut builder = CsrBuilder::new(counts.n_cols(), &Storage::new(0, folder.path()), counts.nnz());
    builder.push(&counts).unwrap();
    let rest = AnnData { x: None, ..whole.clone() };
    rest.write_with_x(&builder.finish().unwrap(), &a, Compression::Gzip(4)).unwrap();
    whole.write(&b, Compression::Gzip(4)).unwrap();
    assert_eq!((AnnData::read(&a).unwrap(), objects(&a)), (AnnData::read(&b).unwrap(), objects(&b)));
    assert!(rest.write_with_x(&counts.select_rows(&[0]), &a, Compression::None).is_err());
    assert!(whole.write_with_x(&counts, &a, Compression::None).is_err());
}

#[test]
fn rows_that_do_not_ascend_are_refused_and_a_failed_change_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, to) = (example(folder.path(), &everything()), folder.path().join("b.h5ad"));
    for rows in [&[1, 0][..], &[1, 1], &[3]] {
        let refused = file.write_cells(rows, &to, Compression::None, |_| Ok(()), &mut |_| ()).unwrap_err();
        assert!(refused.to_string().contains("ascend below 3"), "{refused}");
    }
    let failed = file.write_cells(&[0], &to, Compression::None, |_| Err(Error::NoCells), &mut |_| ());
    assert!(matches!(failed, Err(Error::NoCells)) && !to.exists());
}

#[test]
fn parts_that_disagree_are_named_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = example(folder.path(), &everything());
    let path = file.path().to_owned();
    drop(file);
    let open = File::open_rw(&path).unwrap();
    open.unlink("obsm/X_latent").unwrap();
    open.group("obsm").unwrap().new_dataset::<f32>().shape([2, 2]).create("X_latent").unwrap();
    drop(open);
    let to = folder.path().join("b.h5ad");
    let file = H5adFile::open(&path).unwrap();
    let refused = file.write_cells(&[0], to, Compression::None, |_| Ok(()), &mut |_| ()).unwrap_err().to_string();
    assert!(refused.contains("obsm/X_latent of") && refused.contains("2 cells") && refused.contains("3"), "{refused}");
}
