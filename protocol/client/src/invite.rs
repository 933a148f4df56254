//! The file that an operator gives to a site so that it can come in: whom to call, whom to believe, and a key to ask with, once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use archipelago_common::{Digest, Name, NodeId, Principal, SiteId, fs, hash::FieldHasher};
use archipelago_transport::Credentials;
use serde::{Deserialize, Serialize};

/// An invitation. Whoever has it may ask, once, to have a key certified as the site's; keep it as a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// The consortium.
    pub consortium: Name,
    /// The site that is invited.
    pub site: SiteId,
    /// The last moment at which anything comes of it, Unix milliseconds.
    pub expires_ms: u64,
    /// The consortium's certificate authority, PEM.
    pub authority: String,
    /// What the coordinators let in, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// The coordinators, as `host:port` by node id.
    pub coordinators: BTreeMap<String, String>,
}

/// The invitation with what shows that nothing of it was lost on the way.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Digest of all that follows.
    digest: Digest,
    invitation: Invite,
}

/// An invitation that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// The file cannot be read or written.
    #[error("failed to open the invitation `{}`: {detail}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// It is not what the operator wrote.
    #[error("`{}` is no invitation as `invite` writes it: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// It has ended.
    #[error("the invitation `{}` ended on {ended}, and it is {now} by this machine's clock", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When, UTC.
        ended: String,
        /// This machine's time, UTC.
        now: String,
    },
}

impl InviteError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => "give the file that the operator sent",
            Self::Damaged { .. } => "ask the operator to send the file again, as an attachment",
            Self::Expired { .. } => "if the clock is right, ask the operator for a new invitation",
        }
    }
}

impl Invite {
    /// The text of the file: comments for people, then TOML.
    pub fn to_text(&self) -> String {
        let Self { consortium, site, .. } = self;
        let about = format!(
            "# An invitation of the consortium `{consortium}` for the site `{site}`, good until {}.\n\
             # Whoever has this file may ask, once, to be let in as `{site}`: keep it as you would a password.\n\
             # At the site:  archipelago-worker join {site}.invite --data cells.h5ad --batch-key batch\n\n",
            utc(self.expires_ms)
        );
        let sealed = Sealed { digest: self.digest(), invitation: self.clone() };
        // A value of text and numbers is TOML.
        about + &toml::to_string(&sealed).unwrap_or_default()
    }

    /// Reads an invitation, as far as it can be judged at home.
    ///
    /// # Errors  [`InviteError`]
    pub fn read(path: &Path, now_ms: u64) -> Result<Self, InviteError> {
        let damaged = |detail: String| InviteError::Damaged { path: path.into(), detail };
        let bytes = fs::read_bounded(path, FILE_BYTES).map_err(|error| match error {
            archipelago_common::Error::File { source, .. } => {
                InviteError::File { path: path.into(), detail: source.to_string() }
            }
            other => damaged(other.to_string()),
        })?;
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text".to_owned()))?;
        let Sealed { digest, invitation } = toml::from_str(&text).map_err(|e| damaged(in_one_line(e.message())))?;
        if invitation.digest() != digest {
            return Err(damaged("something of it was changed or lost on the way".to_owned()));
        }
        invitation.nodes().map_err(damaged)?;
        if now_ms > invitation.expires_ms {
            let (ended, now) = (utc(invitation.expires_ms), utc(now_ms));
            return Err(InviteError::Expired { path: path.into(), ended, now });
        }
        let credentials = invitation.credentials().map_err(|error| damaged(error.to_string()))?;
        let us = credentials.identity();
        if us.consortium != invitation.consortium || !matches!(us.principal, Principal::Invited(_)) {
            return Err(damaged(format!("its certificate is of `{us}`")));
        }
        Ok(invitation)
    }

    /// Who asks with it.
    ///
    /// # Errors  PEM text that does not belong together
    pub fn credentials(&self) -> archipelago_transport::Result<Credentials> {
        Credentials::from_pem(&self.authority, &self.certificate, &self.key)
    }

    /// Where the coordinators are; the error says which cannot be read.
    ///
    /// # Errors  the first that is none
    pub fn nodes(&self) -> Result<BTreeMap<NodeId, String>, String> {
        let parse = |(node, address): (&String, &String)| {
            let node = node.parse().map_err(|e: archipelago_common::Error| e.to_string())?;
            archipelago_common::member::check_address(address).map_err(|e| e.to_string())?;
            Ok((node, address.clone()))
        };
        self.coordinators.iter().map(parse).collect()
    }

    /// Of everything, whatever was done to the ends of lines.
    fn digest(&self) -> Digest {
        let mut hasher = FieldHasher::new("archipelago invitation 1");
        hasher.field(self.consortium.as_str().as_bytes()).field(self.site.as_str().as_bytes());
        hasher.field(&self.expires_ms.to_le_bytes());
        for pem in [&self.authority, &self.certificate, &self.key] {
            for line in pem.lines() {
                hasher.field(line.trim_end().as_bytes());
            }
            hasher.field(b"");
        }
        for (node, address) in &self.coordinators {
            hasher.field(node.as_bytes()).field(address.as_bytes());
        }
        hasher.finish()
    }
}

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        write!(f, "Invite({} of {})", self.site, self.consortium)
    }
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn utc(at_ms: u64) -> String {
    let at = i64::try_from(at_ms / 1000).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    at.and_then(|at| at.format(&format).ok()).unwrap_or_else(|| format!("{at_ms} ms"))
}

/// An invitation takes some kilobytes.
const FILE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use archipelago_transport::ca::{Authority, Validity};

    use super::*;

    fn invite() -> Invite {
        let (authority, _) = Authority::create("lung".parse().unwrap(), Validity::days(10)).unwrap();
        let (_, issued) = authority.invite(Validity::days(1)).unwrap();
        Invite {
            consortium: "lung".parse().unwrap(),
            site: "north".parse().unwrap(),
            expires_ms: 100_000,
            authority: authority.certificate().to_owned(),
            certificate: issued.certificate,
            key: issued.key,
            coordinators: [("1".to_owned(), "10.0.0.1:7101".to_owned())].into(),
        }
    }

    fn read(text: &str, now_ms: u64) -> Result<Invite, InviteError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("north.invite");
        std::fs::write(&path, text).unwrap();
        Invite::read(&path, now_ms)
    }

    #[test]
    fn an_invitation_is_read_as_it_was_written_also_with_other_ends_of_lines() {
        let invite = invite();
        let text = invite.to_text();
        assert_eq!(read(&text, 99_999).unwrap(), invite);
        read(&text.replace('\n', "\r\n"), 100_000).unwrap();
    }

    #[test]
    fn whatever_is_changed_or_lost_is_noticed() {
        let text = invite().to_text();
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("\"north\"", "\"south\""), ("= 100000", "= 900000")] {
            assert!(text.contains(from), "{text}");
            let error = read(&text.replacen(from, to, 1), 1).unwrap_err();
            assert!(error.to_string().contains("changed or lost"), "{error}");
        }
        for n_bytes in (0..text.len()).step_by(97) {
            let error = read(&text[..n_bytes], 1).unwrap_err();
            assert!(matches!(error, InviteError::Damaged { .. }), "{n_bytes}: {error}");
        }
    }

    #[test]
    fn an_invitation_ends() {
        let error = read(&invite().to_text(), 100_001).unwrap_err();
        assert!(matches!(&error, InviteError::Expired { ended, .. } if ended.starts_with("1970-01-01")), "{error}");
    }
}
