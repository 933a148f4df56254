//! The PEM files of one side, which may be replaced while it runs: by a renewal, or by a person who copies others over them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use archipelago_common::{fs, hash::Digest, limits};
use time::OffsetDateTime;

use crate::{
    Credentials,
    credentials::{FILE_BYTES, file_error, minute, unix_ms},
    error::Result,
};

/// Where certificate, key and authority are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialFiles {
    /// The certificates of the authorities that are accepted: usually one, two while one takes the other's place.
    pub authority: PathBuf,
    /// This side's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl CredentialFiles {
    /// What is there now; see [`Credentials::load`].
    ///
    /// # Errors  as there
    pub fn load(&self) -> Result<Credentials> {
        Credentials::load(&self.authority, &self.certificate, &self.key)
    }

    /// Looks again and again, takes up what was replaced, and warns of an end that is near. Ends with whoever waits for it.
    pub async fn keep(self, credentials: Credentials) {
        let mut seen = self.digest().ok();
        // Files that are replaced one after the other do not fit for a moment: only what stays so is worth a word.
        let mut said = seen;
        let mut warned = None;
        loop {
            warned = warn_of_end(&credentials, warned);
            tokio::time::sleep(LOOK).await;
            let found = self.digest().ok();
            if found == seen && found == said {
                continue;
            }
            match self.load().and_then(|replaced| credentials.replace(&replaced)) {
                Ok(()) => {
                    let certified = credentials.certified();
                    tracing::info!(certificate = %self.certificate.display(), key = %certified.key, "another certificate was taken up");
                    (said, warned) = (found, None);
                }
                Err(error) if found == seen => {
                    tracing::warn!(%error, "what stands in place of certificate, key or authority is not taken up");
                    said = found;
                }
                Err(_) => {}
            }
            seen = found;
        }
    }

    fn digest(&self) -> Result<Digest> {
        let mut all = Vec::new();
        for path in [&self.authority, &self.certificate, &self.key] {
            all.extend_from_slice(Digest::of(&read(path)?).as_bytes());
        }
        Ok(Digest::of(&all))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read_bounded(path, FILE_BYTES).map_err(file_error)
}

/// Says once a day that this side's certificate ends within [`limits::CERTIFICATE_WARNING_MS`]. When that was last said.
fn warn_of_end(credentials: &Credentials, last: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    let (now, (_, ends)) = (OffsetDateTime::now_utc(), credentials.validity());
    let left_ms = unix_ms(ends).saturating_sub(unix_ms(now));
    let is_due = last.is_none_or(|last| now - last >= time::Duration::DAY);
    if left_ms > limits::CERTIFICATE_WARNING_MS || !is_due {
        return last;
    }
    let principal = &credentials.identity().principal;
    tracing::warn!(%principal, ends = minute(ends), days_left = left_ms / DAY_MS, "this side's certificate ends soon");
    Some(now)
}

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(500);
const DAY_MS: u64 = 86_400_000;
