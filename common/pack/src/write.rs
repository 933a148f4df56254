//! Packing.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use archipelago_common::{
    Name, fs,
    reference_dir::{ReferenceDir, VERSION_FILE},
    signature::{Signature, Statement},
};
use serde::Serialize;
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use crate::{
    EMBEDDING, MANIFEST, README, REFERENCE, SIGNATURES,
    card::Card,
    error::{Error, Result},
    manifest::{FORMAT, Manifest, Signatures},
};

/// What is packed.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The name that the reference has.
    pub name: &'a Name,
    /// Its files.
    pub reference: &'a ReferenceDir,
    /// Where it lies.
    pub dir: &'a Path,
    /// Where its cells lie, an h5ad file.
    pub embedding: Option<&'a Path>,
    /// What it is, for people.
    pub card: &'a Card,
}

/// Writes a pack. `sign` signs a statement, or says that nobody signs. The same contents make the same bytes but for the signatures.
///
/// # Errors  [`Error::Exists`]; [`Error::Common`] for a reference that cannot be read; [`Error::File`]; those of `sign`
pub fn write<E: From<Error>>(
    path: &Path,
    contents: &Contents<'_>,
    signed_ms: u64,
    mut sign: impl FnMut(&Statement) -> Result<Option<Signature>, E>,
) -> Result<Manifest, E> {
    if path.exists() {
        return Err(Error::Exists { path: path.into() }.into());
    }
    let manifest = contents.manifest().map_err(E::from)?;
    let bytes = json(&manifest, path).map_err(E::from)?;
    let [of_reference, of_manifest] = manifest.statements(&bytes, [signed_ms; 2]);
    let signatures = match (sign(&of_reference)?, sign(&of_manifest)?) {
        (Some(reference), Some(manifest)) => Some(Signatures { reference, manifest }),
        _ => None,
    };
    contents.write(path, &manifest, &bytes, signatures.as_ref()).map_err(E::from)?;
    Ok(manifest)
}

impl Contents<'_> {
    fn manifest(&self) -> Result<Manifest> {
        let (card, version) = (self.reference.base()?.card, self.reference.version());
        Ok(Manifest {
            format: FORMAT,
            name: self.name.clone(),
            version: version.id(),
            base: version.base,
            columns: version.columns.clone(),
            model: card.model,
            n_genes: card.genes.len() as u64,
            labels: card.labels,
            embedding: self.embedding.map(fs::blob_ref).transpose()?,
            card: self.card.clone(),
        })
    }

    fn write(&self, path: &Path, manifest: &Manifest, bytes: &[u8], signatures: Option<&Signatures>) -> Result<()> {
        let signatures = signatures.map(|signatures| json(signatures, path)).transpose()?;
        let of_version = (format!("{REFERENCE}{VERSION_FILE}"), self.dir.join(VERSION_FILE));
        let names =
            ReferenceDir::layout(Path::new(REFERENCE), self.reference.version()).into_iter().map(|(_, name)| name);
        let files = names.zip(self.reference.files()).map(|(name, (_, path))| (name.display().to_string(), path));
        let embedding = self.embedding.map(|path| (EMBEDDING.to_owned(), PathBuf::from(path)));
        let files: Vec<_> = std::iter::once(of_version).chain(files).chain(embedding).collect();
        Ok(fs::write_atomic_with(path, |file| {
            let mut zip = ZipWriter::new(BufWriter::new(file));
            put(&mut zip, README, manifest.page().as_bytes())?;
            put(&mut zip, MANIFEST, bytes)?;
            if let Some(signatures) = &signatures {
                put(&mut zip, SIGNATURES, signatures)?;
            }
            for (name, from) in &files {
                zip.start_file(name.as_str(), options())?;
                io::copy(&mut File::open(from)?, &mut zip)?;
            }
            zip.finish()?.flush()
        })?)
    }
}

fn put(zip: &mut ZipWriter<BufWriter<&mut File>>, name: &str, bytes: &[u8]) -> io::Result<()> {
    zip.start_file(name, options())?;
    zip.write_all(bytes)
}

/// Weights do not compress; no clock is in the file.
fn options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(true)
}

fn json(value: &impl Serialize, path: &Path) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| Error::Format { path: path.into(), detail: e.to_string() })
}

pub(crate) fn file_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { action, path: path.into(), source }
}
