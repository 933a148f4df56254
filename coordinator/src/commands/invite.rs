//! `invite`: the file with which a site comes in.

use std::{
    collections::BTreeMap,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use archipelago_client::{Client, invite::Invite};
use archipelago_common::{SiteId, enrolment::EnrolmentRecord, fs, limits, member};
use archipelago_protocol::message::{Reply, Request};
use archipelago_transport::ca::{Authority, Validity};
use clap::Args;
use serde::Serialize;

use super::{Connection, authority::AuthorityArgs, unexpected, utc};
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Invite sites: write the one file that each needs to come in.
///
/// Send the file as you would a password: whoever has it may ask, once, to be let in under this name. What is asked is then shown by
/// `requests`, and nobody is in before `approve`. Only the fingerprint of the key in the file is told to the coordinators. A later
/// invitation for the same site takes the place of an earlier one that nobody has used.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  archipelago-coordinator invite north --config operator.toml\n  \
    archipelago-coordinator invite north east west --config operator.toml")]
pub struct InviteArgs {
    /// The sites' names.
    #[arg(required = true, value_name = "SITE")]
    sites: Vec<SiteId>,
    /// For how many days the invitation is good, its approval included.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=limits::LONGEST_INVITATION_MS / DAY_MS))]
    days: u64,
    /// The folder to write to; each file has its site's name, with .invite [default: this one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    authority: AuthorityArgs,
    #[command(flatten)]
    connection: Connection,
}

/// What was written.
#[derive(Serialize)]
struct Written {
    file: PathBuf,
    #[serde(flatten)]
    invitation: EnrolmentRecord,
}

/// Runs the command.
///
/// # Errors  a file that exists, an authority that cannot be used, the cluster's refusal, or that it cannot be reached
pub fn run(args: &InviteArgs, output: &Output) -> Result<()> {
    let out = args.out.clone().unwrap_or_default();
    let files: Vec<_> = args.sites.iter().map(|site| out.join(format!("{site}.invite"))).collect();
    if let Some(file) = files.iter().find(|file| file.exists()) {
        let detail = "it exists already; give another --out, or remove it if nobody has used it".to_owned();
        return Err(Error::Config { place: format!("`{}`", file.display()), detail });
    }
    let (authority, _) = args.authority.load(&args.connection)?;
    if let Some(out) = &args.out {
        fs::create_dir(out)?;
    }
    let written = args.connection.talk(async |client| {
        let mut written = Vec::new();
        for (site, file) in args.sites.iter().zip(files) {
            let (invite, invitation) = invite(client, &authority, site, args.days).await?;
            write(&file, &invite)?;
            written.push(Written { file, invitation });
        }
        Ok(written)
    })?;
    let text: String = written.iter().map(line).collect();
    output.show(&written, text);
    Ok(())
}

/// Makes an invitation and tells the coordinators of its key.
async fn invite(client: &Client, authority: &Authority, site: &SiteId, days: u64) -> Result<(Invite, EnrolmentRecord)> {
    // The end is by the coordinators' time: they say when it has come.
    let expires_ms = coordinators_time(client).await? + days * DAY_MS;
    let (fingerprint, issued) = authority.invite(Validity::until_ms(expires_ms))?;
    let request = Request::Invite { site: site.clone(), invitation: fingerprint, expires_ms };
    let invitation = match client.request(request).await? {
        Reply::Enrolment(record) => *record,
        reply => return Err(unexpected(reply)),
    };
    let invite = Invite {
        consortium: authority.consortium().clone(),
        site: site.clone(),
        expires_ms,
        authority: authority.certificate().to_owned(),
        certificate: issued.certificate,
        key: issued.key,
        coordinators: coordinators(client).await?,
    };
    Ok((invite, invitation))
}

fn write(file: &Path, invite: &Invite) -> Result<()> {
    let write = || {
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        new.write_all(invite.to_text().as_bytes())?;
        new.sync_all()
    };
    let failed = |source| archipelago_common::Error::File { action: "create", path: file.to_owned(), source };
    Ok(write().map_err(failed)?)
}

fn line(Written { file, invitation: EnrolmentRecord { site, expires_ms, .. } }: &Written) -> String {
    format!(
        "wrote {0}, good until {1}; send it to `{site}` as you would a password\n  \
         there: archipelago-worker join {site}.invite --data cells.h5ad --batch-key batch\n  \
         here:  archipelago-coordinator approve {site}\n",
        file.display(),
        utc(*expires_ms)
    )
}

/// What time it is for the coordinators, Unix milliseconds.
pub(super) async fn coordinators_time(client: &Client) -> Result<u64> {
    match client.request(Request::ShowTime).await? {
        Reply::Time(now_ms) => Ok(now_ms),
        reply => Err(unexpected(reply)),
    }
}

/// Where the coordinators are now, whatever the operator's file says.
async fn coordinators(client: &Client) -> Result<BTreeMap<String, String>> {
    match client.request(Request::ListMembers).await? {
        Reply::Members(members) => {
            let addresses = member::addresses(members.members.iter().map(|status| &status.member));
            Ok(addresses.into_iter().map(|(node, address)| (node.to_string(), address)).collect())
        }
        reply => Err(unexpected(reply)),
    }
}

const DAY_MS: u64 = 86_400_000;
