//! Keeps the site's certificate from ending: long before, a new key is made here, and asked to be certified over the session that stands.
//!
//! The request is signed with the key that the site has, so the operator need compare nothing on the telephone. Once approved, new key
//! and certificate take the places of the old ones on disk, and whoever watches the files takes them up ([`CredentialFiles::keep`]).
//! A crash at any point leaves a pair that fits, or one that [`settle`] makes fit at the next start.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use archipelago_common::{
    Fingerprint, Principal,
    enrolment::{EnrolmentRecord, EnrolmentState},
    fs,
    id::SiteId,
    signature::Statement,
    text::printable,
};
use archipelago_transport::{
    CredentialFiles, Credentials,
    ca::{self, Certified},
};

use crate::{
    chain::now_ms,
    config::SiteConfig,
    egress::Uplink,
    error::{Error, Result},
    output,
};

/// The site's certificate, and when another is asked for.
pub(crate) struct Renewal {
    site: SiteId,
    credentials: Credentials,
    files: CredentialFiles,
    after: f64,
    told: Option<Fingerprint>,
}

/// How a look at the certificate ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    /// Nothing is due.
    Idle,
    /// An operator is to say something.
    Waits,
    /// An operator has said no.
    Refused,
    /// Another certificate is here.
    Renewed,
}

impl Renewal {
    pub(crate) fn new(config: &SiteConfig, credentials: Credentials) -> Self {
        let (site, files) = (config.site.clone(), config.credential_files());
        Self { site, credentials, files, after: config.renew_after, told: None }
    }

    /// Looks now and then, for as long as the worker lives.
    pub(crate) async fn keep(mut self, uplink: Uplink) {
        let mut wait = SOON;
        loop {
            let looked = match self.is_due() {
                true => self.renew(&uplink).await,
                false => Ok(Look::Idle),
            };
            let pause = match looked {
                Ok(Look::Idle | Look::Renewed) => IDLE,
                // An operator may be at it, and may be on holiday.
                Ok(Look::Waits) => {
                    wait = IDLE.min(wait * 2);
                    wait
                }
                Ok(Look::Refused) => AFTER_REFUSAL,
                Err(error) => {
                    tracing::warn!(error = output::chain(&error), "the certificate cannot be renewed at the moment");
                    AFTER_FAULT
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn is_due(&self) -> bool {
        self.after < 1.0 && self.credentials.share_over(now_ms()) >= self.after
    }

    /// Asks, or takes what the operator has certified.
    async fn renew(&mut self, uplink: &Uplink) -> Result<Look> {
        let key_file = new_key_file(&self.files.key);
        let principal = Principal::Site(self.site.clone());
        if !key_file.exists() {
            let (pem, _) = ca::signing_request(&principal)?;
            ca::write_key(&key_file, &pem)?;
        }
        let (request, key) = ca::signing_request_of(&key_file, &principal)?;
        let record = match uplink.enrolment().await?.filter(|record| key_of(record) == Some(key)) {
            Some(record) => record,
            None => {
                let statement = Statement::of_renewal(&self.site, &request, now_ms());
                uplink.renew_certificate(request, self.credentials.sign(&statement)?).await?
            }
        };
        match record.state {
            EnrolmentState::Approved { certificate, .. } => {
                self.keep_certificate(key, &certificate)?;
                tracing::info!(%key, certificate = %self.files.certificate.display(), "the certificate was renewed");
                Ok(Look::Renewed)
            }
            EnrolmentState::Refused { reason, by, .. } => {
                let reason = printable(&reason, REASON_CHARS);
                tracing::warn!(%by, reason, "an operator refused to renew the certificate; it is asked for again tomorrow");
                let gone = std::fs::remove_file(&key_file);
                gone.map_err(|source| Error::File { action: "remove", path: key_file, source })?;
                Ok(Look::Refused)
            }
            EnrolmentState::Renewing { .. } | EnrolmentState::Asked { .. } | EnrolmentState::Invited => {
                if self.told.replace(key) != Some(key) {
                    tracing::info!(%key, "another certificate was asked for: `approve {}`, says the operator", self.site);
                }
                Ok(Look::Waits)
            }
        }
    }

    /// Puts certificate and key in the places of those before, once they are known to be this site's and of an authority that it
    /// accepts: what coordinators say is not believed.
    fn keep_certificate(&self, key: Fingerprint, certificate: &str) -> Result<()> {
        let place = || "the certificate that the coordinators gave".to_owned();
        let certified = Certified::read(certificate).map_err(|detail| Error::Join { place: place(), detail })?;
        if certified.identity != *self.credentials.identity() || certified.key != key {
            let detail = format!("it is of `{}` with key {}; tell the operator", certified.identity, certified.key);
            return Err(Error::Join { place: place(), detail });
        }
        let (new, new_key) = (beside(&self.files.certificate), new_key_file(&self.files.key));
        fs::write_atomic(&new, certificate.as_bytes())?;
        Credentials::load(&self.files.authority, &new, &new_key)?;
        fs::persist(&new, &self.files.certificate)?;
        Ok(fs::persist(&new_key, &self.files.key)?)
    }
}

/// Ends what a crash interrupted: the new certificate is in its place, and its key is not yet.
///
/// # Errors  [`Error::Common`]: the key cannot be moved
pub(crate) fn settle(files: &CredentialFiles) -> Result<()> {
    let key = new_key_file(&files.key);
    let fits = |key: &Path| Credentials::load(&files.authority, &files.certificate, key).is_ok();
    if key.exists() && !fits(&files.key) && fits(&key) {
        fs::persist(&key, &files.key)?;
    }
    Ok(())
}

/// The key that an answer is about.
fn key_of(record: &EnrolmentRecord) -> Option<Fingerprint> {
    match &record.state {
        EnrolmentState::Renewing { key, .. }
        | EnrolmentState::Approved { key, .. }
        | EnrolmentState::Refused { key: Some(key), .. } => Some(*key),
        EnrolmentState::Refused { key: None, .. } | EnrolmentState::Asked { .. } | EnrolmentState::Invited => None,
    }
}

fn new_key_file(key: &Path) -> PathBuf {
    beside(key)
}

/// The file that takes the place of this one.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Between two looks while somebody may be about to say something, at first.
const SOON: Duration = Duration::from_secs(1);
/// Between two looks at the calendar.
const IDLE: Duration = Duration::from_secs(60);
/// After coordinators that cannot answer: of an earlier version, say.
const AFTER_FAULT: Duration = Duration::from_secs(600);
const AFTER_REFUSAL: Duration = Duration::from_secs(86_400);
/// Characters of a reason that are shown.
const REASON_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use archipelago_transport::ca::{Authority, Validity};

    use super::*;

    /// A site's folder in which the certificate is that of `certificate` and the key that of `key`, and what is beside them.
    fn crashed(certificate: &str, key: &str, beside_key: Option<&str>) -> (tempfile::TempDir, CredentialFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = CredentialFiles {
            authority: dir.path().join("ca.pem"),
            certificate: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        fs::write_atomic(&files.certificate, certificate.as_bytes()).unwrap();
        ca::write_key(&files.key, key).unwrap();
        beside_key.into_iter().for_each(|key| ca::write_key(&new_key_file(&files.key), key).unwrap());
        (dir, files)
    }

    #[test]
    fn wherever_a_crash_comes_the_next_start_has_a_pair_that_fits() {
        let (authority, _) = Authority::create("lung".parse().unwrap(), Validity::days(1)).unwrap();
        let north = "site/north".parse().unwrap();
        let [old, new] = [(); 2].map(|()| authority.issue(&north, Validity::days(1)).unwrap());
        for (what, certificate, key, beside) in [
            ("before anything was put in place", &old.certificate, &old.key, Some(&new.key)),
            ("between certificate and key", &new.certificate, &old.key, Some(&new.key)),
            ("after both", &new.certificate, &new.key, None),
        ] {
            let (_dir, files) = crashed(certificate, key, beside.map(String::as_str));
            fs::write_atomic(&files.authority, authority.certificate().as_bytes()).unwrap();
            settle(&files).unwrap();
            assert!(files.load().is_ok(), "{what}");
            let waits = what.starts_with("before");
            assert_eq!(
                new_key_file(&files.key).exists(),
                waits,
                "{what}: a key that was asked for is kept until it is certified"
            );
        }
    }

    #[test]
    fn a_key_that_fits_nothing_is_left_where_it_is() {
        let (authority, _) = Authority::create("lung".parse().unwrap(), Validity::days(1)).unwrap();
        let north = "site/north".parse().unwrap();
        let [one, two, three] = [(); 3].map(|()| authority.issue(&north, Validity::days(1)).unwrap());
        let (_dir, files) = crashed(&one.certificate, &two.key, Some(&three.key));
        fs::write_atomic(&files.authority, authority.certificate().as_bytes()).unwrap();
        settle(&files).unwrap();
        assert!(files.load().is_err() && new_key_file(&files.key).exists());
    }
}
