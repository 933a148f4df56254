//! The memory that files are kept in, as on a machine that has run for a day.

use std::{io::Read as _, path::Path};

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

/// A file as large as the memory that is free, without a byte on disk, that was read once: from now on files take memory that was
/// used before. A virtual machine asks what it runs on for each page that was never used, which makes a write of new
/// bytes several times as slow as on a machine that has worked for a while. Dropping this removes the file.
pub(crate) struct Used(#[expect(dead_code, reason = "it is there for as long as this is")] NamedTempFile);

impl Used {
    /// Reads such a file into memory.
    pub(crate) fn all(scratch: &Path) -> Result<Self> {
        let of = std::fs::read_to_string("/proc/meminfo").context("failed to read `/proc/meminfo`")?;
        let line =
            of.lines().find_map(|line| line.strip_prefix("MemFree:")).context("`/proc/meminfo` has no `MemFree`")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("`MemFree` of `/proc/meminfo`")?;
        let mut file = NamedTempFile::new_in(scratch)?;
        file.as_file().set_len(kib << 10)?;
        let mut piece = vec![0; 1 << 20];
        while file.read(&mut piece)? > 0 {}
        Ok(Self(file))
    }
}
