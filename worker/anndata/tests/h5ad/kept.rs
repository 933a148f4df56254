//! What this crate does not understand: copied as it stands, its rows with the cells where its encoding has rows.

use std::{path::Path, str::FromStr};

use archipelago_anndata::{AnnData, Array, Column, Compression, Csr, DataFrame, Error, H5adFile, MuData, concat};
use half::f16;
use hdf5::{
    File, Group, H5Type,
    types::{VarLenArray, VarLenUnicode},
};

use crate::example::everything;

/// A complex number, as h5py writes one.
#[derive(H5Type, Clone, Copy, PartialEq, Debug)]
#[repr(C)]
struct Complex {
    r: f64,
    i: f64,
}

fn put<T: H5Type>(group: &Group, name: &str, shape: &[usize], values: &[T]) {
    group.new_dataset::<T>().shape(shape.to_vec()).create(name).unwrap().write_raw(values).unwrap();
}

fn put_text(group: &Group, name: &str, text: &str) {
    let attribute = group.new_attr::<VarLenUnicode>().create(name).unwrap();
    attribute.write_scalar(&VarLenUnicode::from_str(text).unwrap()).unwrap();
}

fn complex(n: usize) -> Vec<Complex> {
    (0..n).map(|at| Complex { r: at as f64, i: -0.5 }).collect()
}

/// The example, changed with the HDF5 library; the file, and where copies of it go.
fn file_with(change: impl FnOnce(&File)) -> (tempfile::TempDir, [std::path::PathBuf; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let [path, copy] = ["a.h5ad", "b.h5ad"].map(|name| folder.path().join(name));
    everything().write(&path, Compression::None).unwrap();
    let file = File::open_rw(&path).unwrap();
    change(&file);
    file.close().unwrap();
    (folder, [path, copy])
}

/// Copies all cells and some, through memory and from file to file, and looks at what came of it.
fn check(change: impl Fn(&File), rows: &[usize], look: impl Fn(&File, &[usize])) {
    let (_folder, [path, copy]) = file_with(change);
    for rows in [&[0, 1, 2], rows] {
        AnnData::read(&path).unwrap().select_obs(rows).unwrap().write(&copy, Compression::Gzip(4)).unwrap();
        look(&File::open(&copy).unwrap(), rows);
        let file = H5adFile::open(&path).unwrap();
        file.check_writable(rows).unwrap();
        file.write_cells(rows, &copy, Compression::None, |_| Ok(()), &mut |_| ()).unwrap();
        look(&File::open(&copy).unwrap(), rows);
    }
    let adata = AnnData::read(&path).unwrap();
    adata.write(&path, Compression::None).unwrap();
    look(&File::open(&path).unwrap(), &[0, 1, 2]);
}

#[test]
fn what_uns_holds_is_copied_unread() {
    let change = |file: &File| {
        let uns = file.group("uns").unwrap();
        put(&uns, "matrix", &[2, 1], &complex(2));
        put(&uns, "vector", &[3], &complex(3));
        put(&uns, "scalar", &[], &complex(1));
        let lists: Vec<VarLenArray<i32>> = [&[1, 2][..], &[]].map(VarLenArray::from_slice).into();
        put(&uns, "lists", &[2], &lists);
        let own = uns.create_group("nested/own").unwrap();
        put_text(&own, "encoding-type", "somebody-s-own");
        put(&own, "values", &[2], &[1.5_f32, 2.5]);
        put_text(&uns.group("nested/own").unwrap(), "note", "ü");
        uns.new_dataset::<u8>().shape(hdf5::Extents::Null).create("void").unwrap();
    };
    check(change, &[2], |file, _| {
        let read = |name: &str| file.dataset(&format!("uns/{name}")).unwrap();
        assert_eq!((read("matrix").shape(), read("matrix").read_raw::<Complex>().unwrap()), (vec![2, 1], complex(2)));
        assert_eq!(read("vector").read_raw::<Complex>().unwrap(), complex(3));
        assert!(read("vector").attr_names().unwrap().is_empty(), "no encoding is made up");
        assert!(read("scalar").is_scalar() && read("void").space().unwrap().is_null());
        let lists = read("lists").read_raw::<VarLenArray<i32>>().unwrap();
        assert_eq!((lists[0].as_slice(), lists[1].as_slice()), (&[1, 2][..], &[][..]));
        let own = file.group("uns/nested/own").unwrap();
        assert_eq!(own.attr("note").unwrap().read_scalar::<VarLenUnicode>().unwrap().as_str(), "ü");
        assert_eq!(read("nested/own/values").read_raw::<f32>().unwrap(), [1.5, 2.5]);
        // What is understood beside it is still read and written.
        assert_eq!(read("nested/title").read_scalar::<VarLenUnicode>().unwrap().as_str(), "a study");
    });
}

#[test]
fn rows_of_any_type_follow_the_cells() {
    let change = |file: &File| {
        put(&file.group("obsm").unwrap(), "spectrum", &[3, 2], &complex(6));
        put(&file.group("layers").unwrap(), "phase", &[3, 4], &complex(12));
        let obs = file.group("obs").unwrap();
        put(&obs, "phase", &[3], &complex(3));
        let mut columns: Vec<VarLenUnicode> = obs.attr("column-order").unwrap().read_raw().unwrap();
        columns.push(VarLenUnicode::from_str("phase").unwrap());
        obs.delete_attr("column-order").unwrap();
        let order = obs.new_attr::<VarLenUnicode>().shape(columns.len()).create("column-order").unwrap();
        order.write_raw(&columns).unwrap();
    };
    check(change, &[0, 2], |file, rows| {
        for (name, width) in [("obsm/spectrum", 2), ("layers/phase", 4), ("obs/phase", 1)] {
            let all = complex(3 * width);
            let expected: Vec<Complex> =
                rows.iter().flat_map(|&row| all[row * width..(row + 1) * width].to_vec()).collect();
            assert_eq!(file.dataset(name).unwrap().read_raw::<Complex>().unwrap(), expected, "{name}");
        }
    });
    let (_folder, [path, _]) = file_with(change);
    let adata = AnnData::read(&path).unwrap();
    let refused = adata.obs.column("phase").unwrap_err();
    assert!(matches!(refused, Error::Kind { .. }), "{refused}");
    archipelago_anndata::inspect::inspect(&path).unwrap();
    // Columns of it would have to be chosen by a type that is not known.
    let copy = path.with_extension("genes.h5ad");
    adata.select_vars(&[1]).unwrap().write(&copy, Compression::None).unwrap();
    assert!(!File::open(&copy).unwrap().link_exists("layers/phase"));
}

#[test]
fn members_of_obs_that_are_no_columns_stay_and_follow_the_cells() {
    let change = |file: &File| {
        let obs = file.group("obs").unwrap();
        put(&obs, "unlisted", &[3], &[7_i16, 8, 9]);
        put(&obs, "palette", &[2], &[0.5_f32, 1.5]);
        put(&file.group("var").unwrap(), "unlisted", &[4], &[1_u8, 2, 3, 4]);
    };
    check(change, &[0, 2], |file, rows| {
        let expected: Vec<i16> = rows.iter().map(|&row| [7, 8, 9][row]).collect();
        assert_eq!(file.dataset("obs/unlisted").unwrap().read_raw::<i16>().unwrap(), expected);
        assert_eq!(file.dataset("obs/palette").unwrap().read_raw::<f32>().unwrap(), [0.5, 1.5]);
        assert_eq!(file.dataset("var/unlisted").unwrap().read_raw::<u8>().unwrap(), [1, 2, 3, 4]);
    });
    let (_folder, [path, copy]) = file_with(change);
    let mut adata = AnnData::read(&path).unwrap();
    // A column that is made under the name takes its place.
    adata.obs.insert("unlisted", vec![0_i64; 3]).unwrap();
    adata.select_vars(&[3, 1]).unwrap().write(&copy, Compression::None).unwrap();
    let file = File::open(&copy).unwrap();
    assert_eq!(file.dataset("var/unlisted").unwrap().read_raw::<u8>().unwrap(), [4, 2]);
    assert_eq!(file.dataset("obs/unlisted").unwrap().read_raw::<i64>().unwrap(), [0, 0, 0]);
}

#[test]
fn halves_stay_halves_wherever_they_stand() {
    let halves = |n: usize| (0..n).map(|at| f16::from_f32(at as f32 / 4.0 - 1.0)).collect::<Vec<_>>();
    let change = |file: &File| {
        put(&file.group("layers").unwrap(), "half", &[3, 4], &halves(12));
        put(&file.group("obsm").unwrap(), "half", &[3, 2], &halves(6));
        put(&file.group("obs").unwrap(), "half", &[3], &halves(3));
        put(&file.group("uns").unwrap(), "half", &[5], &halves(5));
    };
    check(change, &[1], |file, rows| {
        for (name, width) in [("layers/half", 4), ("obsm/half", 2), ("obs/half", 1)] {
            let all = halves(3 * width);
            let expected: Vec<f16> =
                rows.iter().flat_map(|&row| all[row * width..(row + 1) * width].to_vec()).collect();
            let dataset = file.dataset(name).unwrap();
            assert_eq!((dataset.dtype().unwrap().size(), dataset.read_raw::<f16>().unwrap()), (2, expected), "{name}");
        }
        assert_eq!(file.dataset("uns/half").unwrap().read_raw::<f16>().unwrap(), halves(5));
    });
    let (_folder, [path, copy]) = file_with(change);
    let part = AnnData::read(&path).unwrap();
    let matrix = &part.layers["half"];
    assert_eq!(matrix.dtype(), "float16");
    assert_eq!(matrix.to_csr().unwrap().to_dense(), (0..12).map(|at| at as f32 / 4.0 - 1.0).collect::<Vec<_>>());
    part.select_vars(&[2, 0]).unwrap().write(&copy, Compression::None).unwrap();
    let expected = [2, 0, 6, 4, 10, 8].map(|at| f16::from_f32(at as f32 / 4.0 - 1.0));
    assert_eq!(File::open(&copy).unwrap().dataset("layers/half").unwrap().read_raw::<f16>().unwrap(), expected);
}

/// Receptors of three cells: none, one and two; the second cell's has no sequence.
fn airr(file: &File) {
    let group = file.create_group("obsm/airr").unwrap();
    put_text(&group, "encoding-type", "awkward-array");
    put_text(&group, "encoding-version", "0.1.0");
    let text = |key: &str, inner: &str| {
        format!(
            r#"{{"class":"ListOffsetArray","offsets":"i64","content":{{"class":"NumpyArray","primitive":"uint8",
            "inner_shape":[],"parameters":{{"__array__":"char"}},"form_key":"{inner}"}},
            "parameters":{{"__array__":"string"}},"form_key":"{key}"}}"#
        )
    };
    let form = format!(
        r#"{{"class":"ListOffsetArray","offsets":"i64","content":{{"class":"RecordArray","fields":["locus","seq"],"contents":[
        {},{{"class":"IndexedOptionArray","index":"i64","content":{},"parameters":{{}},"form_key":"node4"}}],
        "parameters":{{}},"form_key":"node1"}},"parameters":{{}},"form_key":"node0"}}"#,
        text("node2", "node3"),
        text("node5", "node6")
    );
    put_text(&group, "form", &form);
    group.new_attr::<i64>().create("length").unwrap().write_scalar(&3_i64).unwrap();
    put(&group, "node0-offsets", &[4], &[0_i64, 0, 1, 3]);
    put(&group, "node2-offsets", &[4], &[0_i64, 3, 6, 9]);
    put(&group, "node3-data", &[9], b"TRATRBIGH");
    put(&group, "node4-index", &[3], &[-1_i64, 0, 1]);
    put(&group, "node5-offsets", &[3], &[0_i64, 2, 5]);
    put(&group, "node6-data", &[5], b"CACAS");
}

#[test]
fn receptors_follow_the_cells() {
    check(airr, &[0, 2], |file, rows| {
        let group = file.group("obsm/airr").unwrap();
        let numbers = |name: &str| group.dataset(name).unwrap().read_raw::<i64>().unwrap();
        let bytes = |name: &str| group.dataset(name).unwrap().read_raw::<u8>().unwrap();
        let length: i64 = group.attr("length").unwrap().read_scalar().unwrap();
        assert_eq!(length as usize, rows.len());
        if rows == [0, 2] {
            assert_eq!(numbers("node0-offsets"), [0, 0, 2]);
            assert_eq!((numbers("node2-offsets"), bytes("node3-data")), (vec![0, 3, 6], b"TRBIGH".to_vec()));
            assert_eq!((numbers("node4-index"), numbers("node5-offsets")), (vec![0, 1], vec![0, 2, 5]));
            assert_eq!(bytes("node6-data"), b"CACAS");
        }
    });
    let (_folder, [path, _]) = file_with(airr);
    let none = AnnData::read(&path).unwrap().select_obs(&[1]).unwrap();
    none.write(&path, Compression::None).unwrap();
    let group = File::open(&path).unwrap().group("obsm/airr").unwrap();
    assert!(
        group.dataset("node6-data").unwrap().read_raw::<u8>().unwrap().is_empty(),
        "no other cell's sequence stays"
    );
}

#[test]
fn buffers_that_do_not_fit_are_refused() {
    let (_folder, [path, copy]) = file_with(|file| {
        airr(file);
        file.unlink("obsm/airr/node0-offsets").unwrap();
        put(&file.group("obsm/airr").unwrap(), "node0-offsets", &[4], &[0_i64, 0, 1, 1 << 40]);
    });
    let refused = AnnData::read(&path).unwrap().select_obs(&[2]).unwrap().write(&copy, Compression::None).unwrap_err();
    assert!(refused.to_string().contains("do not ascend to the end of their content"), "{refused}");
}

#[test]
fn an_index_that_is_a_column_is_written_as_one() {
    let (_folder, [path, copy]) = file_with(|file| {
        for (frame, index) in [("obs", "barcode"), ("var", "symbol")] {
            let frame = file.group(frame).unwrap();
            if !frame.link_exists(index) {
                frame.relink("_index", index).unwrap();
                frame.delete_attr("_index").unwrap();
                put_text(&frame, "_index", index);
            }
            let mut columns: Vec<VarLenUnicode> = frame.attr("column-order").unwrap().read_raw().unwrap();
            columns.push(VarLenUnicode::from_str(index).unwrap());
            frame.delete_attr("column-order").unwrap();
            let order = frame.new_attr::<VarLenUnicode>().shape(columns.len()).create("column-order").unwrap();
            order.write_raw(&columns).unwrap();
        }
    });
    let adata = AnnData::read(&path).unwrap();
    adata.select_obs(&[2, 0]).unwrap().write(&copy, Compression::None).unwrap();
    let read = AnnData::read(&copy).unwrap();
    assert_eq!(read.obs.index_name(), Some("barcode"));
    let expected: Vec<Option<String>> = read.obs_names().iter().cloned().map(Some).collect();
    assert_eq!(read.obs.column("barcode").unwrap().to_strings(), expected);
    // Genes that get other names keep the old ones in the column.
    let names: Vec<Option<String>> = (0..4).map(|i| Some(format!("G{i}"))).collect();
    let renamed = adata.with_gene_names(&names, Default::default()).unwrap();
    renamed.write(&copy, Compression::None).unwrap();
    let read = AnnData::read(&copy).unwrap();
    assert_eq!(read.var_names(), ["G0", "G1", "G2", "G3"]);
    assert_eq!(read.var.column("symbol").unwrap().to_strings()[0].as_deref(), Some("CD3D"));
    // One that differs has no place.
    let mut other = adata;
    other.obs.insert("barcode", Column::text(["x", "y", "z"])).unwrap();
    let refused = other.write(&copy, Compression::None).unwrap_err().to_string();
    assert!(refused.contains("`barcode` is called like the index"), "{refused}");
}

#[test]
fn an_entry_of_uns_that_looks_like_categories_is_left_alone() {
    let (_folder, [path, copy]) = file_with(|file| {
        put(&file.group("uns").unwrap(), "n_counts_categories", &[2], &[1_i64, 2]);
    });
    let adata = AnnData::read(&path).unwrap();
    assert_eq!(adata.obs.column("n_counts").unwrap(), &Column::from(vec![3_i64, 3, 9]));
    adata.write(&copy, Compression::None).unwrap();
    let read = AnnData::read(&copy).unwrap();
    assert!(read == adata && read.uns.contains_key("n_counts_categories"));
}

/// Two modalities with a joint embedding in the root, as muon writes them behind a block of its own.
fn joint(path: &Path) {
    let modality = |genes: [&str; 2]| {
        let x = Csr::from_dense(3, 2, &[1., 0., 0., 2., 3., 4.]).unwrap();
        AnnData::new(x, DataFrame::new(["c1", "c2", "c3"]), DataFrame::new(genes)).unwrap()
    };
    let both = [("rna".to_owned(), modality(["g1", "g2"])), ("prot".to_owned(), modality(["CD3", "CD4"]))];
    MuData { modalities: both.into() }.write(path, Compression::None).unwrap();
    let file = File::open_rw(path).unwrap();
    put(&file.group("obsm").unwrap(), "X_mofa", &[3, 1], &[0.5_f32, 1.5, 2.5]);
    put_text(&file, "encoder", "muon");
    file.close().unwrap();
    let mut bytes = b"MuData (format-version=0.1.0;)".to_vec();
    bytes.resize(512, 0);
    bytes.extend(std::fs::read(path).unwrap());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn modalities_stay_with_what_is_joint_or_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let [path, copy] = ["a.h5mu", "b.h5mu"].map(|name| folder.path().join(name));
    joint(&path);
    let modalities = MuData::read(&path).unwrap();
    let mut adata = AnnData::read(&path).unwrap();
    assert_eq!(adata.beside.modalities().unwrap(), ["prot", "rna"]);
    adata.obsm.insert("X_umap".into(), Array::matrix(3, 2, vec![0.0_f32; 6]).unwrap().into());
    adata.write(&path, Compression::Gzip(1)).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.starts_with(b"MuData (format-version"), "by which muon knows its files");
    assert_eq!(MuData::read(&path).unwrap(), modalities);
    let file = File::open(&path).unwrap();
    let text = |name: &str| file.attr(name).unwrap().read_scalar::<VarLenUnicode>().unwrap().to_string();
    assert_eq!((text("encoding-type"), text("encoder")), ("MuData".to_owned(), "muon".to_owned()));
    assert!(file.link_exists("obsm/X_umap") && file.link_exists("obsmap/rna"));

    let refused = [
        adata.select_obs(&[0, 2]).unwrap_err(),
        adata.select_vars(&[0]).unwrap_err(),
        concat(&[adata.clone(), adata.clone()], archipelago_anndata::Join::Inner).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(&error, Error::Modalities { modalities, .. } if modalities.len() == 2), "{error:?}");
        assert!(error.hint().is_some());
    }
    adata.obs.rename_rows(vec!["x".into(), "y".into(), "z".into()]).unwrap();
    assert!(matches!(adata.write(&copy, Compression::None), Err(Error::Modalities { .. })));
    assert!(!copy.exists());
    assert_eq!(AnnData::read(&path).unwrap().select_obs(&[0, 1, 2]).unwrap().n_obs(), 3);
}

#[test]
fn groups_of_other_programs_stay_with_the_file() {
    let change = |file: &File| {
        let own = file.create_group("somebody-s-own/deep").unwrap();
        put(&own, "values", &[2], &complex(2));
        put_text(file, "written-by", "somebody");
        put_text(&file.group("obs").unwrap(), "note", "x");
        // A link to the same values elsewhere becomes the values.
        file.link_soft("/X/data", "somebody-s-own/link").unwrap();
    };
    check(change, &[1], |file, _| {
        let values = file.dataset("somebody-s-own/deep/values").unwrap();
        assert_eq!(values.read_raw::<Complex>().unwrap(), complex(2));
        assert_eq!(file.dataset("somebody-s-own/link").unwrap().shape(), [5]);
        for (object, name) in [("/", "written-by"), ("obs", "note")] {
            assert!(file.group(object).unwrap().attr(name).is_ok(), "{name}");
        }
    });
}

#[test]
fn a_new_file_is_its_owners_alone_and_one_that_is_replaced_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    everything().write(&path, Compression::None).unwrap();
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    everything().write(&path, Compression::None).unwrap();
    assert_eq!(mode(), 0o640);
}

#[test]
fn counts_in_raw_are_a_layer_with_genes_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    let mut adata = everything();
    adata.write(&path, Compression::None).unwrap();
    let file = H5adFile::open(&path).unwrap();
    let rows = file.rows(Some("raw")).unwrap();
    assert_eq!((rows.n_rows(), rows.n_cols()), (3, 5));
    assert_eq!(file.genes(Some("raw")).unwrap().index()[4], "g4");
    assert_eq!(file.genes(None).unwrap().index().len(), 4);
    let fraction = Error::NotCounts { cell_row: 0, gene: "g".into(), value: 0.5, counted: vec![] };
    let hint = file.advise(fraction).hint().unwrap();
    assert!(hint.contains("`--layer raw`") && hint.contains("`--layer dense`"), "{hint}");
    // A layer of that name comes first.
    adata.layers.insert("raw".into(), adata.x.clone().unwrap());
    adata.write(&path, Compression::None).unwrap();
    assert_eq!(H5adFile::open(&path).unwrap().rows(Some("raw")).unwrap().n_cols(), 4);
}
