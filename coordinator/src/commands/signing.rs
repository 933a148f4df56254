//! How an operator's commands sign what they publish.

use std::time::{SystemTime, UNIX_EPOCH};

use archipelago_common::signature::{Signature, Statement};
use archipelago_transport::Credentials;
use clap::Args;

use super::Connection;
use crate::error::Result;

/// Whether what is published is signed.
#[derive(Args, Debug)]
pub struct Signing {
    /// Publish without a signature: for coordinators of an earlier version, which know none. Sites may refuse it.
    #[arg(long)]
    unsigned: bool,
}

impl Signing {
    /// The operator's signature of a statement about now, unless none is wanted.
    ///
    /// # Errors  those of the connection's files, and of a key that cannot sign
    pub fn sign(
        &self,
        connection: &Connection,
        statement: impl FnOnce(u64) -> Result<Statement>,
    ) -> Result<Option<Box<Signature>>> {
        let Some(credentials) = self.credentials(connection)? else { return Ok(None) };
        Ok(Some(Box::new(credentials.sign(&statement(now_ms())?)?)))
    }

    /// With what is signed, unless nothing is.
    ///
    /// # Errors  those of the connection's files
    pub fn credentials(&self, connection: &Connection) -> Result<Option<Credentials>> {
        if self.unsigned {
            return Ok(None);
        }
        let config = connection.resolve()?;
        Ok(Some(Credentials::load(&config.ca, &config.certificate, &config.key)?))
    }
}

/// This machine's clock, Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
