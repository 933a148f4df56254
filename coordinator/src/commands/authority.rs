//! Where an operator keeps the consortium's authority.

use std::path::{Path, PathBuf};

use archipelago_transport::{Credentials, ca::Authority};
use clap::Args;

use super::{Connection, ca};
use crate::error::{Error, Result};

/// Where the authority is.
#[derive(Args, Debug)]
pub struct AuthorityArgs {
    /// The folder with the authority, ca.pem and ca.key [default: `authority` in the file of --config]
    #[arg(long, value_name = "DIR")]
    authority: Option<PathBuf>,
}

impl AuthorityArgs {
    /// The authority, which is that of the consortium that is asked, and the operator's own certificate.
    ///
    /// # Errors  [`Error::Config`], files that cannot be read
    pub(super) fn load(&self, connection: &Connection) -> Result<(Authority, Credentials)> {
        let config = connection.resolve()?;
        let dir = self.authority.as_deref().or(config.authority.as_deref()).ok_or_else(|| Error::Config {
            place: "--authority".to_owned(),
            detail:
                "it is missing; give the folder with ca.pem and ca.key, or name it as `authority` in the operator's \
                     file"
                    .to_owned(),
        })?;
        let authority = ca::load(dir)?;
        let credentials = Credentials::load(&config.ca, &config.certificate, &config.key)?;
        check_consortium(dir, &authority, &credentials)?;
        Ok((authority, credentials))
    }
}

fn check_consortium(dir: &Path, authority: &Authority, credentials: &Credentials) -> Result<()> {
    let (found, expected) = (authority.consortium(), &credentials.identity().consortium);
    if found == expected {
        return Ok(());
    }
    let place = format!("`{}`", dir.display());
    Err(Error::Config {
        place,
        detail: format!("it is the authority of `{found}`, and this operator is of `{expected}`"),
    })
}
