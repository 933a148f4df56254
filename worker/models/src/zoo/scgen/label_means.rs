//! How many cells of each type there are and where they lie: what a reference lends to those who map onto it, and what sites
//! contribute.
//!
//! A member of the part holds, for each type of one condition's cells, their number and the sum of their latent states as the
//! encoder gives them, before anything moves. It is a function of the cells and the network alone, and adds up exactly.

use std::collections::BTreeMap;

use archipelago_common::{
    ConditionKey,
    layout::Rule,
    part::{Contribution, Member},
    pool::{Pool, TableSpec, TableSpecs},
};
use ndarray::{Array1, ArrayView2};

use super::arithmetic::{GroupMean, Means};
use crate::error::{Error, Result};

/// Name of the part.
pub const PART: &str = "label-means";
/// Name of what follows from it: the sums over all members.
pub(super) const TOTALS: &str = "label-totals";
const N: &str = "n";
const SUM: &str = "sum";

/// How members are put together.
pub(super) fn rule(n_latent: usize) -> Rule {
    Rule::Pool { tables: tables(n_latent) }
}

fn tables(n_latent: usize) -> TableSpecs {
    BTreeMap::from([(N.to_owned(), TableSpec::counts(&[])), (SUM.to_owned(), TableSpec::sums(&[n_latent]))])
}

/// What cells contribute: their latent states, `[n_cells, n_latent]`, with each cell's position among all of the data set and its
/// type.
///
/// # Errors  [`Error::Common`] for a state that is NaN, infinite or out of a pool's range
pub fn contribution<'a>(
    latent: ArrayView2<'_, f32>,
    cells: impl IntoIterator<Item = (usize, &'a str)>,
) -> Result<Contribution> {
    let mut pool = Pool::new(tables(latent.ncols()));
    let mut cells_of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (row, (cell, label)) in latent.rows().into_iter().zip(cells) {
        pool.add(label, N, 0, 1.0)?;
        row.iter().enumerate().try_for_each(|(place, &value)| pool.add(label, SUM, place, value.into()))?;
        cells_of.entry(label.to_owned()).or_default().push(cell);
    }
    let part = PART.parse().expect("the part's name is one");
    Ok(Contribution { part, value: Member::Sums(pool), cells: cells_of })
}

/// The means that members stand for, each condition a group.
///
/// # Errors  [`Error::Value`] for an entry without a cell
pub fn means<'a>(members: impl Iterator<Item = (&'a ConditionKey, &'a Member)>) -> Result<Means> {
    let mut means = Means::new();
    for (key, pool) in members.filter_map(|(key, member)| Some((key, member.as_sums()?))) {
        for label in pool.entries() {
            means.entry(label.to_owned()).or_default().insert(key.to_string(), mean(key, pool, label)?);
        }
    }
    Ok(means)
}

/// Number and mean of the cells of one type in a pool.
///
/// # Errors  [`Error::Value`] for an entry without a cell
pub(super) fn mean(of: impl std::fmt::Display, pool: &Pool, label: &str) -> Result<GroupMean> {
    let values = |table| pool.table(label, table).map(|table| table.to_f64()).unwrap_or_default();
    let n_cells = values(N).first().copied().unwrap_or_default();
    if n_cells < 1.0 {
        let (part, found) = (format!("{of}"), format!("{n_cells} cells of `{label}`"));
        return Err(Error::Value { part, found, expected: "at least one".to_owned() });
    }
    Ok(GroupMean { n_cells: n_cells as u64, mean: Array1::from(values(SUM)) / n_cells })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn member(latent: ArrayView2<'_, f32>, labels: &[&str]) -> Member {
        contribution(latent, labels.iter().copied().enumerate()).unwrap().value
    }

    #[test]
    fn what_is_contributed_comes_back_as_means_by_type_and_condition() {
        let key: ConditionKey = "a/d+label-means/x".parse().unwrap();
        let given = member(array![[1.0, 0.0], [2.0, 0.5], [9.0, 9.0]].view(), &["T/NK", "T/NK", "B"]);
        let read = Member::from_bytes(&rule(2), &given.to_bytes()).unwrap();
        let means = means([(&key, &read)].into_iter()).unwrap();
        let of = |label: &str| means[label]["a/d+label-means/x"].clone();
        assert_eq!(of("T/NK"), GroupMean { n_cells: 2, mean: array![1.5, 0.25] });
        assert_eq!(of("B"), GroupMean { n_cells: 1, mean: array![9.0, 9.0] });
    }

    #[test]
    fn cells_are_told_by_their_positions_and_what_is_no_number_is_refused() {
        let given = contribution(array![[1.0], [2.0], [3.0]].view(), [(4, "T"), (7, "B"), (9, "T")]).unwrap();
        assert_eq!(given.cells, BTreeMap::from([("B".to_owned(), vec![7]), ("T".to_owned(), vec![4, 9])]));
        let refused = contribution(array![[f32::NAN]].view(), [(0, "T")]).unwrap_err().to_string();
        assert!(refused.contains("NaN"), "{refused}");
    }

    #[test]
    fn an_entry_without_cells_is_refused() {
        let mut pool = Pool::new(tables(1));
        pool.add("T", SUM, 0, 3.0).unwrap();
        let key: ConditionKey = "a/d+label-means/x".parse().unwrap();
        let refused = means([(&key, &Member::Sums(pool))].into_iter()).unwrap_err().to_string();
        assert_eq!(refused, "`a/d+label-means/x` holds 0 cells of `T`, expected at least one");
    }
}
