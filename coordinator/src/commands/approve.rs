//! `approve`: lets a site in that asks, or gives one that is in another certificate.

use std::io::{IsTerminal as _, Write as _};

use archipelago_common::{
    Fingerprint, Principal, SiteId,
    enrolment::{EnrolmentRecord, EnrolmentState},
    limits,
    signature::{Signature, Statement},
};
use archipelago_protocol::message::{Reply, Request};
use archipelago_transport::{
    Credentials,
    ca::{Asked, Validity},
};
use clap::Args;

use super::{Connection, authority::AuthorityArgs, requests, signing::now_ms, unexpected};
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Let sites in that ask: certify their keys here, and enrol them. Give those that are in, and ask, another certificate.
///
/// Of a new site, compare each fingerprint with what the site says its `join` shows, by a way that is not these coordinators: on the telephone, say.
/// It is asked for on a terminal; a program gives it with --fingerprint, one for each site in their order. The authority's key is used here and goes nowhere.
/// A site that asks for another certificate has signed that with the key that it has, which is checked here: nothing is to be compared.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-coordinator approve north --config operator.toml\n  \
    archipelago-coordinator approve north --fingerprint 0b4c-… --config operator.toml\n  \
    archipelago-coordinator approve --renewals --config operator.toml")]
pub struct ApproveArgs {
    /// The sites' names.
    #[arg(required_unless_present = "renewals", value_name = "SITE")]
    sites: Vec<SiteId>,
    /// All that ask for another certificate.
    #[arg(long, conflicts_with_all = ["sites", "fingerprints"])]
    renewals: bool,
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
    let (authority, credentials) = args.authority.load(&args.connection)?;
    let records = args.connection.talk(async |client| Ok(client.enrolments().await?))?;
    let sites = if args.renewals { renewals(&records) } else { args.sites.clone() };
    // All are compared before any is let in.
    let mut certificates = Vec::new();
    for (i, site) in sites.iter().enumerate() {
        let (key, request, signature) = waiting(&records, site)?;
        let asked = Asked::read(request).map_err(|detail| not_sound(site, &detail))?;
        let expected = Principal::Site(site.clone());
        if asked.key != key || asked.name != expected.to_string() {
            return Err(not_sound(site, &format!("it is for `{:.80}` with key {}", asked.name, asked.key)));
        }
        match (signature, args.fingerprints.get(i).copied()) {
            (Some(signature), None) => check_signature(&credentials, site, request, signature)?,
            (_, said) => confirm(site, key, said)?,
        }
        certificates.push(authority.sign_request(request, &expected, Validity::days(args.days))?);
    }
    let approved = args.connection.talk(async |client| {
        let mut approved = Vec::new();
        for (site, certificate) in sites.iter().zip(certificates) {
            match client.request(Request::ApproveSite { site: site.clone(), certificate }).await? {
                Reply::Enrolment(record) => approved.push(*record),
                reply => return Err(unexpected(reply)),
            }
        }
        Ok(approved)
    })?;
    let lines: String = approved.iter().map(|record| requests::line(record) + "\n").collect();
    output.show(&approved, if lines.is_empty() { "nobody asks for another certificate".to_owned() } else { lines });
    Ok(())
}

/// The sites that ask for another certificate.
fn renewals(records: &[EnrolmentRecord]) -> Vec<SiteId> {
    let asks = |record: &&EnrolmentRecord| matches!(record.state, EnrolmentState::Renewing { .. });
    records.iter().filter(asks).map(|record| record.site.clone()).collect()
}

/// Whether a site itself asks: it has signed that with a key that this consortium's authority has certified as its own.
fn check_signature(credentials: &Credentials, site: &SiteId, request: &str, signature: &Signature) -> Result<()> {
    let statement = Statement::of_renewal(site, request, signature.signed_ms);
    let signer = credentials.signer(&statement, signature).map_err(|error| not_sound(site, &error.to_string()))?;
    if signer != Principal::Site(site.clone()) {
        return Err(not_sound(site, &format!("it is signed by `{signer}`")));
    }
    let age_ms = now_ms().abs_diff(signature.signed_ms);
    if age_ms > limits::LONGEST_INVITATION_MS {
        let days = age_ms / 86_400_000;
        return Err(not_sound(site, &format!("by this machine's clock it was signed {days} days from now")));
    }
    Ok(())
}

/// The request of a site, its key as the coordinators say it, and its signature where it asks for another certificate.
fn waiting<'a>(records: &'a [EnrolmentRecord], site: &SiteId) -> Result<(Fingerprint, &'a str, Option<&'a Signature>)> {
    let nothing = |detail: &str| Error::Config { place: format!("`{site}`"), detail: detail.to_owned() };
    let record = records.iter().find(|record| record.site == *site);
    match &record.ok_or_else(|| nothing("it was not invited; say `invite` first"))?.state {
        EnrolmentState::Asked { key, request, .. } => Ok((*key, request, None)),
        EnrolmentState::Renewing { key, request, signature, .. } => Ok((*key, request, Some(signature))),
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

#[cfg(test)]
mod tests {
    use archipelago_transport::ca::{Authority, signing_request};

    use super::*;

    fn authority() -> Authority {
        Authority::create("lung".parse().unwrap(), Validity::days(10)).unwrap().0
    }

    fn credentials(authority: &Authority, who: &str) -> Credentials {
        let issued = authority.issue(&who.parse().unwrap(), Validity::days(1)).unwrap();
        Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key).unwrap()
    }

    /// What coordinators could make up who want a key of theirs certified under a site's name.
    #[test]
    fn a_renewal_that_the_site_has_not_signed_is_not_approved() {
        let (ours, forged) = (authority(), authority());
        let operator = credentials(&ours, "operator/anna");
        let north: SiteId = "north".parse().unwrap();
        let [request, other] = [(); 2].map(|()| signing_request(&Principal::Site(north.clone())).unwrap().1);
        let signed = |by: &Credentials, of: &str, at_ms| by.sign(&Statement::of_renewal(&north, of, at_ms)).unwrap();
        let check = |signature: &Signature| check_signature(&operator, &north, &request, signature);
        let own = credentials(&ours, "site/north");
        check(&signed(&own, &request, now_ms())).unwrap();
        for (signature, why) in [
            (signed(&own, &other, now_ms()), "expected one of what it comes with"),
            (signed(&credentials(&forged, "site/north"), &request, now_ms()), "was not signed by the authority"),
            (signed(&credentials(&ours, "site/south"), &request, now_ms()), "it is signed by `site/south`"),
            (signed(&credentials(&ours, "operator/ben"), &request, now_ms()), "it is signed by `operator/ben`"),
            (signed(&own, &request, now_ms() - 40 * 86_400_000), "not valid when it was signed"),
            (Signature { signed_ms: 1, ..signed(&own, &request, now_ms()) }, "not valid when it was signed"),
        ] {
            let error = check(&signature).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("do not approve it"), "{error}, expected {why}");
        }
    }
}
