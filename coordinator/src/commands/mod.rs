//! One file per command: its flags, its work, its result.

use std::{path::PathBuf, time::Duration};

use archipelago_client::{Client, ClientConfig, Patience};
use archipelago_protocol::message::{Reply, Request};
use archipelago_transport::{Credentials, net::Network};
use clap::Args;

use crate::{
    config::{OperatorConfig, Peers},
    error::{Error, Result},
};

pub mod approve;
pub mod audit;
pub mod authority;
pub mod blobs;
pub mod ca;
mod certified;
pub mod clock;
pub mod completions;
pub mod demands;
pub mod doctor;
pub mod events;
pub mod found;
pub mod init;
pub mod invite;
pub mod members;
pub(crate) mod pace;
mod pack;
pub mod page;
pub mod proposals;
pub mod reference;
pub mod refuse;
pub mod requests;
pub mod revoke;
pub mod serve;
pub mod signing;
pub mod site;
pub mod status;
pub mod task;
pub mod withdraw;

/// Whom to ask, and as whom: a file, flags, or flags that override some of a file.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// A file with the fields ca, certificate, key and the table coordinators.
    #[arg(long, value_name = "FILE", env = "ARCHIPELAGO_CONFIG")]
    config: Option<PathBuf>,
    /// The coordinators, as `1=host:port,2=host:port`.
    #[arg(long, value_name = "ADDRESSES")]
    coordinators: Option<Peers>,
    /// The consortium's certificate authority.
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
    /// The operator's certificate.
    #[arg(long, value_name = "PEM")]
    cert: Option<PathBuf>,
    /// The operator's private key.
    #[arg(long, value_name = "PEM")]
    key: Option<PathBuf>,
    /// How long to wait for an answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

impl Connection {
    /// The file's values, if there is one, under those of the flags.
    fn resolve(&self) -> Result<OperatorConfig> {
        let file = self.config.as_deref().map(OperatorConfig::read).transpose()?;
        let missing = |flag: &str| Error::Config {
            place: format!("--{flag}"),
            detail: "it is missing; give it, or --config with a file that has all of them".to_owned(),
        };
        let path = |flag: &Option<PathBuf>, of_file: fn(&OperatorConfig) -> &PathBuf, name| {
            flag.clone().or_else(|| file.as_ref().map(of_file).cloned()).ok_or_else(|| missing(name))
        };
        let coordinators = self.coordinators.clone().or_else(|| file.as_ref().map(|file| file.coordinators.clone()));
        Ok(OperatorConfig {
            coordinators: coordinators.ok_or_else(|| missing("coordinators"))?,
            ca: path(&self.ca, |file| &file.ca, "ca")?,
            certificate: path(&self.cert, |file| &file.certificate, "cert")?,
            key: path(&self.key, |file| &file.key, "key")?,
            authority: file.as_ref().and_then(|file| file.authority.clone()),
            transport: file.as_ref().and_then(|file| file.transport),
            proxy: file.as_ref().and_then(|file| file.proxy.clone()),
        })
    }

    /// Runs a conversation with the cluster.
    ///
    /// # Errors  [`Error::Config`], [`Error::Transport`] for the certificates, [`Error::Client`]
    pub fn talk<T>(&self, conversation: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
        let config = self.resolve()?;
        let known = Some(config.certificate.with_file_name(KNOWN));
        let client = ClientConfig { known, ..self.client(config)? };
        runtime()?.block_on(async { conversation(&Client::connect(client).await?).await })
    }

    /// A client as the configuration says, that remembers nothing.
    fn client(&self, config: OperatorConfig) -> Result<ClientConfig> {
        let credentials = Credentials::load(&config.ca, &config.certificate, &config.key)?;
        let network = Network::configured(config.transport, config.proxy.as_deref())
            .map_err(|detail| Error::Config { place: "the network".to_owned(), detail })?;
        Ok(ClientConfig {
            coordinators: config.coordinators.0,
            credentials,
            software: concat!("archipelago-coordinator ", env!("CARGO_PKG_VERSION")).to_owned(),
            patience: Patience::Within(Duration::from_secs(self.timeout)),
            known: None,
            network,
        })
    }

    /// Asks one thing.
    ///
    /// # Errors  as [`Self::talk`]
    pub fn ask(&self, request: Request) -> Result<Reply> {
        self.talk(async |client| Ok(client.request(request).await?))
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|source| Error::Runtime { source })
}

/// An answer of another kind than the question asks for: it was proposed and not done, or the coordinator runs another version.
fn unexpected(reply: Reply) -> Error {
    if let Reply::Proposal(proposal) = reply {
        return Error::Proposed { proposal: proposals::line(&proposal) };
    }
    Error::UnexpectedReply { reply: format!("{reply:?}").chars().take(80).collect() }
}

/// Milliseconds of the leader's clock as text in UTC.
pub(crate) fn utc(at_ms: u64) -> String {
    let at = i64::try_from(at_ms / 1000).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    at.and_then(|at| at.format(&format).ok()).unwrap_or_else(|| format!("{at_ms} ms"))
}

/// Beside an operator's certificate: the coordinators that its commands were with last.
const KNOWN: &str = "coordinators.known";
