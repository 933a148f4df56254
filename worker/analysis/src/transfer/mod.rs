//! Labels of reference cells handed to query cells through their nearest neighbours.
//!
//! [`vote`] is the plain majority of scikit-learn's classifier; [`weighted`] is the distance-weighted transfer of scArches
//! with an uncertainty per cell. Both take the neighbours as found, so sites may search their own reference cells and
//! merge the lists first.

mod vote;
mod weighted;

pub use vote::vote;
pub use weighted::{Transfer, UNKNOWN, Unknown, neighbour_weights, true_label_uncertainty, weighted};

use crate::neighbours::Neighbours;
use crate::{AnalysisError, Result};

/// The label columns meant by a key: every column whose name starts with it, so that `ann_level_` means all levels.
pub fn matching_columns<'a, S: AsRef<str>>(columns: &'a [S], key: &str) -> Vec<&'a str> {
    columns.iter().map(S::as_ref).filter(|column| column.starts_with(key)).collect()
}

/// Refuses neighbour rows beyond the reference's labels: the two would belong to different tables.
fn check_rows(neighbours: &Neighbours, n_reference: usize) -> Result<()> {
    let highest = neighbours.iter().flat_map(|(rows, _)| rows).max();
    match highest {
        Some(&row) if row as usize >= n_reference => Err(AnalysisError::Length {
            what: "the reference's label column",
            found: n_reference,
            expected: row as usize + 1,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_matches_by_prefix() {
        let columns = ["ann_level_1", "cell_type", "ann_level_2", "cell_type_fine"];
        assert_eq!(matching_columns(&columns, "ann_level_"), ["ann_level_1", "ann_level_2"]);
        assert_eq!(matching_columns(&columns, "cell_type"), ["cell_type", "cell_type_fine"]);
    }
}
