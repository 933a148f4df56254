//! What a process takes of the machine, from `/proc`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

/// A look at one process.
pub(crate) struct ProcessStats(PathBuf);

impl ProcessStats {
    pub(crate) fn of(pid: u32) -> Self {
        Self(PathBuf::from(format!("/proc/{pid}")))
    }

    /// Largest resident memory since the start or [`Self::reset_peak`], in MB.
    pub(crate) fn peak_mb(&self) -> Result<f64> {
        self.status_mb("VmHWM:")
    }

    /// Resident memory, in MB.
    pub(crate) fn resident_mb(&self) -> Result<f64> {
        self.status_mb("VmRSS:")
    }

    /// Forgets the peak so far.
    pub(crate) fn reset_peak(&self) -> Result<()> {
        Ok(fs::write(self.0.join("clear_refs"), "5")?)
    }

    /// Processor time taken so far, in seconds.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        let stat = fs::read_to_string(self.0.join("stat"))?;
        // The name in brackets may hold spaces; the times are the 14th and 15th fields, in hundredths of a second.
        let after = stat.rsplit_once(") ").context("a process has a name")?.1;
        let fields: Vec<_> = after.split(' ').collect();
        let ticks = |i: usize| fields.get(i).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        Ok((ticks(11) + ticks(12)) / 100.0)
    }

    fn status_mb(&self, field: &str) -> Result<f64> {
        let status = fs::read_to_string(self.0.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    }
}
