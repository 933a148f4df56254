//! A durable list of what was acknowledged, kept by whoever it was acknowledged to: one JSON object a line, fsynced before
//! anything is counted. A line that a kill has torn is dropped when the file is opened again; it was not counted.

use std::{fs::OpenOptions, marker::PhantomData, path::Path};

use anyhow::{Context as _, Result};
use archipelago_common::{Fingerprint, Name, SiteId, TaskId, VersionId, append::AppendFile, record::Submission};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What a site writes down.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteEntry {
    /// About to submit: whatever is accepted from the site must be among these.
    Sending(Submission),
    /// Accepted.
    Acknowledged {
        /// What.
        submission: Submission,
        /// The version that the answer named.
        version: Option<VersionId>,
    },
}

/// What the operator writes down.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorEntry {
    /// A reference was published.
    Reference {
        /// Its name.
        name: Name,
        /// Its first version.
        version: VersionId,
    },
    /// A task was published.
    Task(TaskId),
    /// A task was closed, and what had been accepted was merged.
    Closed(TaskId),
    /// A write of the probe that measures failover.
    Probe,
    /// A guest was let in with this key.
    Enrolled {
        /// Its name.
        site: SiteId,
        /// The key.
        key: Fingerprint,
    },
    /// A guest has come with another key, which counts from then on.
    Renewed {
        /// Its name.
        site: SiteId,
        /// The key.
        key: Fingerprint,
    },
    /// A guest was shut out.
    Revoked {
        /// Its name.
        site: SiteId,
    },
}

/// The file of one keeper.
#[derive(Debug)]
pub struct Journal<T> {
    file: AppendFile,
    entries: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens or creates a journal and returns what it holds.
    pub fn open(path: &Path) -> Result<(Self, Vec<T>)> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let entries = parse(&text[..whole]).with_context(|| format!("journal `{}`", path.display()))?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.and_then(|file| AppendFile::new(file, whole as u64));
        let file = file.with_context(|| format!("failed to open `{}`", path.display()))?;
        Ok((Self { file, entries: PhantomData }, entries))
    }

    /// Reads the journal of somebody else.
    pub fn read(path: &Path) -> Result<Vec<T>> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        parse(&text[..whole]).with_context(|| format!("journal `{}`", path.display()))
    }

    /// Adds an entry; it is durable when this returns.
    pub fn append(&mut self, entry: &T) -> Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        Ok(self.file.append(&line)?)
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, before) = Journal::open(&path).unwrap();
        assert_eq!(before, []);
        journal.append(&OperatorEntry::Task(TaskId(1))).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"task\":"].concat()).unwrap();
        let (mut journal, before) = Journal::open(&path).unwrap();
        assert_eq!(before, [OperatorEntry::Task(TaskId(1))]);
        journal.append(&OperatorEntry::Closed(TaskId(1))).unwrap();
        assert_eq!(
            Journal::<OperatorEntry>::read(&path).unwrap(),
            [OperatorEntry::Task(TaskId(1)), OperatorEntry::Closed(TaskId(1))]
        );
    }
}
