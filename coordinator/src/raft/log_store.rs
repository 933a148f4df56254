//! Raft's durable memory: one redb file with the log, the hard state, and the last snapshot of the state machine.
//!
//! What is kept, and why that is enough: the applied state is the snapshot, and everything after it is in the log, so a
//! restart loads the snapshot and applies the committed entries that follow. The membership is part of the snapshot
//! for the same reason. Each [`Batch`], which is all that one Raft `Ready` asks for, is **one** transaction, fsynced
//! before [`LogStore::write`] returns.
//!
//! A torn write cannot be seen: redb's commits are atomic, and a tail that was being written when the machine died is
//! the commit before it. A file whose *middle* changed is refused: every page's checksum is verified at the start.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use archipelago_cluster::mutation::{self, Rule};
use archipelago_common::{
    NodeId, fs,
    member::{Incarnation, Origin},
};
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};
use redb::{Database, Durability, ReadableDatabase as _, StorageBackend};

use super::log_file::{
    ENTRIES, EntriesError, FORMAT, FOUNDING, HARD_STATE, INCARNATION, NUMBERS, SNAPSHOT, STARTS, builder,
    check_entries, not_protobuf, parse, put_record, put_truncated, read_start, remove_entries, to_bytes,
    write_founding,
};
use crate::error::{Error, Result};

/// The log of one node. Owned by [`super::node::Node`]; nothing else writes to it.
pub struct LogStore {
    db: Database,
    path: PathBuf,
    hard_state: HardState,
    snapshot: Snapshot,
    /// Index and term of the entry before the first one kept.
    truncated: (u64, u64),
    last_index: u64,
    starts: u64,
    incarnation: Incarnation,
    origin: Origin,
}

/// What a log begins with.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// Who votes; nobody, for a node that joins a cluster: it neither votes nor stands for election until the leader has sent it
    /// a snapshot.
    pub voters: BTreeSet<NodeId>,
    /// How it began, as it will say.
    pub origin: Origin,
    /// The state machine, as a snapshot.
    pub state: Vec<u8>,
}

impl Beginning {
    /// A new cluster's, with these founders.
    pub fn of_founders(founders: &BTreeMap<NodeId, String>, state: Vec<u8>) -> Self {
        Self { voters: founders.keys().copied().collect(), origin: Origin::founded_with(founders), state }
    }

    /// That of a node which joins a cluster.
    pub fn joining(state: Vec<u8>) -> Self {
        Self { voters: BTreeSet::new(), origin: Origin::Joined, state }
    }
}

/// All that one Raft `Ready` wants to have durable.
#[derive(Default)]
pub struct Batch<'a> {
    /// A snapshot received from the leader; it replaces the whole log.
    pub snapshot: Option<&'a Snapshot>,
    /// New entries; they replace the log from the index of the first one on.
    pub entries: &'a [Entry],
    /// The new hard state.
    pub hard_state: Option<&'a HardState>,
}

impl LogStore {
    /// Writes the log of a node that has never run.
    ///
    /// Every founding node starts from the same snapshot at index 1, so that a node which joins later always gets the
    /// membership with its first snapshot.
    ///
    /// # Errors  [`Error::LogExists`], [`Error::Log`]
    pub fn create(path: &Path, node: NodeId, beginning: &Beginning) -> Result<()> {
        if path.exists() {
            return Err(Error::LogExists { path: path.to_owned() });
        }
        let error = |e: redb::Error| Error::log("create", path, e);
        let db = builder().create(path).map_err(|e| error(e.into()))?;
        write_founding(&db, node, beginning, rand::random()).map_err(error)?;
        drop(db);
        fs::make_private(path)?;
        Ok(fs::sync_dir(path.parent().unwrap_or(Path::new(".")))?)
    }

    /// Opens the log of `node`, verifies all of it, and counts the start.
    ///
    /// # Errors  [`Error::NoLog`], [`Error::LogCorrupted`], [`Error::LogInUse`], [`Error::Log`]
    pub fn open(path: &Path, node: NodeId) -> Result<Self> {
        if !path.exists() {
            return Err(Error::NoLog { path: path.to_owned(), node });
        }
        fs::make_private(path)?;
        let db = builder().open(path).map_err(|e| Error::log("open", path, e.into()))?;
        Self::load(db, path, node, rand::random())
    }

    /// Opens a log over any storage; an empty one is begun first. For tests that crash the storage.
    ///
    /// # Errors  [`Error::LogCorrupted`], [`Error::Log`]
    pub fn open_backend(
        backend: impl StorageBackend,
        node: NodeId,
        beginning: &Beginning,
        incarnation: u64,
    ) -> Result<Self> {
        let path = Path::new("storage");
        let is_new = backend.len().map_err(|e| Error::log("open", path, e.into()))? == 0;
        let db = builder().create_with_backend(backend).map_err(|e| Error::log("open", path, e.into()))?;
        if is_new {
            write_founding(&db, node, beginning, incarnation).map_err(|e| Error::log("create", path, e))?;
        }
        Self::load(db, path, node, incarnation)
    }

    /// Makes a batch durable, in one transaction.
    ///
    /// # Errors  [`Error::Log`]. The caller must not go on after one, see [`super::task`]
    pub fn write(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.transact(batch).map_err(|e| Error::log("write", &self.path, e))?;
        if let Some(snapshot) = batch.snapshot {
            let metadata = snapshot.get_metadata();
            self.truncated = (metadata.index, metadata.term);
            self.last_index = metadata.index;
            self.snapshot = snapshot.clone();
        }
        if let Some(last) = batch.entries.last() {
            self.last_index = last.index;
        }
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state.clone();
        }
        Ok(())
    }

    /// Replaces the snapshot by a newer one of this node's own and drops the entries it covers but the last `keep`,
    /// which spare a follower that is a little behind a whole snapshot.
    ///
    /// # Errors  [`Error::Log`]
    pub fn compact(&mut self, snapshot: Snapshot, keep: u64) -> Result<()> {
        let index = snapshot.get_metadata().index;
        let first_dropped = self.truncated.0 + 1;
        let truncated_index = index.saturating_sub(keep).max(self.truncated.0);
        let error = |e: redb::Error| Error::log("compact", &self.path, e);
        let truncated_term = self.stored_term(truncated_index).map_err(error)?.unwrap_or(self.truncated.1);
        // What the snapshot holds is committed; the hard state must not say less when the node starts again.
        let mut hard_state = self.hard_state.clone();
        hard_state.commit = hard_state.commit.max(index);
        (|| {
            let transaction = self.db.begin_write()?;
            {
                put_record(&transaction, SNAPSHOT, &snapshot)?;
                put_record(&transaction, HARD_STATE, &hard_state)?;
                put_truncated(&transaction, (truncated_index, truncated_term))?;
                remove_entries(&transaction, first_dropped..=truncated_index)?;
            }
            Ok(transaction.commit()?)
        })()
        .map_err(error)?;
        self.truncated = (truncated_index, truncated_term);
        self.snapshot = snapshot;
        self.hard_state = hard_state;
        Ok(())
    }

    /// How often this log has been opened: with the node's id, a name for this run of the node that no other run has.
    pub fn starts(&self) -> u64 {
        self.starts
    }

    /// Which life of this node's log it is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How it began.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether it is a founder's, of several, and holds nothing but the founding.
    pub fn is_founding(&self) -> bool {
        let is_one_of_several = self.snapshot.get_metadata().get_conf_state().voters.len() > 1;
        let is_founder = matches!(self.origin, Origin::Founded(_)) && is_one_of_several;
        is_founder && self.last_index.max(self.snapshot.get_metadata().index) <= FOUNDING.0
    }

    /// The last snapshot: what a restart begins with.
    pub fn last_snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Number of entries after the last snapshot.
    pub fn n_entries_since_snapshot(&self) -> u64 {
        self.last_index.saturating_sub(self.snapshot.get_metadata().index)
    }

    fn transact(&self, batch: &Batch<'_>) -> Result<(), redb::Error> {
        let mut transaction = self.db.begin_write()?;
        if mutation::is_broken(Rule::FsyncBeforePromise) {
            transaction.set_durability(Durability::None)?;
        }
        {
            let mut last_index = self.last_index;
            if let Some(snapshot) = batch.snapshot {
                let metadata = snapshot.get_metadata();
                put_record(&transaction, SNAPSHOT, snapshot)?;
                put_truncated(&transaction, (metadata.index, metadata.term))?;
                remove_entries(&transaction, 0..=last_index)?;
                last_index = metadata.index;
            }
            if let (Some(first), Some(last)) = (batch.entries.first(), batch.entries.last()) {
                remove_entries(&transaction, first.index..=last_index)?;
                let mut entries = transaction.open_table(ENTRIES)?;
                for entry in batch.entries {
                    entries.insert(entry.index, to_bytes(entry)?.as_slice())?;
                }
                debug_assert!(last.index >= first.index);
            }
            let hard_state = batch.hard_state.filter(|_| !mutation::is_broken(Rule::DurableVote));
            if let Some(hard_state) = hard_state {
                put_record(&transaction, HARD_STATE, hard_state)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn load(db: Database, path: &Path, node: NodeId, fresh: u64) -> Result<Self> {
        let corrupted = |detail: String| Error::LogCorrupted { path: path.to_owned(), detail };
        let error = |e: redb::Error| Error::log("read", path, e);
        let start = read_start(&db).map_err(error)?;
        if start.format != FORMAT {
            return Err(Error::LogFormat { path: path.to_owned(), found: start.format, expected: FORMAT });
        }
        if start.node != node.as_u64() {
            return Err(Error::LogOfOtherNode { path: path.to_owned(), found: start.node, expected: node });
        }
        let hard_state: HardState = parse(&start.hard_state).map_err(|e| corrupted(format!("hard state: {e}")))?;
        let snapshot: Snapshot = parse(&start.snapshot).map_err(|e| corrupted(format!("snapshot: {e}")))?;
        let last_index = check_entries(&db, start.truncated.0).map_err(|e| match e {
            EntriesError::Redb(e) => error(e),
            EntriesError::Corrupted(detail) => corrupted(detail),
        })?;
        let snapshot_index = snapshot.get_metadata().index;
        if snapshot_index < start.truncated.0 || last_index.max(snapshot_index) < hard_state.commit {
            return Err(corrupted(format!(
                "entries {} to {last_index} and a snapshot at {snapshot_index} do not reach the commit index {}",
                start.truncated.0 + 1,
                hard_state.commit
            )));
        }
        let starts = start.starts + 1;
        // An earlier build drew none.
        let incarnation = Incarnation(if start.incarnation == 0 { fresh } else { start.incarnation });
        (|| -> Result<(), redb::Error> {
            let transaction = db.begin_write()?;
            transaction.open_table(NUMBERS)?.insert(STARTS, starts)?;
            transaction.open_table(NUMBERS)?.insert(INCARNATION, incarnation.0)?;
            Ok(transaction.commit()?)
        })()
        .map_err(error)?;
        Ok(Self {
            db,
            path: path.to_owned(),
            hard_state,
            snapshot,
            truncated: start.truncated,
            last_index,
            starts,
            incarnation,
            origin: start.origin,
        })
    }

    fn stored_term(&self, index: u64) -> Result<Option<u64>, redb::Error> {
        let table = self.db.begin_read()?.open_table(ENTRIES)?;
        match table.get(index)? {
            None => Ok(None),
            Some(bytes) => Ok(Some(parse::<Entry>(bytes.value()).map_err(not_protobuf)?.term)),
        }
    }

    fn stored_entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, redb::Error> {
        let table = self.db.begin_read()?.open_table(ENTRIES)?;
        let (mut entries, mut size) = (Vec::new(), 0_u64);
        for item in table.range(low..high)? {
            let bytes = item?.1;
            size = size.saturating_add(bytes.value().len() as u64);
            // Raft wants at least one entry, whatever its size.
            if size > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(parse(bytes.value()).map_err(not_protobuf)?);
        }
        Ok(entries)
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state: ConfState = self.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState::new(self.hard_state.clone(), conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.0 {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last_index + 1, "entries up to {high} asked for, the last is {}", self.last_index);
        self.stored_entries(low, high, max_size.into().unwrap_or(u64::MAX)).map_err(|e| storage_error(e).into())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.0 {
            return Ok(self.truncated.1);
        }
        if index < self.truncated.0 {
            return Err(StorageError::Compacted.into());
        }
        self.stored_term(index).map_err(storage_error)?.ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.snapshot.get_metadata().index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.snapshot.clone())
    }
}

fn storage_error(error: redb::Error) -> StorageError {
    StorageError::Other(Box::new(error))
}

#[cfg(test)]
#[path = "log_store_tests.rs"]
mod tests;
