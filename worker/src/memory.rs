//! How much memory large data may take at a site, and where the rest goes.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use archipelago_anndata::Storage;
use bytesize::ByteSize;
use clap::Args;
use serde::{Deserialize, Deserializer};

use crate::output::Output;

/// How a command treats large data.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Large files")]
pub struct MemoryArgs {
    /// Memory that counts may take, such as 4GiB; what is beyond goes to a scratch file [default: half of what is available]
    #[arg(long, value_name = "SIZE", env = "ARCHIPELAGO_MEMORY", value_parser = parse_size)]
    pub memory: Option<ByteSize>,
    /// Directory of scratch files, on a disk with room [default: TMPDIR, or /var/tmp]
    #[arg(long, value_name = "DIR", env = "ARCHIPELAGO_SCRATCH")]
    pub scratch: Option<PathBuf>,
}

impl MemoryArgs {
    /// What a command reads and writes large files with.
    pub fn handling(&self, output: &Output) -> Handling {
        let scratch = self.scratch.clone().unwrap_or_else(usual_scratch);
        Handling { storage: storage(self.memory, scratch), output: *output }
    }
}

/// How large data are handled: how much memory they take, and who hears how reading and writing go on.
#[derive(Clone, Debug)]
pub struct Handling {
    /// Where counts are kept.
    pub storage: Storage,
    /// Where progress is shown.
    pub output: Output,
}

impl Handling {
    /// Within a storage, without a word about it.
    pub fn quiet(storage: Storage) -> Self {
        Self { storage, output: Output::silent() }
    }

    /// Says how much is in scratch files, if anything is.
    pub fn note_spilled(&self) {
        if let Some(spilled) = Spilled::of(&self.storage) {
            self.output.note(format_args!("note: {spilled}"));
        }
    }
}

impl Default for Handling {
    fn default() -> Self {
        Self::quiet(Storage::memory())
    }
}

/// That counts are in scratch files, in words.
#[derive(Debug)]
pub struct Spilled {
    bytes: u64,
    folder: PathBuf,
    /// Whether the directory is kept in memory, which makes it useless.
    in_memory: bool,
}

impl Spilled {
    /// Nothing if everything is in memory.
    pub fn of(storage: &Storage) -> Option<Self> {
        let (bytes, folder) = (storage.spilled(), storage.folder().to_owned());
        let in_memory = rustix::fs::statfs(&folder).is_ok_and(|of| of.f_type == TMPFS_MAGIC);
        (bytes > 0).then_some(Self { bytes, folder, in_memory })
    }
}

impl fmt::Display for Spilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of counts are in scratch files in `{}`", ByteSize(self.bytes), self.folder.display())?;
        if self.in_memory {
            write!(f, ", which is kept in memory: name a directory on a disk with `--scratch`")?;
        }
        Ok(())
    }
}

/// A storage of so much memory, or of half of what is available.
pub fn storage(memory: Option<ByteSize>, scratch: impl Into<PathBuf>) -> Storage {
    let half = || available(Path::new("/")).map_or(FALLBACK, |available| available / 2);
    Storage::new(memory.map_or_else(half, |size| size.as_u64()), scratch)
}

/// Reads a size such as `4GiB`, `1.5 GB` or a number of bytes.
///
/// # Errors  what is expected instead
pub fn parse_size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| "expected a size such as 4GiB, 512MiB or a number of bytes".to_owned())
}

/// Reads a size from a configuration file.
pub(crate) fn deserialize_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text).map(Some).map_err(serde::de::Error::custom)
}

/// Files too large for memory are no business of `/tmp`, which often is memory itself.
fn usual_scratch() -> PathBuf {
    match std::env::var_os("TMPDIR") {
        Some(folder) if !folder.is_empty() => folder.into(),
        _ => "/var/tmp".into(),
    }
}

/// Bytes that this process could take: what the system has left, and no more than its control groups allow it. `root` is
/// that of the file system.
fn available(root: &Path) -> Option<u64> {
    let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let of_system =
        text("proc/meminfo").and_then(|info| field(&info, "MemAvailable:")).map(|kib| kib.saturating_mul(1024));
    let groups = text("proc/self/cgroup").unwrap_or_default();
    let of_groups = groups.lines().flat_map(|line| {
        // hierarchy:controllers:path, where the second version has no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (mount, limit, usage) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max", "memory.current"),
            "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
            _ => return vec![],
        };
        let mount = root.join(mount);
        let group = mount.join(path.trim_start_matches('/'));
        // A limit counts for all groups below it. In a container the path may be the host's: then only the mount is there.
        let groups = group.ancestors().take_while(|at| at.starts_with(&mount));
        groups.filter_map(|at| left(at, limit, usage)).collect()
    });
    of_system.into_iter().chain(of_groups).min()
}

/// What a control group has left: its limit without what is in use and could not be dropped.
fn left(group: &Path, limit: &str, usage: &str) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let droppable = field(&stat, "total_inactive_file").or_else(|| field(&stat, "inactive_file")).unwrap_or(0);
    Some(number(limit)?.saturating_sub(number(usage)?.saturating_sub(droppable)))
}

/// The number behind a name.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut words =
        text.lines().map(str::split_whitespace).find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    words.next()?.parse().ok()
}

/// Where the system does not say what is available.
const FALLBACK: u64 = 4 << 30;
/// How `statfs` names a file system that is memory.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, expected) in [("4GiB", 4 << 30), ("512 MiB", 512 << 20), ("1.5kb", 1_500), ("123", 123), ("0", 0)] {
            assert_eq!(parse_size(text).unwrap().as_u64(), expected, "{text}");
        }
        for wrong in ["", "four", "4 goats", "-1GiB"] {
            assert!(parse_size(wrong).unwrap_err().contains("4GiB"), "{wrong}");
        }
    }

    /// A file system with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  2000 kB\nMemAvailable:   1000 kB\n");

    #[test]
    fn the_tightest_limit_counts() {
        let of = |files: &[(&str, &str)]| available(system(files).path());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[MEMINFO]), Some(1_024_000));
        let second = [
            MEMINFO,
            ("proc/self/cgroup", "0::/site/worker\n"),
            ("sys/fs/cgroup/site/memory.max", "500000\n"),
            ("sys/fs/cgroup/site/memory.current", "300000\n"),
            ("sys/fs/cgroup/site/memory.stat", "anon 7\ninactive_file 100000\n"),
            ("sys/fs/cgroup/site/worker/memory.max", "max\n"),
            ("sys/fs/cgroup/site/worker/memory.current", "300000\n"),
        ];
        assert_eq!(of(&second), Some(300_000), "what is cached can be dropped; `max` is no limit");
        let first = [
            MEMINFO,
            ("proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n"),
        ];
        assert_eq!(of(&first), Some(1_024_000), "a limit that is none");
    }

    #[test]
    fn what_is_in_scratch_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::new(0, folder.path());
        assert!(Spilled::of(&storage).is_none());
        storage.growing(4).extend(&[1.0_f32; 256]).unwrap();
        let said = Spilled::of(&storage).unwrap().to_string();
        assert!(said.starts_with("1.0 KiB of counts") && said.contains(&*folder.path().to_string_lossy()), "{said}");
    }
}
