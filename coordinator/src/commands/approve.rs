//! `approve`: lets a site in that asks.

use std::io::{IsTerminal as _, Write as _};

use archipelago_common::{
    Fingerprint, Principal, SiteId,
    enrolment::{EnrolmentRecord, EnrolmentState},
};
use archipelago_protocol::message::{Reply, Request};
use archipelago_transport::ca::{Asked, Validity};
use clap::Args;

use super::{Connection, authority::AuthorityArgs, requests, unexpected};
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Let sites in that ask: certify their keys here, and enrol them.
///
/// Compare each fingerprint with what the site says its `join` shows, by a way that is not these coordinators: on the telephone, say.
/// It is asked for on a terminal; a program gives it with --fingerprint, one for each site in their order. The authority's key is used here and goes nowhere.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-coordinator approve north --config operator.toml\n  \
    archipelago-coordinator approve north --fingerprint 0b4c-… --config operator.toml")]
pub struct ApproveArgs {
    /// The sites' names.
    #[arg(required = true, value_name = "SITE")]
    sites: Vec<SiteId>,
    /// The fingerprint that a site has told.
    #[arg(long = "fingerprint", value_name = "FINGERPRINT")]
    fingerprints: Vec<Fingerprint>,
    /// How long the certificate is valid.
    #[arg(long, default_value_t = 365)]
    days: u32,
    #[command(flatten)]
    authority: AuthorityArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  nothing that waits, another fingerprint, an authority that cannot be used, the cluster's refusal
pub fn run(args: &ApproveArgs, output: &Output) -> Result<()> {
    let (n_sites, n_said) = (args.sites.len(), args.fingerprints.len());
    if n_said > 0 && n_said != n_sites {
        let detail = format!("there are {n_said} for {n_sites} sites, expected one for each, in their order");
        return Err(Error::Config { place: FINGERPRINT.to_owned(), detail });
    }
    let (authority, _) = args.authority.load(&args.connection)?;
    let records = args.connection.talk(async |client| Ok(client.enrolments().await?))?;
    // All are compared before any is let in.
    let mut certificates = Vec::new();
    for (i, site) in args.sites.iter().enumerate() {
        let (key, request) = waiting(&records, site)?;
        let asked = Asked::read(request).map_err(|detail| not_sound(site, &detail))?;
        let expected = Principal::Site(site.clone());
        if asked.key != key || asked.name != expected.to_string() {
            return Err(not_sound(site, &format!("it is for `{:.80}` with key {}", asked.name, asked.key)));
        }
        confirm(site, key, args.fingerprints.get(i).copied())?;
        certificates.push(authority.sign_request(request, &expected, Validity::days(args.days))?);
    }
    let approved = args.connection.talk(async |client| {
        let mut approved = Vec::new();
        for (site, certificate) in args.sites.iter().zip(certificates) {
            match client.request(Request::ApproveSite { site: site.clone(), certificate }).await? {
                Reply::Enrolment(record) => approved.push(*record),
                reply => return Err(unexpected(reply)),
            }
        }
        Ok(approved)
    })?;
    output.show(&approved, approved.iter().map(|record| requests::line(record) + "\n").collect::<String>());
    Ok(())
}

/// The request of a site, and its key as the coordinators say it.
fn waiting<'a>(records: &'a [EnrolmentRecord], site: &SiteId) -> Result<(Fingerprint, &'a str)> {
    let nothing = |detail: &str| Error::Config { place: format!("`{site}`"), detail: detail.to_owned() };
    let record = records.iter().find(|record| record.site == *site);
    match &record.ok_or_else(|| nothing("it was not invited; say `invite` first"))?.state {
        EnrolmentState::Asked { key, request, .. } => Ok((*key, request)),
        EnrolmentState::Invited => Err(nothing("it was invited and has not asked yet; its `join` asks")),
        EnrolmentState::Approved { .. } => Err(nothing("it was approved already")),
        EnrolmentState::Refused { .. } => Err(nothing("it was refused; say `invite` to invite it anew")),
    }
}

fn not_sound(site: &SiteId, detail: &str) -> Error {
    Error::Config {
        place: format!("the request of `{site}`"),
        detail: format!(
            "it is not what the coordinators say it is: {detail}; do not approve it, and look at the coordinators"
        ),
    }
}

/// Has a person, or the command line, say which key it is.
fn confirm(site: &SiteId, key: Fingerprint, said: Option<Fingerprint>) -> Result<()> {
    let wrong = |detail: String| Err(Error::Config { place: FINGERPRINT.to_owned(), detail });
    match said {
        Some(said) if said == key => Ok(()),
        Some(said) => wrong(format!(
            "it is {said}, but the key of `{site}` that waits is {key}: somebody else may have used the invitation. Say \
             `refuse {site}`, and invite it anew"
        )),
        None if std::io::stdin().is_terminal() => ask(site, key),
        None => wrong(format!(
            "it is missing. The key of `{site}` that waits is {key}; compare it with what the site says its `join` shows, and \
             give it"
        )),
    }
}

fn ask(site: &SiteId, key: Fingerprint) -> Result<()> {
    let shown = key.to_string();
    let _ = write!(
        std::io::stderr().lock(),
        "`{site}` asks with the key\n    {shown}\nIf the site says that its `join` shows the same, type its last four characters: "
    );
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    if read.is_ok() && shown.ends_with(line.trim()) && line.trim().len() == 4 {
        return Ok(());
    }
    let detail = "it was not confirmed; nobody was let in".to_owned();
    Err(Error::Config { place: FINGERPRINT.to_owned(), detail })
}

const FINGERPRINT: &str = "--fingerprint";
