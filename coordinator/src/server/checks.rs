//! What the leader reads in blobs before it proposes a command that names them.

use std::io::Read;

use archipelago_common::{
    BaseCard, BlobRef, Columns, ConditionKey, Layout, Version, check, limits, record::BaseSummary,
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
    replicas.fetch(blob).await?;
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
    /// # Errors  [`Error::NoBlob`]; [`Error::Common`] if it is larger than `limit` or damaged
    fn read_whole(&self, blob: BlobRef, limit: u64) -> CoordinatorResult<Vec<u8>>;
}

impl Shelf for BlobStore {
    fn open(&self, blob: BlobRef) -> CoordinatorResult<Box<dyn Read>> {
        Ok(Box::new(self.read(blob)?))
    }

    fn read_whole(&self, blob: BlobRef, limit: u64) -> CoordinatorResult<Vec<u8>> {
        self.read_whole(blob, limit)
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
