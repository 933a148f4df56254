//! Python's anndata and scanpy open what we write, and we read what they write.

use std::process::Command;

use archipelago_anndata::{AnnData, Compression};

use crate::{example::everything, skipped};

#[test]
fn python_opens_our_files_and_we_open_its() {
    let Some(python) = std::env::var_os("ARCHIPELAGO_PYTHON") else {
        skipped("set ARCHIPELAGO_PYTHON to a python that has anndata and scanpy");
        return;
    };
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
