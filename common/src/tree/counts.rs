//! What cells are to the machines of others, or to a tree, as a pool: an entry for each pair of labels, with its cells.

use archipelago_hierarchy::{CountTable, ROOT};

use super::name;
use crate::{
    blob::BlobRef,
    condition::{ConditionKey, Section},
    error::{Error, Result},
    pool::{Pool, TableSpec, TableSpecs},
};

/// What the tables of an entry look like: a number of cells.
pub fn tables() -> TableSpecs {
    TableSpecs::from([(N.to_owned(), TableSpec::counts(&[]))])
}

/// A pool without cells.
pub fn empty() -> Pool {
    Pool::new(tables())
}

/// Counts a cell of an own label that was found to be of another, or of none.
///
/// # Errors  [`Error::InvalidValue`] for more cells than can be counted
pub fn add(pool: &mut Pool, own: &str, found: Option<&str>) -> Result<()> {
    pool.add(&entry(own, found), N, 0, 1.0)
}

/// The name of the entry of a pair of labels.
pub fn entry(own: &str, found: Option<&str>) -> String {
    format!("{own}{BETWEEN}{}", found.unwrap_or_default())
}

/// The key under which the counts of a data set by these machines stand, or by the tree of this digest.
///
/// # Errors  [`Error::InvalidName`] for a batch whose name is too long to have a digest behind it
pub fn key(condition: &ConditionKey, part: &str, by: &BlobRef) -> Result<ConditionKey> {
    let batch = format!("{}{BY}{}", condition.batch(), by.digest.short());
    let key = ConditionKey::new(condition.owner().clone(), condition.dataset().clone(), batch)?;
    Ok(key.in_section(Section::Part(name(part))))
}

/// The data set that counted under a key, and the beginning of the digest of what it counted by.
pub fn read_key(key: &ConditionKey) -> Option<(ConditionKey, &str)> {
    let (batch, by) = key.batch().rsplit_once(BY)?;
    Some((ConditionKey::new(key.owner().clone(), key.dataset().clone(), batch).ok()?, by))
}

/// The pool as a table, own labels in rows; what was found to be of no label stands under [`ROOT`].
///
/// # Errors  [`Error::Decode`] for entries that are no pairs of labels, and for numbers that are none of cells
pub fn table(pool: &Pool) -> Result<CountTable> {
    let refuse = |detail: String| Error::Decode { what: "counts of a tree", detail };
    let mut rows = Vec::new();
    for entry in pool.entries() {
        let Some((own, found)) = entry.split_once(BETWEEN).filter(|(own, _)| !own.is_empty()) else {
            return Err(refuse(format!("entry `{entry}` names no pair of labels")));
        };
        let n_cells = pool.table(entry, N).and_then(|table| table.to_f64().first().copied()).unwrap_or_default();
        if !(0.0..=MOST_CELLS).contains(&n_cells) {
            return Err(refuse(format!("`{own}` has {n_cells} cells that are `{found}`")));
        }
        rows.push((own, if found.is_empty() { ROOT } else { found }, n_cells as u64));
    }
    CountTable::of_counts(rows.into_iter()).map_err(|error| refuse(error.to_string()))
}

/// The table of an entry.
pub const N: &str = "n";
/// Between a batch and the digest of what counted its cells.
const BY: char = '~';
/// Between the labels of a pair; no file has it in a label.
const BETWEEN: char = '\u{1f}';
/// Up to here a 64-bit float tells whole numbers apart.
const MOST_CELLS: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_labels_come_back_and_a_negative_count_is_refused() {
        let mut pool = empty();
        for (own, found) in [("T/NK", Some("T")), ("T/NK", None), ("T/NK", Some("T"))] {
            add(&mut pool, own, found).unwrap();
        }
        let read = table(&Pool::from_bytes(&pool.to_bytes()).unwrap()).unwrap();
        assert_eq!((read.count("T/NK", "T"), read.count("T/NK", ROOT), read.n_cells()), (2, 1, 3));
        pool.add(&entry("B", None), N, 0, -2.0).unwrap();
        assert!(table(&pool).unwrap_err().to_string().contains("`B` has -2 cells"));
    }

    #[test]
    fn a_key_says_by_what_was_counted() {
        let condition: ConditionKey = "north/pbmc/10x".parse().unwrap();
        let by = BlobRef::of(b"machines");
        let key = key(&condition, super::super::COUNTS, &by).unwrap();
        assert_eq!(key.to_string(), format!("north/pbmc+tree-counts/10x~{}", by.digest.short()));
        assert_eq!(read_key(&key), Some((condition, &*by.digest.short())));
        let long = ConditionKey::new("n".parse().unwrap(), "d".parse().unwrap(), "x".repeat(120)).unwrap();
        assert!(super::key(&long, super::super::COUNTS, &by).is_err());
    }
}
