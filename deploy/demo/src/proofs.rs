//! The claims of exact federation, checked on what the run produced.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use archipelago_common::{
    BlobRef, ConditionKey, Version, VersionId,
    record::{Cause, ReferenceRecord},
};
use serde::Serialize;

/// What was proven; each field is computed, none is assumed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Exact {
    /// Merging the sites' columns in every order gives one version id, the one the coordinators arrived at.
    pub order_free: bool,
    /// Number of orders that were tried.
    pub orders_tried: usize,
    /// The embeddings of all earlier conditions have the same bits before and after the merge.
    pub earlier_bit_identical: bool,
    /// Number of cells whose embeddings were compared.
    pub cells_compared: usize,
    /// After withdrawing the last site, the coordinators are back at the earlier version id.
    pub withdraw_restores: bool,
    /// Repeating each site's surgery in another process, without a coordinator, gives the columns that the site sent.
    pub repeatable: bool,
}

/// Columns that one site added.
pub type Contribution = BTreeMap<ConditionKey, BlobRef>;

/// The first version of a reference and what each merge added to it, in the order in which it happened.
pub fn contributions(reference: &ReferenceRecord) -> Result<(Version, Vec<Contribution>)> {
    let Some(first) = reference.lineage.first() else { bail!("reference `{}` has no version", reference.name) };
    let version = |id: &VersionId| {
        reference.versions.get(id).ok_or_else(|| anyhow::anyhow!("version {} is missing", id.0.short()))
    };
    let mut added = Vec::new();
    for event in &reference.lineage {
        if let Cause::Merged { keys, .. } = &event.cause {
            let columns = &version(&event.version)?.columns;
            added.push(keys.iter().filter_map(|key| Some((key.clone(), *columns.get(key)?))).collect());
        }
    }
    Ok((version(&first.version)?.clone(), added))
}

/// Merges the contributions in every order (for more than seven, in 5,040 of them) and returns whether all of them end
/// at `expected`, and how many orders there were.
pub fn order_free(first: &Version, contributions: &[Contribution], expected: VersionId) -> Result<(bool, usize)> {
    let orders = orders(contributions.len());
    for order in &orders {
        let mut version = first.clone();
        for &site in order {
            version = version.merged(&contributions[site])?;
        }
        if version.id() != expected {
            return Ok((false, orders.len()));
        }
    }
    Ok((true, orders.len()))
}

/// All orders of so many things; of more than seven, 5,040.
pub fn orders(n: usize) -> Vec<Vec<usize>> {
    const MOST_ORDERS: usize = 5_040;
    let mut orders = Vec::new();
    permutations(&mut (0..n).collect(), 0, &mut orders, MOST_ORDERS);
    orders
}

fn permutations(items: &mut Vec<usize>, from: usize, found: &mut Vec<Vec<usize>>, most: usize) {
    if from == items.len() {
        found.push(items.clone());
        return;
    }
    for i in from..items.len() {
        if found.len() == most {
            return;
        }
        items.swap(from, i);
        permutations(items, from + 1, found, most);
        items.swap(from, i);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contribution(site: usize) -> Contribution {
        BTreeMap::from([(format!("s{site}/d/b").parse().unwrap(), BlobRef::of(&[site as u8]))])
    }

    #[test]
    fn all_orders_are_tried_and_a_wrong_end_is_noticed() {
        let first = Version { base: BlobRef::of(b"base"), columns: BTreeMap::new() };
        let sites: Vec<_> = (0..4).map(contribution).collect();
        let end = sites.iter().fold(first.clone(), |v, c| v.merged(c).unwrap());
        assert_eq!(order_free(&first, &sites, end.id()).unwrap(), (true, 24));
        assert_eq!(order_free(&first, &sites, first.id()).unwrap(), (false, 24));
    }
}
