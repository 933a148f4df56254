//! `unpack`: a reference out of the one file that it was packed in.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use archipelago_common::{
    fs,
    id::{Name, VersionId},
};
use archipelago_pack::{Card, EMBEDDING, Manifest, Pack};
use archipelago_transport::Authorities;
use clap::Args;
use serde::Serialize;

use crate::{error::Result, existing, output::Output};

/// Write a packed reference as a directory, verified.
///
/// Every file is compared with what the pack says that it holds. With `--ca` the pack must be signed by a publisher of the consortium
/// with that authority; without it, know from elsewhere whose it is.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker unpack lung.zip --out reference --ca ca.pem\n  \
    archipelago-worker map reference cells.h5ad --out mapped")]
pub struct UnpackArgs {
    /// The file that `archipelago-coordinator reference pack` wrote.
    pack: PathBuf,
    /// The directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Certificate of the authority of the publisher's consortium.
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
}

/// What a pack holds.
#[derive(Serialize)]
pub(super) struct PackSummary {
    name: Name,
    version: VersionId,
    model: String,
    n_genes: u64,
    n_keys: usize,
    labels: Vec<String>,
    embedding: bool,
    card: Card,
    /// Whether it comes with signatures.
    signed: bool,
    /// Whose word it is, where that was verified.
    signed_by: Option<String>,
}

#[derive(Serialize)]
struct Unpacked {
    out: PathBuf,
    #[serde(flatten)]
    pack: PackSummary,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Pack`] for a file that is no pack, is not what it says, or is signed by nobody who was named
pub fn run(args: &UnpackArgs, output: &Output) -> Result<()> {
    let mut pack = Pack::open(&args.pack)?;
    let summary = PackSummary::new(&pack, args.ca.as_deref())?;
    fs::create_dir(&args.out)?;
    existing::begin(&args.out)?;
    pack.unpack(&args.out)?;
    if summary.embedding {
        output.note(format!("where its cells lie is in `{}`", args.out.join(EMBEDDING).display()));
    }
    output.show(&Unpacked { out: args.out.clone(), pack: summary });
    Ok(())
}

impl PackSummary {
    /// What a pack says of itself, once it was verified against an authority if one is named.
    pub(super) fn new(pack: &Pack, ca: Option<&Path>) -> Result<Self> {
        let signer = match ca {
            Some(ca) => Some(pack.signer(&Authorities::load(ca)?)?.to_string()),
            None => None,
        };
        let Manifest { name, version, model, n_genes, columns, labels, embedding, card, .. } = pack.manifest().clone();
        Ok(Self {
            name,
            version,
            model,
            n_genes,
            n_keys: columns.len(),
            labels,
            embedding: embedding.is_some(),
            card,
            signed: pack.is_signed(),
            signed_by: signer,
        })
    }
}

impl fmt::Display for PackSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, model, n_genes, n_keys, labels, card, .. } = self;
        writeln!(f, "reference   {name}, {model} on {n_genes} genes, {n_keys} keys")?;
        writeln!(f, "version     {version}")?;
        for (what, value) in [("title", &card.title), ("licence", &card.license), ("labels", &labels.join(", "))] {
            if !value.is_empty() {
                writeln!(f, "{what:<11} {value}")?;
            }
        }
        match (&self.signed_by, self.signed) {
            (Some(who), _) => write!(f, "signed by   {who}, verified"),
            (None, true) => write!(f, "signed      not verified: name the authority of its consortium with `--ca`"),
            (None, false) => write!(f, "signed      by nobody"),
        }
    }
}

impl fmt::Display for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nwrote       {}", self.pack, self.out.display())
    }
}
