//! Files that are broken or mean harm: every one is an error that says what is wrong, none a panic.

use std::{fs, path::Path, str::FromStr};

use archipelago_anndata::{AnnData, Compression, Csr, DataFrame, Element, Error, H5adFile, inspect::inspect};
use hdf5::{File, types::VarLenUnicode};

use crate::example::everything;

/// Writes the example, lets `harm` change the file, and returns what opening, reading and inspecting it say.
fn check(harm: impl FnOnce(&File)) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    everything().write(&path, Compression::None).unwrap();
    let file = File::open_rw(&path).unwrap();
    harm(&file);
    file.close().unwrap();
    // Neither of these may panic, whatever it says.
    let _ = inspect(&path);
    let _ = H5adFile::open(&path).and_then(|file| file.rows(None)?.read_all());
    AnnData::read(&path).unwrap_err()
}

fn rewrite<T: hdf5::H5Type>(file: &File, name: &str, shape: &[usize], values: &[T]) {
    file.unlink(name).unwrap();
    file.new_dataset::<T>().shape(shape.to_vec()).create(name).unwrap().write_raw(values).unwrap();
}

#[test]
fn absent_foreign_and_truncated_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    assert!(matches!(AnnData::read(&path), Err(Error::NotFound { .. })));
    fs::write(&path, "cell,gene\n").unwrap();
    assert!(matches!(AnnData::read(&path), Err(Error::NotHdf5 { .. })));
    fs::write(&path, "").unwrap();
    assert!(matches!(AnnData::read(&path), Err(Error::NotHdf5 { .. })));
    assert!(matches!(AnnData::read(folder.path()), Err(Error::Io { .. } | Error::NotHdf5 { .. })));
    everything().write(&path, Compression::None).unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = AnnData::read(&path).unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }), "{error:?}");
    assert!(error.hint().is_some());
}

#[test]
fn no_cut_and_no_flipped_byte_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    let small = AnnData::new(
        Csr::from_dense(2, 2, &[1., 0., 0., 2.]).unwrap(),
        DataFrame::new(["a", "b"]),
        DataFrame::new(["g", "h"]),
    );
    small.unwrap().write(&path, Compression::Gzip(1)).unwrap();
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(1009) {
        fs::write(&path, &whole[..at]).unwrap();
        assert!(AnnData::read(&path).is_err(), "cut at {at}");
    }
    for at in (0..whole.len()).step_by(37) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0xff;
        fs::write(&path, &flipped).unwrap();
        // Padding bytes mean nothing, so a flipped file may well read; it must only not panic.
        let _ = AnnData::read(&path);
        let _ = inspect(&path);
    }
}

#[test]
fn links_to_other_files_are_refused_wherever_they_stand() {
    for place in ["X2", "uns/nested/stolen", "obs/stolen", "layers/stolen"] {
        let error = check(|file| file.link_external("/etc/other.h5ad", "/X", place).unwrap());
        assert!(matches!(error, Error::LeavesFile { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("`/{place}` is a link to another file")), "{error}");
    }
}

#[test]
fn a_soft_link_through_another_file_or_to_nothing_is_refused() {
    let error = check(|file| file.link_soft("/nowhere", "uns/dangling").unwrap());
    assert!(matches!(error, Error::LeavesFile { .. }), "{error:?}");
    let error = check(|file| {
        file.link_external("/etc/other.h5ad", "/", "door").unwrap();
        file.link_soft("/door/X", "layers/stolen").unwrap();
    });
    assert!(matches!(error, Error::LeavesFile { .. }), "{error:?}");
}

#[test]
fn a_soft_link_inside_the_file_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    everything().write(&path, Compression::None).unwrap();
    let file = File::open_rw(&path).unwrap();
    file.link_soft("/X", "layers/counts").unwrap();
    file.close().unwrap();
    let adata = AnnData::read(&path).unwrap();
    assert_eq!(adata.matrix(Some("counts")).unwrap(), adata.matrix(None).unwrap());
}

#[test]
fn links_in_a_circle_end() {
    let error = check(|file| file.link_hard("/uns", "uns/nested/again").unwrap());
    assert!(error.to_string().contains("nested deeper than"), "{error}");
    let error = check(|file| file.link_soft("/uns", "uns/nested/again").unwrap());
    assert!(error.to_string().contains("nested deeper than"), "{error}");
}

#[test]
fn links_that_multiply_objects_end() {
    let error = check(|file| {
        file.group("uns").unwrap().create_group("0").unwrap();
        for level in 0..24 {
            let group = file.create_group(&format!("uns/{}", level + 1)).unwrap();
            for twin in ["a", "b"] {
                group.link_soft(&format!("/uns/{level}"), twin).unwrap();
            }
        }
    });
    assert!(error.to_string().contains("more than 65536 objects"), "{error}");
}

#[test]
fn a_foreign_encoding_is_kept_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("a.h5ad"), folder.path().join("b.h5ad"));
    everything().write(&path, Compression::None).unwrap();
    let file = File::open_rw(&path).unwrap();
    let group = file.create_group("obsm/airr").unwrap();
    for (name, value) in [("encoding-type", "awkward-array"), ("encoding-version", "0.1.0"), ("form", "{}")] {
        let attribute = group.new_attr::<VarLenUnicode>().create(name).unwrap();
        attribute.write_scalar(&VarLenUnicode::from_str(value).unwrap()).unwrap();
    }
    group.new_attr::<i64>().create("length").unwrap().write_scalar(&3_i64).unwrap();
    group.new_dataset::<i64>().shape(4).create("node0-offsets").unwrap().write_raw(&[0_i64, 1, 1, 2]).unwrap();
    file.close().unwrap();
    let adata = AnnData::read(&path).unwrap();
    let Element::Kept(airr) = adata.obsm("airr").unwrap() else { panic!("not kept") };
    assert_eq!((airr.n_rows(), airr.object().as_str()), (None, "/obsm/airr"), "`{{}}` is no form that is known");
    adata.write(&copy, Compression::None).unwrap();
    let copied = File::open(&copy).unwrap();
    let airr = copied.group("obsm/airr").unwrap();
    assert_eq!(airr.attr_names().unwrap(), ["encoding-type", "encoding-version", "form", "length"]);
    assert_eq!(airr.dataset("node0-offsets").unwrap().read_raw::<i64>().unwrap(), [0, 1, 1, 2]);
    // Nobody knows which part of it belongs to which cell.
    assert!(!adata.select_obs(&[1]).unwrap().obsm.contains_key("airr"));
}

#[test]
fn values_stored_in_other_files_are_refused() {
    let error = check(|file| {
        let builder = file.new_dataset::<f64>().shape(4);
        builder.external("/etc/hostname", 0, 32).create("uns/stolen").unwrap();
    });
    assert!(error.to_string().contains("stores its values in another file"), "{error}");
    let error = check(|file| {
        let builder = file.new_dataset::<f64>().shape(4);
        builder.virtual_map("/etc/other.h5", "X", 4, .., 4, ..).create("uns/stolen").unwrap();
    });
    assert!(error.to_string().contains("stores its values in another file"), "{error}");
}

#[test]
fn a_claim_beyond_what_is_stored_is_refused_before_memory_is_taken() {
    let error = check(|file| {
        let builder = file.new_dataset::<f64>().chunk(1024).deflate(1).shape(1_usize << 40);
        builder.create("uns/bomb").unwrap();
    });
    assert!(error.to_string().contains("claims shape [1099511627776] but stores 0 bytes"), "{error}");
}

#[test]
fn a_compressed_column_of_equal_numbers_is_believed() {
    let (folder, n) = (tempfile::tempdir().unwrap(), 4 << 20);
    let path = folder.path().join("a.h5ad");
    everything().write(&path, Compression::None).unwrap();
    let file = File::open_rw(&path).unwrap();
    let equal = file.new_dataset::<i8>().chunk(n).deflate(9).shape(n).create("uns/equal").unwrap();
    equal.write_raw(&vec![1_i8; n]).unwrap();
    assert!(equal.storage_size() * 1000 < n as u64, "{} bytes are stored", equal.storage_size());
    file.close().unwrap();
    let Element::Array(values) = &AnnData::read(&path).unwrap().uns["equal"] else { panic!("not an array") };
    assert_eq!(values.shape(), [n]);
}

#[test]
fn sparse_parts_that_do_not_fit_are_refused() {
    for (name, values) in
        [("X/indices", [0_i64, 2, 3, 0, 4]), ("X/indices", [0, 2, 3, 0, -1]), ("X/indices", [0, 2, 3, 0, 1 << 40])]
    {
        let error = check(|file| rewrite(file, name, &[5], &values));
        assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    }
    for values in [[0_i64, 2, 3, 6], [0, 3, 2, 5], [1, 2, 3, 5], [0, -1, 3, 5], [0, 2, 3, i64::MAX]] {
        let error = check(|file| rewrite(file, "X/indptr", &[4], &values));
        assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    }
    let error = check(|file| rewrite(file, "X/indptr", &[2], &[0_i64, 5]));
    assert!(error.to_string().contains("2 entries in indptr"), "{error}");
    let error = check(|file| rewrite(file, "X/data", &[5, 1], &[0.0_f32; 5]));
    assert!(error.to_string().contains("expected one dimension"), "{error}");
}

#[test]
fn bad_rows_of_a_chunk_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    everything().write(&path, Compression::None).unwrap();
    let file = File::open_rw(&path).unwrap();
    rewrite(&file, "X/indices", &[5], &[0_i32, 2, 3, 0, 4]);
    file.close().unwrap();
    let rows = H5adFile::open(&path).unwrap().rows(None).unwrap();
    assert!(rows.read(0..2).is_ok());
    assert!(matches!(rows.read(2..3), Err(Error::Malformed { .. })));
    assert!(matches!(rows.read(2..4), Err(Error::Invalid { .. })));
}

#[test]
fn x_that_disagrees_with_names_gives_both_numbers() {
    let error = check(|file| rewrite_shape(file, [3, 7]));
    let message = error.to_string();
    assert!(message.contains("7 genes") && message.contains("4 are in `var`"), "{message}");
}

fn rewrite_shape(file: &File, shape: [i64; 2]) {
    let x = file.group("X").unwrap();
    x.delete_attr("shape").unwrap();
    x.new_attr::<i64>().shape(2).create("shape").unwrap().write_raw(&shape).unwrap();
}

#[test]
fn shapes_that_lie_are_refused() {
    for shape in [[-3, 4], [i64::MAX, 4], [4, 4]] {
        let error = check(|file| rewrite_shape(file, shape));
        assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    }
}

#[test]
fn missing_parts_are_named() {
    let error = check(|file| file.unlink("obs").unwrap());
    assert!(error.to_string().contains("has no `obs`"), "{error}");
    let error = check(|file| file.unlink("obs/n_counts").unwrap());
    assert!(error.to_string().contains("has no `n_counts`; there are: "), "{error}");
    let error = check(|file| file.unlink("X/indptr").unwrap());
    assert!(error.to_string().contains("/X/indptr"), "{error}");
    let error = check(|file| file.group("obs").unwrap().delete_attr("_index").unwrap());
    assert!(error.to_string().contains("without attribute `_index`"), "{error}");
}

#[test]
fn a_file_without_x_opens_but_has_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    let mut adata = everything();
    adata.x = None;
    adata.write(&path, Compression::None).unwrap();
    let file = H5adFile::open(&path).unwrap();
    let error = file.rows(None).unwrap_err();
    assert!(matches!(error, Error::NoX { .. }) && error.hint().unwrap().contains("`--layer dense`"));
    assert_eq!(file.rows(Some("dense")).unwrap().read(0..1).unwrap().to_dense(), [0., 1., 2., 3.]);
    assert_eq!(inspect(&path).unwrap().x, None);
}

#[test]
fn columns_that_contradict_themselves_are_refused() {
    let error = check(|file| rewrite(file, "obs/batch/codes", &[3], &[0_i8, 1, 2]));
    assert!(error.to_string().contains("code 2 with 2 categories"), "{error}");
    let error = check(|file| rewrite(file, "obs/age/mask", &[2], &[true, false]));
    assert!(error.to_string().contains("mask of 2 bool for 3 values"), "{error}");
    let error = check(|file| rewrite(file, "obs/n_counts", &[2], &[1_i64, 2]));
    assert!(error.to_string().contains("column n_counts"), "{error}");
    let error = check(|file| {
        let obs = file.group("obs").unwrap();
        obs.delete_attr("_index").unwrap();
        let attribute = obs.new_attr::<VarLenUnicode>().create("_index").unwrap();
        attribute.write_scalar(&VarLenUnicode::from_str("no/such").unwrap()).unwrap();
    });
    assert!(error.to_string().contains("has no `no/such`"), "{error}");
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    let mut adata = everything();
    adata.uns.insert("city".into(), Element::from("K_ln"));
    adata.write(&path, Compression::None).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|bytes| bytes == b"K_ln").unwrap();
    // Latin-1, which files written by Python 2 hold.
    bytes[at + 1] = 0xf6;
    fs::write(&path, bytes).unwrap();
    let error = AnnData::read(&path).unwrap_err();
    assert!(error.to_string().contains("holds text that is not UTF-8"), "{error}");
}

#[test]
fn a_foreign_folder_is_not_written_to() {
    let path = Path::new("/no/such/folder/a.h5ad");
    assert!(matches!(everything().write(path, Compression::None), Err(Error::Io { .. })));
}
