//! Python's anndata and scanpy open what we write, and we read what they write.

use std::{ffi::OsString, process::Command};

use archipelago_anndata::{AnnData, Compression, Csr, DataFrame, MuData};

use crate::{example::everything, skipped};

/// The Python to ask; without one the test says what it would need.
fn python_with(packages: &str) -> Option<OsString> {
    let python = std::env::var_os("ARCHIPELAGO_PYTHON");
    if python.is_none() {
        skipped(&format!("set ARCHIPELAGO_PYTHON to a python that has {packages}"));
    }
    python
}

#[test]
fn python_opens_our_files_and_we_open_its() {
    let Some(python) = python_with("anndata and scanpy") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (written, rewritten) = (folder.path().join("written.h5ad"), folder.path().join("rewritten.h5ad"));
    for compression in [Compression::None, Compression::Gzip(6)] {
        everything().write(&written, compression).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/h5ad/check.py");
        let run = Command::new(&python).arg(script).arg(&written).arg(&rewritten).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let (mut read, expected) = (AnnData::read(&rewritten).unwrap(), everything());
        // anndata turns text with repeats into categories when it writes.
        let site = expected.obs.column("site").unwrap();
        assert_eq!(read.obs.column("site").unwrap().to_strings(), site.to_strings());
        read.obs.insert("site", site.clone()).unwrap();
        assert_eq!(read, expected);
    }
}

#[test]
fn python_opens_our_modalities_and_we_open_its() {
    let Some(python) = python_with("mudata") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (written, rewritten) = (folder.path().join("written.h5mu"), folder.path().join("rewritten.h5mu"));
    let modality = |cells: &[&str], features: [&str; 2], counts: &[f32]| {
        let counts = Csr::from_dense(cells.len(), 2, counts).unwrap();
        AnnData::new(counts, DataFrame::new(cells.iter().copied()), DataFrame::new(features)).unwrap()
    };
    let rna = modality(&["c1", "c2", "c3"], ["g1", "g2"], &[1.0, 0.0, 0.0, 2.0, 3.0, 4.0]);
    let prot = modality(&["c2", "c1"], ["CD3", "CD4"], &[5.0, 6.0, 7.0, 8.0]);
    let ours = MuData { modalities: [("rna".to_owned(), rna), ("prot".to_owned(), prot)].into() };
    ours.write(&written, Compression::Gzip(6)).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/h5ad/check_mudata.py");
    let run = Command::new(&python).arg(script).arg(&written).arg(&rewritten).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(MuData::read(&rewritten).unwrap(), ours);
}
