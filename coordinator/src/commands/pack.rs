//! `reference pack`: a reference in one file, for whoever is in no consortium.

use std::path::{Path, PathBuf};

use archipelago_common::{Name, VersionId, reference_dir::ReferenceDir};
use archipelago_pack::{Card, Contents, Manifest};
use clap::Args;
use serde::Serialize;

use super::{
    Connection,
    signing::{Signing, now_ms},
};
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Write a reference directory as one file, signed with the operator's key: for a paper, an archive of data, or another consortium.
///
/// No coordinator is asked. The file is a zip that anybody can look into; `archipelago-worker inspect` and `unpack` verify it. With
/// `--card` it says what the reference is, by the fields of a model card of scvi-hub, all of which may be left out:
///
/// {"title": "Lung of 107 people", "description": "…", "license": "CC-BY-4.0", "data_modalities": ["rna"], "tissues": ["lung"],
/// "training_data_url": "https://…", "training_code_url": "https://…", "references": ["…"]}
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-coordinator reference fetch lung --out lung-v2 --config operator.toml\n  \
    archipelago-coordinator reference pack lung lung-v2 --out lung.zip --card card.json --config operator.toml")]
pub struct PackArgs {
    /// The name that it has.
    name: Name,
    /// The directory that `archipelago-worker train` or `reference fetch` wrote.
    dir: PathBuf,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What it is, for people, as JSON.
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// Where the reference's cells lie, as `archipelago-worker latent` wrote it: whoever has the file has these places too.
    #[arg(long, value_name = "H5AD")]
    embedding: Option<PathBuf>,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    connection: Connection,
}

/// What was packed.
#[derive(Serialize)]
struct Packed {
    out: PathBuf,
    version: VersionId,
    bytes: u64,
    signed_by: Option<String>,
}

/// Runs the command.
///
/// # Errors  a directory that is no reference, files that cannot be read or written, a key that cannot sign
pub(super) fn run(args: &PackArgs, output: &Output) -> Result<()> {
    let reference = ReferenceDir::open(&args.dir)?;
    let card = args.card.as_deref().map(Card::read).transpose()?.unwrap_or_default();
    let credentials = args.signing.credentials(&args.connection)?;
    let contents = Contents {
        name: &args.name,
        reference: &reference,
        dir: &args.dir,
        embedding: args.embedding.as_deref(),
        card: &card,
    };
    let manifest = archipelago_pack::write::<Error>(&args.out, &contents, now_ms(), |statement| {
        Ok(credentials.as_ref().map(|credentials| credentials.sign(statement)).transpose()?)
    })?;
    let signed_by = credentials.map(|credentials| credentials.identity().to_string());
    let packed = Packed { out: args.out.clone(), version: manifest.version, bytes: size(&args.out), signed_by };
    let text = text(&packed, &manifest);
    output.show(&packed, text);
    Ok(())
}

fn text(packed: &Packed, manifest: &Manifest) -> String {
    let Packed { out, version, bytes, signed_by } = packed;
    let signed = signed_by.as_deref().unwrap_or("nobody");
    let Manifest { name, model, n_genes, columns, .. } = manifest;
    let n = columns.len();
    format!(
        "reference   {name}, {model} on {n_genes} genes, {n} keys\nversion     {version}\nsigned by   {signed}\nwrote       {}, {bytes} bytes",
        out.display()
    )
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
