//! A disk in memory that loses what was not fsynced, fails in the middle of an operation, and runs full.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::StorageBackend;

use crate::chance::Chance;

/// Clones are the same disk.
#[derive(Clone, Default, Debug)]
pub(crate) struct Disk(Arc<Mutex<Content>>);

#[derive(Default, Debug)]
struct Content {
    /// What a reader sees.
    bytes: Vec<u8>,
    /// What is certain to be there after a power failure.
    durable: Vec<u8>,
    /// What has been written since the last fsync.
    pending: Vec<Write>,
    /// Pages that have room on the disk; a file may be longer than that.
    allocated: BTreeSet<u64>,
    is_full: bool,
    fails_in: Option<u32>,
    n_syncs: u64,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes(u64, Vec<u8>),
    Resize(u64),
}

impl Write {
    fn place(&self) -> u64 {
        match self {
            Self::Bytes(at, _) => *at,
            Self::Resize(_) => u64::MAX,
        }
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Resize(len) => bytes.resize(*len as usize, 0),
            Self::Bytes(at, data) => {
                let end = *at as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at as usize..end].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    /// Fsyncs so far.
    pub(crate) fn n_syncs(&self) -> u64 {
        self.content().n_syncs
    }

    /// The power fails during the `n`-th operation from now; nothing works after it.
    pub(crate) fn fail_in(&self, n: u32) {
        self.content().fails_in = Some(n);
    }

    /// Whether the power has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.content().fails_in == Some(0)
    }

    /// No page is left, or there is room again.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.content().is_full = is_full;
    }

    /// Whether no page is left.
    pub(crate) fn is_full(&self) -> bool {
        self.content().is_full
    }

    /// The disk as a process finds it that starts after another was killed: nothing is lost.
    pub(crate) fn after_kill(&self) -> Self {
        let content = self.content();
        let bytes = content.bytes.clone();
        Self::started(bytes, &content)
    }

    /// The disk after a power failure: all that was fsynced, and any part of what was not, the last of it torn.
    pub(crate) fn after_power_failure(&self, chance: &mut Chance) -> Self {
        let content = self.content();
        // Drawn in the order of places, and applied in the order of time: no draw depends on how a cache is flushed.
        let mut order: Vec<usize> = (0..content.pending.len()).collect();
        order.sort_by_key(|i| (content.pending[*i].place(), *i));
        let kept: BTreeSet<usize> = order.into_iter().filter(|_| chance.one_in(2)).collect();
        let torn = kept.iter().next_back().copied().filter(|_| chance.one_in(2));
        let mut bytes = content.durable.clone();
        for i in kept {
            match &content.pending[i] {
                Write::Bytes(at, data) if torn == Some(i) => {
                    Write::Bytes(*at, data[..data.len() / 2].to_vec()).apply(&mut bytes);
                }
                write => write.apply(&mut bytes),
            }
        }
        Self::started(bytes, &content)
    }

    /// The disk of a new process, with this content.
    fn started(bytes: Vec<u8>, old: &Content) -> Self {
        let (durable, pending) = (bytes.clone(), Vec::new());
        let (allocated, is_full, n_syncs) = (old.allocated.clone(), old.is_full, old.n_syncs);
        Self(Arc::new(Mutex::new(Content { bytes, durable, pending, allocated, is_full, fails_in: None, n_syncs })))
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Content {
    /// Counts one operation towards the power failure.
    fn operate(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.fails_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Err(io::Error::other("the power has failed"));
            }
        }
        Ok(())
    }

    fn write(&mut self, write: Write) {
        write.apply(&mut self.bytes);
        self.pending.push(write);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.content();
        let end = offset as usize + out.len();
        out.copy_from_slice(content.bytes.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.content();
        content.operate()?;
        content.write(Write::Resize(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.content();
        content.operate()?;
        content.n_syncs += 1;
        let Content { pending, durable, .. } = &mut *content;
        pending.drain(..).for_each(|write| write.apply(durable));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut content = self.content();
        content.operate()?;
        let pages = offset / PAGE..=(offset + data.len().max(1) as u64 - 1) / PAGE;
        if content.is_full && pages.clone().any(|page| !content.allocated.contains(&page)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.allocated.extend(pages);
        content.write(Write::Bytes(offset, data.to_vec()));
        Ok(())
    }
}

/// Bytes that a disk allocates at once.
const PAGE: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &Disk, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        disk.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn what_was_fsynced_is_there_after_a_power_failure_and_the_rest_in_any_part() {
        let mut seen = BTreeSet::new();
        for seed in 0..50 {
            let disk = Disk::default();
            disk.set_len(3).unwrap();
            disk.write(0, b"a").unwrap();
            disk.sync_data().unwrap();
            disk.write(1, b"b").unwrap();
            disk.write(2, b"c").unwrap();
            assert_eq!(read(&disk.after_kill(), 3), b"abc");
            seen.insert(read(&disk.after_power_failure(&mut Chance::new(seed)), 3));
        }
        assert!(seen.iter().all(|bytes| bytes[0] == b'a'));
        for part in [b"a\0\0", b"ab\0", b"a\0c", b"abc"] {
            assert!(seen.contains(&part[..]), "{part:?} never was");
        }
    }

    #[test]
    fn a_full_disk_takes_no_new_page() {
        let disk = Disk::default();
        disk.set_len(2 * PAGE).unwrap();
        disk.write(0, b"a").unwrap();
        disk.set_full(true);
        disk.write(1, b"b").unwrap();
        assert_eq!(disk.write(PAGE, b"c").unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.set_full(false);
        disk.write(PAGE, b"c").unwrap();
    }

    #[test]
    fn a_power_failure_comes_when_it_is_due_and_stays() {
        let disk = Disk::default();
        disk.fail_in(2);
        disk.set_len(1).unwrap();
        assert!(disk.write(0, b"a").is_err() && disk.sync_data().is_err() && disk.has_failed());
        assert!(!disk.after_kill().has_failed());
    }
}
