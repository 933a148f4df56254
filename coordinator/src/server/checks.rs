//! What the leader reads in blobs before it proposes a command that names them.

use std::{collections::BTreeMap, io::Read, sync::Arc};

use archipelago_cluster::mutation::{self, Rule};
use archipelago_common::{
    BaseCard, BlobRef, Columns, ConditionKey, Layout, Section, TensorKind, Version, check,
    layout::{Derivation, Rule as PartRule},
    limits,
    part::{self, Member},
    pool::Pool,
    record::BaseSummary,
    tree::Machines,
};
use archipelago_protocol::message::Refusal;

use super::refusal;
use crate::{
    blob::{BlobStore, replicate::Replicas},
    error::{Error, Result as CoordinatorResult},
};

/// Refuses unless all of these blobs are durable on a majority. What is missing on this node is fetched first: it may
/// have been uploaded to the leader before.
pub(super) async fn require_durable(replicas: &Replicas, blobs: Vec<BlobRef>) -> Result<(), Refusal> {
    let mut missing = Vec::new();
    for blob in blobs {
        match durable(replicas, blob).await {
            Ok(()) => {}
            Err(Error::NoBlob { .. }) => missing.push(blob),
            Err(error) => return Err(refusal::of(&error)),
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Refusal::MissingBlobs { blobs: missing }) }
}

async fn durable(replicas: &Replicas, blob: BlobRef) -> CoordinatorResult<()> {
    if !tokio::task::block_in_place(|| replicas.store().hold(&blob)) {
        replicas.fetch(blob).await?;
    }
    replicas.ensure_majority(blob).await
}

/// Where blobs can be read: this node's store, or the simulation's.
pub trait Shelf {
    /// Opens a blob, to read its beginning.
    ///
    /// # Errors  [`Error::NoBlob`]
    fn open(&self, blob: BlobRef) -> CoordinatorResult<Box<dyn Read>>;

    /// Reads a whole small blob and verifies it.
    ///
    /// # Errors  [`Error::NoBlob`]; [`Error::Damaged`]; [`Error::Common`] if it is larger than `limit`
    fn read_whole(&self, blob: BlobRef, limit: u64) -> CoordinatorResult<Vec<u8>>;
}

impl Shelf for Arc<BlobStore> {
    fn open(&self, blob: BlobRef) -> CoordinatorResult<Box<dyn Read>> {
        Ok(Box::new(self.read(blob, 0)?))
    }

    fn read_whole(&self, blob: BlobRef, limit: u64) -> CoordinatorResult<Vec<u8>> {
        BlobStore::read_whole(self, blob, limit)
    }
}

/// Reads the card of a version's base and checks every condition's columns against it.
pub(super) fn reference(shelf: &dyn Shelf, version: &Version) -> Result<(BaseSummary, Layout), Refusal> {
    let read = || -> CoordinatorResult<BaseCard> { Ok(BaseCard::read(&mut shelf.open(version.base)?)?) };
    let card = read().map_err(|error| refusal::of(&error))?;
    if card.is_approximate() {
        let reason = format!("its base came from surgery that is {}; it stands alone", BaseCard::APPROXIMATE.1);
        return Err(Refusal::Invalid { reason });
    }
    let summary = BaseSummary::from(&card);
    let conditions = version.columns.iter().map(|(key, blob)| (key, *blob));
    members(shelf, conditions, &card.layout, limits::COLUMN_NORM)?;
    Ok((summary, card.layout))
}

/// Checks the files of keys against what the layout says of them: columns, and members of parts.
pub(super) fn members<'a>(
    shelf: &dyn Shelf,
    members: impl Iterator<Item = (&'a ConditionKey, BlobRef)>,
    layout: &Layout,
    max_norm: f64,
) -> Result<(), Refusal> {
    let layout = if mutation::is_broken(Rule::FactsStay) { &facts_as_weights(layout) } else { layout };
    let broken = mutation::is_broken(Rule::FactsStay).then(|| facts_as_weights(layout));
    let layout = broken.as_ref().unwrap_or(layout);
    for (key, blob) in members {
        let limit = if key.is_part() { limits::PART_BYTES } else { limits::COLUMNS_BYTES };
        let bytes = shelf.read_whole(blob, limit).map_err(|error| refusal::of(&error))?;
        let checked = if key.is_part() {
            check::part(key, &bytes, layout)
        } else {
            Columns::from_bytes(&bytes).and_then(|given| check::columns(key, &given, layout, max_norm))
        };
        checked.map_err(|error| Refusal::Invalid { reason: format!("condition `{key}`: {error}") })?;
    }
    Ok(())
}

/// The layout as it was before there were facts. For a mutation.
fn facts_as_weights(layout: &Layout) -> Layout {
    let mut without = layout.clone();
    let owned = without.axes.iter_mut().flat_map(|axis| axis.tensors.values_mut());
    owned.for_each(|owned| owned.kind = TensorKind::Trained);
    without
}

/// Computes a derived value anew, where this program knows its function, and compares.
pub(super) fn derived(
    shelf: &dyn Shelf,
    derivation: &Derivation,
    layout: &Layout,
    members: &BTreeMap<ConditionKey, BlobRef>,
    result: BlobRef,
) -> Result<(), Refusal> {
    let function = &derivation.function;
    if !part::is_known(function) {
        return Ok(());
    }
    let read = |(key, blob): (&ConditionKey, &BlobRef)| -> CoordinatorResult<_> {
        let bytes = shelf.read_whole(*blob, limits::PART_BYTES)?;
        Ok(layout
            .rule(key.section())
            .map(|rule| Member::from_bytes(rule, &bytes))
            .transpose()?
            .map(|m| (key.clone(), m)))
    };
    let compute = || -> CoordinatorResult<Option<Vec<u8>>> {
        let members: BTreeMap<ConditionKey, Member> =
            members.iter().filter_map(|member| read(member).transpose()).collect::<CoordinatorResult<_>>()?;
        let rule = layout.rule(&Section::Part(derivation.part.clone()));
        if let Some(rule) = rule.filter(|_| mutation::is_broken(Rule::PoolOrder) && function.as_str() == part::SUM) {
            return Ok(Some(in_floats(rule, &members)?));
        }
        let members = if mutation::is_broken(Rule::TreePlaces) { without_places(members) } else { members };
        Ok(part::derive(derivation, layout, &members)?)
    };
    let expected = compute().map_err(|error| refusal::of(&error))?.map(|bytes| BlobRef::of(&bytes));
    match expected.filter(|expected| *expected != result) {
        None => Ok(()),
        Some(expected) => {
            let (expected, found) = (expected.digest.short(), result.digest.short());
            Err(Refusal::Invalid { reason: format!("`{function}` of these members is `{expected}`, not `{found}`") })
        }
    }
}

/// The members with all machines of trees in one place, and counts by these. For a mutation.
fn without_places(members: BTreeMap<ConditionKey, Member>) -> BTreeMap<ConditionKey, Member> {
    let short = |member: &Member| BlobRef::of(&member.to_bytes()).digest.short();
    let moved = |member: &Member| {
        let Member::Tensors(tensors) = member else { return None };
        let machines = Machines::from_tensors(tensors).ok()?;
        Some(Member::Tensors(Machines { place: 0, ..machines }.to_tensors()))
    };
    let renamed: Vec<[String; 2]> =
        members.values().filter_map(|member| Some([short(member), short(&moved(member)?)])).collect();
    let rename = |key: ConditionKey| {
        let mut text = key.to_string();
        renamed.iter().for_each(|[from, to]| text = text.replace(from, to));
        text.parse().unwrap_or(key)
    };
    members.into_iter().map(|(key, member)| (rename(key), moved(&member).unwrap_or(member))).collect()
}

/// The sum of a pool as floating-point numbers add up, from the last member to the first. For a mutation.
fn in_floats(rule: &PartRule, members: &BTreeMap<ConditionKey, Member>) -> CoordinatorResult<Vec<u8>> {
    let PartRule::Pool { tables } = rule else { return Ok(Vec::new()) };
    let mut sums: BTreeMap<(&str, &str, usize), f64> = BTreeMap::new();
    for pool in members.values().rev().filter_map(Member::as_sums) {
        for (entry, table) in pool.entries().flat_map(|entry| tables.keys().map(move |table| (entry, table))) {
            let values = pool.table(entry, table).map(|table| table.to_f64()).unwrap_or_default();
            for (place, value) in values.into_iter().enumerate() {
                *sums.entry((entry, table, place)).or_default() += value;
            }
        }
    }
    let mut total = Pool::new(tables.clone());
    for ((entry, table, place), value) in sums {
        total.add(entry, table, place, value)?;
    }
    Ok(total.to_bytes())
}
