//! Agreement of two partitions of the same cells.

use std::collections::BTreeMap;

use crate::{AnalysisError, Result};

/// How the entropies of both partitions are averaged to normalise their mutual information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NmiAverage {
    /// Half their sum: the usual choice.
    Arithmetic,
    /// Root of their product.
    Geometric,
    /// The smaller.
    Min,
    /// The larger.
    Max,
}

/// Normalised mutual information, 0 to 1; 1 when both partitions are a single group.
///
/// # Errors   partitions of different numbers of cells
/// # Source   `normalized_mutual_info_score` of scikit-learn
pub fn nmi(a: &[u32], b: &[u32], average: NmiAverage) -> Result<f64> {
    let table = Contingency::new(a, b)?;
    if table.rows.len() <= 1 && table.columns.len() <= 1 {
        return Ok(1.0);
    }
    let total = a.len() as f64;
    let information: f64 = table
        .cells
        .iter()
        .map(|(&(row, column), &count)| {
            let joint = count as f64 / total;
            let expected = (table.rows[&row] as f64 / total) * (table.columns[&column] as f64 / total);
            joint * (joint / expected).ln()
        })
        .sum();
    if information <= f64::EPSILON {
        return Ok(0.0);
    }
    let entropy = |sizes: &BTreeMap<u32, u64>| -> f64 {
        sizes.values().map(|&size| size as f64 / total).map(|share| -share * share.ln()).sum()
    };
    let (h_a, h_b) = (entropy(&table.rows), entropy(&table.columns));
    let normaliser = match average {
        NmiAverage::Arithmetic => (h_a + h_b) / 2.0,
        NmiAverage::Geometric => (h_a * h_b).sqrt(),
        NmiAverage::Min => h_a.min(h_b),
        NmiAverage::Max => h_a.max(h_b),
    };
    Ok(information / normaliser.max(f64::EPSILON))
}

/// Rand index adjusted for chance: 1 for equal partitions, about 0 for unrelated ones.
///
/// # Errors   partitions of different numbers of cells
/// # Source   `adjusted_rand_score` of scikit-learn
pub fn ari(a: &[u32], b: &[u32]) -> Result<f64> {
    let table = Contingency::new(a, b)?;
    let squares = |sizes: &mut dyn Iterator<Item = &u64>| sizes.map(|&size| (size as f64).powi(2)).sum::<f64>();
    let total = a.len() as f64;
    let (in_both, in_a, in_b) =
        (squares(&mut table.cells.values()), squares(&mut table.rows.values()), squares(&mut table.columns.values()));
    // Ordered pairs of distinct cells: together in both, only in one, in neither.
    let together = in_both - total;
    let (only_a, only_b) = (in_a - in_both, in_b - in_both);
    let apart = total * total - only_a - only_b - in_both;
    if only_a == 0.0 && only_b == 0.0 {
        return Ok(1.0);
    }
    let numerator = 2.0 * (together * apart - only_a * only_b);
    Ok(numerator / ((together + only_a) * (only_a + apart) + (together + only_b) * (only_b + apart)))
}

/// Sizes of the groups and of their intersections; ordered, so that sums do not depend on hashing.
struct Contingency {
    cells: BTreeMap<(u32, u32), u64>,
    rows: BTreeMap<u32, u64>,
    columns: BTreeMap<u32, u64>,
}

impl Contingency {
    fn new(a: &[u32], b: &[u32]) -> Result<Self> {
        if a.len() != b.len() {
            return Err(AnalysisError::Length { what: "the second partition", found: b.len(), expected: a.len() });
        }
        let mut table = Self { cells: BTreeMap::new(), rows: BTreeMap::new(), columns: BTreeMap::new() };
        for (&row, &column) in a.iter().zip(b) {
            *table.cells.entry((row, column)).or_default() += 1;
            *table.rows.entry(row).or_default() += 1;
            *table.columns.entry(column).or_default() += 1;
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_groups_agree_fully() {
        let (a, b) = ([0, 0, 1, 1, 2], [7, 7, 3, 3, 0]);
        assert!((nmi(&a, &b, NmiAverage::Arithmetic).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(ari(&a, &b).unwrap(), 1.0);
    }

    #[test]
    fn a_single_group_says_nothing_about_two() {
        assert_eq!(nmi(&[0, 0, 0, 0], &[0, 0, 1, 1], NmiAverage::Arithmetic).unwrap(), 0.0);
        assert_eq!(ari(&[0, 0, 0, 0], &[0, 0, 1, 1]).unwrap(), 0.0);
        assert_eq!(nmi(&[0, 0], &[1, 1], NmiAverage::Max).unwrap(), 1.0);
    }

    #[test]
    fn partitions_of_different_cells_are_refused() {
        assert!(ari(&[0], &[0, 1]).is_err());
    }
}
