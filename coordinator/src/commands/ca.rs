//! `ca`: the consortium's own certificate authority.

use std::path::{Path, PathBuf};

use archipelago_common::{Fingerprint, Name, Principal, fs};
use archipelago_transport::ca::{Asked, Authority, Certified, Issued, Validity, signing_request, write_key};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    output::Output,
};

/// Make and use the consortium's certificate authority.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "the documentation of the arguments is the help text")]
pub enum CaCommand {
    Init(InitArgs),
    Issue(IssueArgs),
    Request(RequestArgs),
    Sign(SignArgs),
}

/// Make the certificate authority of a new consortium.
///
/// Writes ca.pem, which every member needs, and ca.key, which never leaves this machine: whoever has it can be anybody.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator ca init lung-atlas --out ca")]
pub struct InitArgs {
    /// The consortium's name.
    consortium: Name,
    /// The folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long the authority is valid.
    #[arg(long, default_value_t = 3650)]
    days: u32,
}

/// Make a key and a certificate for a member.
///
/// Writes ca.pem, cert.pem and key.pem. For a site, prefer `request` there and `sign` here: then its key never travels.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-coordinator ca issue coordinator/1 --ca ca --out node1\n  \
    archipelago-coordinator ca issue operator/anna --ca ca --out anna\n  \
    archipelago-coordinator ca issue publisher+enroller/ben --ca ca --out ben\n  \
    archipelago-coordinator ca issue site/north --ca ca --out north")]
pub struct IssueArgs {
    /// Role and name, such as coordinator/1, site/north, operator/anna or auditor/eva. Of an operator's roles somebody may have some:
    /// publisher/ben, enroller/ben, administrator/ben, publisher+enroller+auditor+administrator/ben.
    principal: Principal,
    /// The folder that `ca init` wrote.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long the certificate is valid.
    #[arg(long, default_value_t = 365)]
    days: u32,
}

/// Make a key here and a request to have it certified.
///
/// Writes key.pem, which stays, and request.pem, which goes to the operator who runs `ca sign`.
#[derive(Args, Debug)]
#[command(after_help = "Example, at the site:\n  archipelago-coordinator ca request site/north --out north")]
pub struct RequestArgs {
    /// Role and name to ask for.
    principal: Principal,
    /// The folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Certify the key of a signing request.
///
/// Shows the fingerprint of the key, to be compared with what the site says of its own. A request that names somebody else than --as is
/// refused.
#[derive(Args, Debug)]
#[command(after_help = "Example, at the operator:\n  \
    archipelago-coordinator ca sign request.pem --as site/north --ca ca --out north.pem")]
pub struct SignArgs {
    /// The request, from `ca request`.
    request: PathBuf,
    /// Role and name that the key is certified as; who asks is for the operator to verify.
    #[arg(long = "as", value_name = "PRINCIPAL")]
    principal: Principal,
    /// Certify it although the request names somebody else.
    #[arg(long)]
    renamed: bool,
    /// The folder that `ca init` wrote.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The certificate to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How long the certificate is valid.
    #[arg(long, default_value_t = 365)]
    days: u32,
}

/// Files that a command wrote.
#[derive(Serialize)]
struct Written {
    files: Vec<PathBuf>,
    /// Of the key that was made or certified, where it is a member's.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<Fingerprint>,
}

/// Runs the command.
///
/// # Errors  files that exist or cannot be read or written; keys and certificates that do not fit
pub fn run(command: &CaCommand, output: &Output) -> Result<()> {
    let mut fingerprint = None;
    let files = match command {
        CaCommand::Init(args) => {
            let (_, issued) = Authority::create(args.consortium.clone(), Validity::days(args.days))?;
            fs::create_dir(&args.out)?;
            write(&issued, &args.out.join(CA), &args.out.join(CA_KEY))?
        }
        CaCommand::Issue(args) => {
            let authority = load(&args.ca)?;
            let issued = authority.issue(&args.principal, Validity::days(args.days))?;
            fs::create_dir(&args.out)?;
            fingerprint = Certified::read(&issued.certificate).ok().map(|certified| certified.key);
            let mut files = write(&issued, &args.out.join(CERTIFICATE), &args.out.join(KEY))?;
            let ca = args.out.join(CA);
            fs::write_atomic(&ca, authority.certificate().as_bytes())?;
            files.push(ca);
            files
        }
        CaCommand::Request(args) => {
            let (key, request) = signing_request(&args.principal)?;
            fs::create_dir(&args.out)?;
            let files = vec![args.out.join(KEY), args.out.join("request.pem")];
            fingerprint = Asked::read(&request).ok().map(|asked| asked.key);
            write_key(&files[0], &key)?;
            fs::write_atomic(&files[1], request.as_bytes())?;
            files
        }
        CaCommand::Sign(args) => {
            let request = String::from_utf8_lossy(&fs::read_bounded(&args.request, REQUEST_BYTES)?).into_owned();
            fingerprint = Some(key_of(args, &request)?);
            let certificate = load(&args.ca)?.sign_request(&request, &args.principal, Validity::days(args.days))?;
            fs::write_atomic(&args.out, certificate.as_bytes())?;
            vec![args.out.clone()]
        }
    };
    let mut text = files.iter().map(|file| format!("wrote {}\n", file.display())).collect::<String>();
    text += &fingerprint.map_or(String::new(), |key| format!("key   {key}\n"));
    output.show(&Written { files, fingerprint }, text);
    Ok(())
}

/// The key of a request that asks for what it is to be given. One that was not made by `request` may name nobody.
fn key_of(args: &SignArgs, request: &str) -> Result<Fingerprint> {
    let wrong = |detail: String| Error::Config { place: format!("`{}`", args.request.display()), detail };
    let asked = Asked::read(request).map_err(&wrong)?;
    match asked.name.parse::<Principal>() {
        Ok(named) if named != args.principal && !args.renamed => Err(wrong(format!(
            "it asks for `{named}`, expected `{}`, with key {}; if that is meant, say --renamed",
            args.principal, asked.key
        ))),
        _ => Ok(asked.key),
    }
}

/// The authority in a folder.
pub(super) fn load(dir: &Path) -> Result<Authority> {
    Ok(Authority::load(&dir.join(CA), &dir.join(CA_KEY))?)
}

fn write(issued: &Issued, certificate: &Path, key: &Path) -> Result<Vec<PathBuf>> {
    issued.write(certificate, key)?;
    Ok(vec![certificate.to_owned(), key.to_owned()])
}

/// The authority's certificate.
pub(super) const CA: &str = "ca.pem";
/// A member's certificate.
pub(super) const CERTIFICATE: &str = "cert.pem";
/// A member's key.
pub(super) const KEY: &str = "key.pem";
/// The authority's key.
pub(super) const CA_KEY: &str = "ca.key";
/// A signing request is under 1 KiB.
const REQUEST_BYTES: u64 = 64 << 10;
