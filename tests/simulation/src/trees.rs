//! What sites contribute to a tree, without cells: machines and counts that are a pure function of base and keys.

use std::{collections::BTreeMap, sync::Arc};

use archipelago_common::{
    ConditionKey, Digest, Layout, Name, Section, SiteId,
    part::Member,
    tree::{self, Machines, counts},
};

use crate::training;

/// The data set of a site, whose machines and counts it hands in.
pub(crate) fn data_set(site: &SiteId) -> ConditionKey {
    format!("{site}/lung/tree").parse().expect("a sound key")
}

/// The key of a site's machines.
pub(crate) fn machines_key(site: &SiteId) -> ConditionKey {
    data_set(site).in_section(Section::Part(tree::MACHINES.parse().expect("a sound name")))
}

/// The key of what one site counts by the machines of another.
pub(crate) fn counts_key(base: &Digest, site: &SiteId, other: &SiteId) -> ConditionKey {
    let (machines, _) = training::named(machines(base, other));
    counts::key(&data_set(site), tree::COUNTS, &machines).expect("the names of sites are short")
}

/// The machines of a site, as their file. Places are such that keys alone would order the sites otherwise.
pub(crate) fn machines(base: &Digest, site: &SiteId) -> Arc<[u8]> {
    let (n, _) = training::counted(base, &data_set(site));
    let weights = types_of(base, site).iter().map(|label| ((*label).to_owned(), vec![n as f64, -1.0]));
    let machines = Machines { place: u64::MAX / 4 - n, types: weights.collect(), components: None };
    Member::Tensors(machines.to_tensors()).to_bytes().into()
}

/// What a site counts by the machines of another, as its file: types of one name are the same.
pub(crate) fn counted(base: &Digest, site: &SiteId, other: &SiteId) -> Arc<[u8]> {
    let known = types_of(base, other);
    let mut pool = counts::empty();
    for label in types_of(base, site) {
        let found = known.contains(label).then_some(*label);
        pool.add(&counts::entry(label, found), counts::N, 0, 40.0).expect("a small number fits");
    }
    Member::Sums(pool).to_bytes().into()
}

/// The tree of a version that holds these keys, as its file.
pub(crate) fn tree<'a>(layout: &Layout, base: &Digest, keys: impl Iterator<Item = &'a ConditionKey>) -> Arc<[u8]> {
    let keys: Vec<&ConditionKey> = keys.filter(|key| key.is_part()).collect();
    let sites: Vec<&SiteId> =
        keys.iter().filter(|key| **key == &machines_key(key.owner())).map(|key| key.owner()).collect();
    let mut files: BTreeMap<ConditionKey, Arc<[u8]>> = BTreeMap::new();
    for site in &sites {
        files.insert(machines_key(site), machines(base, site));
        for other in sites.iter().filter(|other| *other != site) {
            files.insert(counts_key(base, site, other), counted(base, site, other));
        }
    }
    files.retain(|key, _| keys.contains(&key));
    let member = |(key, bytes): (ConditionKey, Arc<[u8]>)| {
        Some((key.clone(), Member::from_bytes(layout.rule(key.section())?, &bytes).ok()?))
    };
    tree::derive(&files.into_iter().filter_map(member).collect()).unwrap_or_default().into()
}

/// The value that is derived.
pub(crate) fn value() -> Name {
    tree::VALUE.parse().expect("a sound name")
}

fn types_of(base: &Digest, site: &SiteId) -> &'static [&'static str] {
    let (n, _) = training::counted(base, &data_set(site));
    [&["B", "T"][..], &["B", "NK"], &["B", "T", "odd"], &["NK", "T"]][n as usize % 4]
}
