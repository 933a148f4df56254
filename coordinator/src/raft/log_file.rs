//! How the log lies in its redb file: tables, names, and the founding of a new one.

use std::ops::RangeInclusive;

use archipelago_common::{Digest, NodeId, member::Origin};
use raft::eraftpb::{Entry, HardState, Snapshot};
use redb::{Database, ReadableDatabase as _, TableDefinition};

use super::log_store::Beginning;

/// Format of the file; a later build that changes it reads this one and writes its own.
pub(super) const FORMAT: u64 = 1;
/// Index and term of the snapshot that every founding node starts from.
pub(super) const FOUNDING: (u64, u64) = (1, 1);
/// A node that joins is before all that, so the leader has to send it a snapshot.
const JOINING: (u64, u64) = (0, 0);
/// The log is read in order and rarely: a small page cache does.
const CACHE_BYTES: usize = 16 << 20;

pub(super) const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
pub(super) const HARD_STATE: &str = "hard_state";
pub(super) const SNAPSHOT: &str = "snapshot";
/// The digest of the founders, or nothing if the node joins; absent in a file of an earlier build.
const ORIGIN: &str = "origin";
const FORMAT_NUMBER: &str = "format";
const NODE: &str = "node";
pub(super) const STARTS: &str = "starts";
pub(super) const INCARNATION: &str = "incarnation";
const TRUNCATED_INDEX: &str = "truncated_index";
const TRUNCATED_TERM: &str = "truncated_term";

/// What a file says before its entries are looked at.
pub(super) struct Start {
    pub(super) format: u64,
    pub(super) node: u64,
    pub(super) starts: u64,
    /// 0 in a file of an earlier build.
    pub(super) incarnation: u64,
    pub(super) origin: Origin,
    pub(super) truncated: (u64, u64),
    pub(super) hard_state: Vec<u8>,
    pub(super) snapshot: Vec<u8>,
}

pub(super) enum EntriesError {
    Redb(redb::Error),
    Corrupted(String),
}

impl<E: Into<redb::Error>> From<E> for EntriesError {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Writes what a node starts from: the founding snapshot, or nothing at all if there are no voters, for one that joins.
pub(super) fn write_founding(
    db: &Database,
    node: NodeId,
    Beginning { voters, origin, state }: &Beginning,
    incarnation: u64,
) -> Result<(), redb::Error> {
    let start = if voters.is_empty() { JOINING } else { FOUNDING };
    let mut snapshot = Snapshot { data: state.clone().into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = start;
    metadata.mut_conf_state().voters = voters.iter().map(|voter| voter.as_u64()).collect();
    let mut hard_state = HardState::default();
    (hard_state.commit, hard_state.term) = start;
    let transaction = db.begin_write()?;
    {
        let mut numbers = transaction.open_table(NUMBERS)?;
        numbers.insert(FORMAT_NUMBER, FORMAT)?;
        numbers.insert(NODE, node.as_u64())?;
        numbers.insert(STARTS, 0)?;
        numbers.insert(INCARNATION, incarnation)?;
        transaction.open_table(ENTRIES)?;
        let mut records = transaction.open_table(RECORDS)?;
        match origin {
            Origin::Unknown => {}
            Origin::Joined => drop(records.insert(ORIGIN, &[][..])?),
            Origin::Founded(founders) => drop(records.insert(ORIGIN, &founders.as_bytes()[..])?),
        }
    }
    put_record(&transaction, SNAPSHOT, &snapshot)?;
    put_record(&transaction, HARD_STATE, &hard_state)?;
    put_truncated(&transaction, start)?;
    Ok(transaction.commit()?)
}

pub(super) fn read_start(db: &Database) -> Result<Start, redb::Error> {
    let transaction = db.begin_read()?;
    let numbers = transaction.open_table(NUMBERS)?;
    let number = |name| -> Result<u64, redb::Error> { Ok(numbers.get(name)?.map_or(0, |n| n.value())) };
    let records = transaction.open_table(RECORDS)?;
    let record = |name| -> Result<Vec<u8>, redb::Error> {
        Ok(records.get(name)?.map(|bytes| bytes.value().to_vec()).unwrap_or_default())
    };
    let origin = match records.get(ORIGIN)? {
        None => Origin::Unknown,
        Some(bytes) => <[u8; 32]>::try_from(bytes.value())
            .map_or(Origin::Joined, |founders| Origin::Founded(Digest::from_bytes(founders))),
    };
    Ok(Start {
        format: number(FORMAT_NUMBER)?,
        node: number(NODE)?,
        starts: number(STARTS)?,
        incarnation: number(INCARNATION)?,
        origin,
        truncated: (number(TRUNCATED_INDEX)?, number(TRUNCATED_TERM)?),
        hard_state: record(HARD_STATE)?,
        snapshot: record(SNAPSHOT)?,
    })
}

/// Checks that the entries follow one another without a gap; returns the last index.
pub(super) fn check_entries(db: &Database, truncated_index: u64) -> Result<u64, EntriesError> {
    let entries = db.begin_read()?.open_table(ENTRIES)?;
    let mut last_index = truncated_index;
    for item in entries.range::<u64>(..)? {
        let (index, bytes) = item?;
        let entry: Entry =
            parse(bytes.value()).map_err(|e| EntriesError::Corrupted(format!("entry {}: {e}", index.value())))?;
        if entry.index != index.value() || entry.index != last_index + 1 {
            let detail = format!("entry {} stands where entry {} is expected", entry.index, last_index + 1);
            return Err(EntriesError::Corrupted(detail));
        }
        last_index = entry.index;
    }
    Ok(last_index)
}

pub(super) fn put_record(
    transaction: &redb::WriteTransaction,
    name: &str,
    record: &impl protobuf::Message,
) -> Result<(), redb::Error> {
    transaction.open_table(RECORDS)?.insert(name, to_bytes(record)?.as_slice())?;
    Ok(())
}

pub(super) fn put_truncated(
    transaction: &redb::WriteTransaction,
    (index, term): (u64, u64),
) -> Result<(), redb::Error> {
    let mut numbers = transaction.open_table(NUMBERS)?;
    numbers.insert(TRUNCATED_INDEX, index)?;
    numbers.insert(TRUNCATED_TERM, term)?;
    Ok(())
}

pub(super) fn remove_entries(
    transaction: &redb::WriteTransaction,
    range: RangeInclusive<u64>,
) -> Result<(), redb::Error> {
    if !range.is_empty() {
        transaction.open_table(ENTRIES)?.retain_in(range, |_, _| false)?;
    }
    Ok(())
}

pub(super) fn to_bytes(message: &impl protobuf::Message) -> Result<Vec<u8>, redb::Error> {
    message.write_to_bytes().map_err(not_protobuf)
}

pub(super) fn parse<M: protobuf::Message>(bytes: &[u8]) -> protobuf::ProtobufResult<M> {
    let mut message = M::new();
    message.merge_from_bytes(bytes).map(|()| message)
}

pub(super) fn not_protobuf(error: protobuf::ProtobufError) -> redb::Error {
    redb::Error::Corrupted(error.to_string())
}
