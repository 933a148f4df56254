//! The file system as this process uses it, recorded: which entries of directories a power failure would take.
//!
//! The functions below stand in front of those of libc that std calls. Each does what it should by a system call, and notes it. An
//! entry that was made is at risk until its directory is fsynced; that this file system would keep it anyway does not count.

#![expect(unsafe_code, reason = "functions of libc are defined, so that std calls them")]

use std::{
    collections::BTreeSet,
    ffi::{CStr, OsStr, c_char, c_int, c_uint},
    os::{
        fd::{BorrowedFd, IntoRawFd as _, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

#[derive(Default)]
struct Record {
    /// Entries whose directory was not fsynced since they were made.
    at_risk: BTreeSet<PathBuf>,
    /// Files that were fsynced at some time.
    synced: BTreeSet<PathBuf>,
    /// Files that were moved to their place before they were fsynced.
    moved_unsynced: BTreeSet<PathBuf>,
}

static RECORD: Mutex<Record> =
    Mutex::new(Record { at_risk: BTreeSet::new(), synced: BTreeSet::new(), moved_unsynced: BTreeSet::new() });

/// What a power failure now would take of a path below `dir`: itself, or a directory above it, or its content.
pub(crate) fn lost(dir: &Path, path: &Path) -> Vec<PathBuf> {
    let record = record();
    let entries = path.ancestors().take_while(|entry| *entry != dir).filter(|entry| record.at_risk.contains(*entry));
    let content = record.moved_unsynced.get(path);
    entries.map(Path::to_owned).chain(content.cloned()).collect()
}

/// As [`lost`], of everything below a directory.
pub(crate) fn lost_below(dir: &Path) -> Vec<PathBuf> {
    let record = record();
    let all = record.at_risk.iter().chain(&record.moved_unsynced);
    all.filter(|path| path.starts_with(dir) && path.as_path() != dir && path.exists()).cloned().collect()
}

fn record() -> MutexGuard<'static, Record> {
    RECORD.lock().unwrap_or_else(|e| e.into_inner())
}

fn text(path: *const c_char) -> (&'static CStr, PathBuf) {
    // SAFETY: whoever calls libc passes a string that ends in a zero and outlives the call.
    let path = unsafe { CStr::from_ptr(path) };
    (path, PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

/// A result as libc gives it.
fn answer<T>(result: Result<T, Errno>, good: impl FnOnce(T) -> c_int) -> c_int {
    match result {
        Ok(value) => good(value),
        Err(errno) => {
            // SAFETY: the place of this thread's error number.
            unsafe { *__errno_location() = errno.raw_os_error() };
            -1
        }
    }
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

#[unsafe(no_mangle)]
extern "C" fn mkdir(path: *const c_char, mode: c_uint) -> c_int {
    let (raw, path) = text(path);
    answer(rustix::fs::mkdir(raw, Mode::from_raw_mode(mode)), |()| {
        record().at_risk.insert(path);
        0
    })
}

#[unsafe(no_mangle)]
extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let ((raw_from, from), (raw_to, to)) = (text(from), text(to));
    answer(rustix::fs::rename(raw_from, raw_to), |()| {
        let mut record = record();
        record.at_risk.remove(&from);
        if record.synced.remove(&from) || to.is_dir() {
            record.moved_unsynced.remove(&to);
            record.synced.insert(to.clone());
        } else {
            record.moved_unsynced.insert(to.clone());
        }
        record.at_risk.insert(to);
        0
    })
}

#[unsafe(no_mangle)]
extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let (raw, path) = text(path);
    let (flags, was_there) = (OFlags::from_bits_retain(flags as u32), path.exists());
    answer(rustix::fs::open(raw, flags, Mode::from_raw_mode(mode)), |file| {
        if flags.contains(OFlags::CREATE) && !was_there {
            record().at_risk.insert(path);
        }
        file.into_raw_fd()
    })
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: RawFd) -> c_int {
    // SAFETY: the caller's file stays open during the call.
    let result = rustix::fs::fsync(unsafe { BorrowedFd::borrow_raw(fd) });
    answer(result, |()| {
        if let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{fd}")) {
            let mut record = record();
            record.at_risk.retain(|entry| entry.parent() != Some(&path));
            record.synced.insert(path);
        }
        0
    })
}
