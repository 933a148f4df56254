//! `doctor`: what is wrong at a site, step by step, before anybody is called.

use std::path::{Path, PathBuf};

use archipelago_client::{Client, ClientConfig, Patience, doctor};
use archipelago_common::{
    finding::{Findings, in_words},
    principal::Principal,
};
use archipelago_transport::Credentials;
use clap::Args;

use super::DeviceArg;
use crate::{
    config::{DataSection, SiteConfig},
    error::{Error, Result},
    output::Output,
};

mod cells;
mod machine;
mod policy;

/// Look at everything that this site needs to take part, and say what is wrong and what to type.
///
/// Names, UDP, TCP, proxy and certificates on the way to each coordinator; own certificate and key; clock; cells and the genes of
/// each open task's reference; what may leave; disk, memory and device. It changes nothing and sends nothing of the data. Ends
/// with 1 if something does not work.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker doctor --config site.toml\n  \
    archipelago-worker doctor --config site.toml --format json")]
pub struct DoctorArgs {
    /// The site's configuration.
    #[arg(long, value_name = "FILE", env = "ARCHIPELAGO_SITE")]
    config: PathBuf,
    /// Where `serve` is to compute.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    device: DeviceArg,
}

/// Runs the command.
///
/// # Errors  [`archipelago_common::finding::Unwell`] if something does not work
pub fn run(args: &DoctorArgs, output: &Output) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|source| Error::Runtime { source })?;
    let findings = runtime.block_on(look(args));
    output.show(&findings);
    Ok(findings.outcome()?)
}

async fn look(args: &DoctorArgs) -> Findings {
    let mut findings = Findings::default();
    let config = match SiteConfig::read(&args.config) {
        Ok(config) => config,
        Err(error) => {
            fail(&mut findings, "configuration", &error);
            return findings;
        }
    };
    findings.ok("configuration", format!("`{}` of site `{}`", args.config.display(), config.site));
    let client = match credentials(&config, &mut findings) {
        Some(credentials) => session(&config, credentials, &mut findings).await,
        None => None,
    };
    let mut cells = Vec::new();
    for data in &config.data {
        let policy = policy::look(&config, data, &mut findings);
        let opened = policy.and_then(|policy| cells::open(&config, data, &policy, &mut findings));
        cells.extend(opened.map(|opened| (data, opened)));
    }
    match &client {
        _ if cells.is_empty() => {}
        Some(client) => cells::look_at_references(client, &config, &cells, &mut findings).await,
        None => {
            findings.warn("references", "not looked at: there is no session", "mend what stands above, then ask again");
        }
    }
    machine::look(&config, args.device, &cells, &mut findings);
    findings
}

/// What is looked at of a data set, by its name where there are several.
fn of(what: &str, config: &SiteConfig, data: &DataSection) -> String {
    if config.data.len() > 1 { format!("{what}, {}", data.dataset) } else { what.to_owned() }
}

/// Certificate and key, where they can be used.
fn credentials(config: &SiteConfig, findings: &mut Findings) -> Option<Credentials> {
    match Credentials::load(&config.ca, &config.certificate, &config.key) {
        Ok(credentials) => {
            doctor::look_at_credentials(&credentials, &config.certificate, &config.key, findings);
            let certified = &credentials.identity().principal;
            if *certified != Principal::Site(config.site.clone()) {
                let error = Error::WrongIdentity { expected: config.site.clone(), found: certified.to_string() };
                fail(findings, "certificate", &error);
            }
            Some(credentials)
        }
        Err(error) => {
            findings.fail("certificate", in_words(&error), error.hint());
            None
        }
    }
}

async fn session(config: &SiteConfig, credentials: Credentials, findings: &mut Findings) -> Option<Client> {
    let config = ClientConfig {
        coordinators: config.nodes().expect("a configuration that was read names its coordinators"),
        credentials,
        software: concat!("archipelago-worker doctor ", env!("CARGO_PKG_VERSION")).to_owned(),
        patience: Patience::Forever,
        // Nothing is changed, not even what is remembered.
        known: None,
        network: config.network().expect("a configuration that was read says how they are reached"),
    };
    doctor::look(config, findings).await
}

/// A finding of one of the worker's own errors.
fn fail(findings: &mut Findings, what: impl Into<String>, error: &Error) {
    findings.fail(what, in_words(error), error.hints().into_iter().next());
}

/// The nearest directory above a path that exists: what will be written there is made in it.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("."))
}
