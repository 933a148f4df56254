//! What the leader reads in blobs before it proposes a command that names them.

use std::collections::BTreeMap;

use archipelago_common::{
    BaseCard, BlobRef, Columns, ConditionKey, Version, check, limits, record::BaseSummary, state_dict::TensorSpec,
};
use archipelago_protocol::message::Refusal;

use super::refusal;
use crate::{
    blob::replicate::Replicas,
    error::{Error, Result as CoordinatorResult},
};

/// Refuses unless all of these blobs are durable on a majority. What is missing on this node is fetched first: it may
/// have been uploaded to the leader before.
pub(super) async fn require_durable(replicas: &Replicas, blobs: impl Iterator<Item = BlobRef>) -> Result<(), Refusal> {
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

/// Reads the card of a version's base and checks every condition's columns against it.
pub(super) fn reference(replicas: &Replicas, version: &Version) -> Result<BaseSummary, Refusal> {
    let read = || -> CoordinatorResult<BaseCard> { Ok(BaseCard::read(&mut replicas.store().read(version.base)?)?) };
    let card = tokio::task::block_in_place(read).map_err(|error| refusal::of(&error))?;
    let summary = BaseSummary::from(&card);
    let conditions = version.columns.iter().map(|(key, blob)| (key, *blob));
    columns(replicas, conditions, &summary.columns, limits::COLUMN_NORM)?;
    Ok(summary)
}

/// Checks the columns of conditions against what the base says each condition owns.
pub(super) fn columns<'a>(
    replicas: &Replicas,
    conditions: impl Iterator<Item = (&'a ConditionKey, BlobRef)>,
    layout: &BTreeMap<String, TensorSpec>,
    max_norm: f64,
) -> Result<(), Refusal> {
    tokio::task::block_in_place(|| {
        for (key, blob) in conditions {
            let bytes = replicas.store().read_whole(blob, limits::COLUMNS_BYTES).map_err(|e| refusal::of(&e))?;
            let checked = Columns::from_bytes(&bytes).and_then(|given| check::columns(key, &given, layout, max_norm));
            checked.map_err(|error| Refusal::Invalid { reason: format!("condition `{key}`: {error}") })?;
        }
        Ok(())
    })
}
