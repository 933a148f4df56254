//! What a client asked and what it was told, for the check that one order of all operations explains every answer.
//!
//! A line is written before a request goes out and another when its answer is there, so that a client that is killed in between
//! leaves an operation that may have taken effect or not. All processes of a campaign share one clock.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, Result};
use archipelago_client::ClientError;
use archipelago_histories::{Answer, Call, Operation};
use serde::{Deserialize, Serialize};

use crate::event::now_us;

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    Asked { n: u64, at_us: u64, call: Call },
    Answered { n: u64, at_us: u64, answer: Answer },
}

/// Writes down what one client asks. Clones are the same client.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<Lines>>);

#[derive(Debug)]
struct Lines {
    file: std::fs::File,
    /// Operations so far, those of earlier processes of this client too.
    n: u64,
}

impl Recorder {
    /// Goes on with the history in a folder.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = history_path(dir);
        let n = read(dir, "").map_or(0, |operations| operations.len() as u64);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("failed to open `{}`", path.display()))?;
        Ok(Self(Arc::new(Mutex::new(Lines { file, n }))))
    }

    /// Asks, and writes down what is asked and what the answer says. An error that is no refusal leaves the operation open.
    pub async fn ask<T>(
        &self,
        call: Call,
        asked: impl Future<Output = Result<T, ClientError>>,
        understood: impl FnOnce(&T) -> Option<Answer>,
    ) -> Result<Result<T, ClientError>> {
        let n = self.asked(call)?;
        let result = asked.await;
        let answer = match &result {
            Ok(reply) => understood(reply),
            Err(ClientError::Refused(_)) => Some(Answer::Refused),
            Err(_) => None,
        };
        answer.map_or(Ok(()), |answer| self.answered(n, answer))?;
        Ok(result)
    }

    /// Notes what is about to be asked; its number.
    pub fn asked(&self, call: Call) -> Result<u64> {
        let mut lines = self.0.lock().unwrap_or_else(|e| e.into_inner());
        lines.n += 1;
        let n = lines.n;
        lines.write(&Line::Asked { n, at_us: now_us(), call })?;
        Ok(n)
    }

    /// Notes an answer.
    pub fn answered(&self, n: u64, answer: Answer) -> Result<()> {
        let mut lines = self.0.lock().unwrap_or_else(|e| e.into_inner());
        lines.write(&Line::Answered { n, at_us: now_us(), answer })
    }
}

impl Lines {
    /// In one piece: a kill leaves whole lines, and what was written stays with the system.
    fn write(&mut self, line: &Line) -> Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        Ok(std::io::Write::write_all(&mut self.file, &bytes)?)
    }
}

/// The operations in the history in a folder, of a client of this name. None where there is no history.
pub fn read(dir: &Path, client: &str) -> Result<Vec<Operation>> {
    let path = history_path(dir);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut operations = BTreeMap::new();
    for line in text.lines() {
        let line = serde_json::from_str(line).with_context(|| format!("`{}` holds `{line}`", path.display()))?;
        match line {
            Line::Asked { n, at_us, call } => {
                let client = client.to_owned();
                operations.insert(n, Operation { client, call, invoked: at_us, returned: None, answer: None });
            }
            Line::Answered { n, at_us, answer } => {
                let operation = operations.get_mut(&n).context("an answer to what was never asked")?;
                (operation.returned, operation.answer) = (Some(at_us), Some(answer));
            }
        }
    }
    Ok(operations.into_values().collect())
}

fn history_path(dir: &Path) -> PathBuf {
    dir.join("history.jsonl")
}

#[cfg(test)]
mod tests {
    use archipelago_common::TaskId;

    use super::*;

    fn claim(task: u64) -> Call {
        Call::Claim { task: TaskId(task), site: "north".parse().unwrap() }
    }

    #[tokio::test]
    async fn what_was_not_answered_stays_open_and_a_new_process_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let told = |epoch: &u64| Some(Answer::Assigned { epoch: *epoch });
        let recorder = Recorder::open(dir.path()).unwrap();
        recorder.ask(claim(1), async { Ok(4) }, told).await.unwrap().unwrap();
        // Killed before the answer.
        recorder.asked(claim(2)).unwrap();
        let again = Recorder::open(dir.path()).unwrap();
        assert!(again.ask(claim(3), async { Err(ClientError::Closed) }, told).await.unwrap().is_err());
        let operations = read(dir.path(), "north").unwrap();
        let seen: Vec<_> = operations.iter().map(|o| (o.call.clone(), o.answer.clone())).collect();
        let first = (claim(1), Some(Answer::Assigned { epoch: 4 }));
        assert_eq!(seen, [first, (claim(2), None), (claim(3), None)]);
        assert!(operations[0].returned >= Some(operations[0].invoked) && operations[1].returned.is_none());
    }
}
