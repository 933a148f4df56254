//! GMT files of gene sets, read within bounds.

use std::path::Path;

use archipelago_common::fs;

use crate::error::{Error, Result};

/// The text of a file whose sets are to be read against so many genes.
///
/// A set takes a byte per gene, however short its line: two letters and a hundred thousand genes.
///
/// # Errors  [`Error::ConfigFile`] if it cannot be read, [`Error::Config`] if it is not text or has too many sets
pub(crate) fn read(path: &Path, n_genes: usize) -> Result<String> {
    let unread = |source| Error::ConfigFile { path: path.into(), source };
    let refuse = |detail: String| Error::Config { path: path.into(), detail };
    let bytes = fs::read_bounded(path, FILE_BYTES).map_err(unread)?;
    let text = String::from_utf8(bytes).map_err(|_| refuse("it is not UTF-8 text".to_owned()))?;
    let n_sets = text.lines().count();
    if n_sets.saturating_mul(n_genes) > MOST_MEMBERS {
        return Err(refuse(format!("{n_sets} sets of {n_genes} genes are more than fit into memory")));
    }
    Ok(text)
}

/// The largest public collections of gene sets are some tens of megabytes.
const FILE_BYTES: u64 = 256 << 20;
/// Sets times genes: all of MSigDB on all genes of an annotation.
const MOST_MEMBERS: usize = 4 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_lines_are_refused_before_memory_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sets.gmt");
        std::fs::write(&path, "A\n".repeat(100_000)).unwrap();
        assert!(read(&path, 60_000).unwrap_err().to_string().contains("100000 sets of 60000 genes"));
        assert_eq!(read(&path, 40_000).unwrap().lines().count(), 100_000);
        std::fs::write(&path, b"A\xff").unwrap();
        assert!(read(&path, 1).unwrap_err().to_string().contains("not UTF-8"));
    }
}
