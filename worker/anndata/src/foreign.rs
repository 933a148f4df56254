//! What a file is that is no h5ad file: the formats that hospitals have at hand, each known by how it begins or what it holds.

use std::{fs::File, io::Read as _, path::Path};

use hdf5::Group;

use crate::{Error, h5};

/// A format, and how it becomes an h5ad file.
struct Format {
    what: &'static str,
    advice: &'static str,
}

/// The format of a folder, or of a file that is not HDF5, where it is known.
pub(crate) fn of_path(path: &Path) -> Option<Error> {
    let format = if path.is_dir() { of_folder(path)? } else { of_beginning(path)? };
    Some(error(path, &format))
}

/// The format of an HDF5 file that holds no data set, by the members of its root, where it is known.
pub(crate) fn of_root(root: &Group) -> Option<Error> {
    let names = h5::names(root).ok()?;
    let has = |name: &str| names.iter().any(|known| known == name);
    let format = if has("row_attrs") && has("col_attrs") {
        Format { what: "a loom file", advice: "scanpy.read_loom(path).write_h5ad(copy)" }
    } else if has("molecule_info") || (has("barcode_idx") && has("umi")) {
        let advice = "use the file `filtered_feature_bc_matrix.h5` beside it, which is read as it is";
        Format { what: "a 10x file of molecules (Cell Ranger)", advice }
    } else if has("assays") && has("cell.names") {
        let advice = "in R: SeuratDisk::Convert(path, dest = \"h5ad\")";
        Format { what: "a Seurat file (h5Seurat)", advice }
    } else {
        return None;
    };
    Some(error(Path::new(&root.filename()), &format))
}

fn error(path: &Path, format: &Format) -> Error {
    Error::OtherFormat { path: path.to_owned(), format: format.what, advice: format.advice }
}

fn of_folder(path: &Path) -> Option<Format> {
    let has = |name: &str| path.join(name).exists();
    if has(".zattrs") || has(".zgroup") || has("zarr.json") {
        return Some(Format { what: "a zarr store", advice: "anndata.read_zarr(path).write_h5ad(copy)" });
    }
    None
}

/// By the first bytes, and by the name where they say too little.
fn of_beginning(path: &Path) -> Option<Format> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(BEGINNING).read_to_end(&mut bytes)).ok()?;
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let named = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    const R: Format = Format { what: "a file of R", advice: "in R: anndataR::write_h5ad(readRDS(path), copy)" };
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    Some(if begins(b"\x1f\x8b") {
        match () {
            () if named(&[".rds", ".rda", ".rdata", ".robj"]) => R,
            () if named(&[".mtx.gz"]) => MTX,
            () if named(&[".csv.gz", ".tsv.gz", ".txt.gz"]) => TEXT,
            () => Format {
                what: "compressed as a whole (gzip)",
                advice: "gzip.open(path)` read into a file, or `gunzip` in a shell; for counts as text `scanpy.read(path)",
            },
        }
    } else if begins(b"PK\x03\x04") {
        let what = if named(&[".zarr.zip"]) { "a zarr store in a zip file" } else { "a zip file" };
        Format { what, advice: "zipfile.ZipFile(path).extractall(folder)" }
    } else if begins(b"RDX") || begins(b"X\n\0\0\0") || begins(b"BZh") && named(&[".rds"]) {
        R
    } else if begins(b"%%MatrixMarket") {
        MTX
    } else if named(&[".csv", ".tsv", ".txt", ".tab"]) && is_text(&bytes) {
        TEXT
    } else {
        return None;
    })
}

const MTX: Format =
    Format { what: "a matrix as text (MatrixMarket)", advice: "scanpy.read_10x_mtx(folder_of_path).write_h5ad(copy)" };
const TEXT: Format = Format { what: "a table as text", advice: "scanpy.read_csv(path).write_h5ad(copy)" };
/// Bytes that are looked at.
const BEGINNING: u64 = 512;

fn is_text(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| b >= b' ' || matches!(b, b'\n' | b'\r' | b'\t'))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check(name: &str, bytes: &[u8], word: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let found = of_path(&path).map(|error| error.to_string());
        assert_eq!(
            found.as_deref().map(|text| text.contains(word.unwrap_or_default())),
            word.map(|_| true),
            "{found:?}"
        );
    }

    #[test]
    fn files_are_known_by_how_they_begin() {
        check("a.h5ad", b"\x1f\x8b\x08\0", Some("gzip"));
        check("a.rds", b"\x1f\x8b\x08\0", Some("of R"));
        check("a.h5ad", b"PK\x03\x04", Some("zip"));
        check("a.mtx", b"%%MatrixMarket matrix", Some("MatrixMarket"));
        check("a.csv", b"cell,gene\n", Some("table as text"));
        check("a.h5ad", b"cell,gene\n", None);
    }

    #[test]
    fn folders_are_known_by_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        assert!(of_path(folder.path()).is_none());
        fs::write(folder.path().join("zarr.json"), "").unwrap();
        assert!(of_path(folder.path()).unwrap().to_string().contains("zarr"));
    }
}
