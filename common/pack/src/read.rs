//! Opening and unpacking.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use archipelago_common::{
    BlobRef, Error as Common, Identity, Principal, Role, fs, limits, reference_dir::ReferenceDir,
};
use archipelago_transport::Authorities;
use serde::de::DeserializeOwned;
use zip::ZipArchive;

use crate::{
    EMBEDDING, MANIFEST, README, REFERENCE, SIGNATURES,
    error::{Error, Result},
    manifest::{FORMAT, Manifest, Signatures},
    write::file_error,
};

/// A pack whose manifest was read. Its files are compared with that when they are unpacked.
#[derive(Debug)]
pub struct Pack {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    manifest: Manifest,
    bytes: Vec<u8>,
    signatures: Option<Signatures>,
}

impl Pack {
    /// Whether a file looks like a pack: a zip.
    pub fn is_one(path: &Path) -> bool {
        let mut magic = [0; 4];
        File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"PK\x03\x04"
    }

    /// Reads what a pack says that it holds.
    ///
    /// # Errors  [`Error::File`], [`Error::Format`]
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| file_error("read", path, e))?;
        let wrong = |detail: String| Error::Format { path: path.into(), detail };
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|e| wrong(e.to_string()))?;
        let bytes = entry(&mut zip, path, MANIFEST)?.ok_or_else(|| wrong(format!("it has no `{MANIFEST}`")))?;
        let Format { format } = decode(&bytes, path, MANIFEST)?;
        if format != FORMAT {
            return Err(wrong(format!("its format is {format}, this program reads {FORMAT}")));
        }
        let manifest: Manifest = decode(&bytes, path, MANIFEST)?;
        if manifest.files().id() != manifest.version {
            let (found, said) = (manifest.files().id(), manifest.version);
            return Err(wrong(format!("its files are version {found}, its manifest says {said}")));
        }
        let signatures = entry(&mut zip, path, SIGNATURES)?;
        let signatures = signatures.map(|bytes| decode(&bytes, path, SIGNATURES)).transpose()?;
        Ok(Self { path: path.into(), zip, manifest, bytes, signatures })
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether anybody signed it. Whether that holds is another question.
    pub fn is_signed(&self) -> bool {
        self.signatures.is_some()
    }

    /// Whose word it is, once chain and signatures hold: a publisher of a consortium with one of these authorities.
    ///
    /// # Errors  [`Error::Unsigned`], [`Error::Signature`], [`Error::Signer`]
    pub fn signer(&self, authorities: &Authorities) -> Result<Identity> {
        let path = || self.path.clone();
        let Some(Signatures { reference, manifest }) = &self.signatures else {
            return Err(Error::Unsigned { path: path() });
        };
        let [of_reference, of_manifest] =
            self.manifest.statements(&self.bytes, [reference.signed_ms, manifest.signed_ms]);
        let signer = |statement, signature| {
            authorities.signer(statement, signature).map_err(|source| Error::Signature { path: path(), source })
        };
        let (one, other) = (signer(&of_reference, reference)?, signer(&of_manifest, manifest)?);
        match one == other && publishes(&one.principal) {
            true => Ok(one),
            false => Err(Error::Signer { path: path(), found: format!("{one}` and `{other}") }),
        }
    }

    /// Writes the reference as a directory, with the page for people and the embedding beside it, every byte compared with the manifest.
    /// What says that the directory is whole is written last.
    ///
    /// # Errors  [`Error::Format`] for a file that is missing; [`Error::Common`] for one that is another; [`Error::File`]
    pub fn unpack(&mut self, out: &Path) -> Result<ReferenceDir> {
        let version = self.manifest.files();
        let names = ReferenceDir::layout(Path::new(REFERENCE), &version);
        let files = names.into_iter().zip(ReferenceDir::layout(out, &version));
        let mut files: Vec<_> = files.map(|((blob, name), (_, to))| (blob, name.display().to_string(), to)).collect();
        files.extend(self.manifest.embedding.map(|blob| (blob, EMBEDDING.to_owned(), out.join(EMBEDDING))));
        for (blob, name, to) in files {
            fs::create_dir(to.parent().unwrap_or(out))?;
            self.copy(&name, blob, &to)?;
        }
        fs::write_atomic(&out.join(README), self.manifest.page().as_bytes())?;
        Ok(ReferenceDir::seal(out, &version)?)
    }

    fn copy(&mut self, name: &str, blob: BlobRef, to: &Path) -> Result<()> {
        let missing = |detail: String| Error::Format { path: self.path.clone(), detail };
        let mut entry = self.zip.by_name(name).map_err(|e| missing(format!("`{name}`: {e}")))?;
        // Whatever the entry says of its size: no more is written than the manifest has.
        fs::write_atomic_with(to, |file| {
            io::copy(&mut (&mut entry).take(blob.size.saturating_add(1)), file).map(drop)
        })?;
        let found = fs::blob_ref(to)?;
        if found != blob {
            let (what, expected, found) = (format!("`{name}` of the pack"), blob.digest, found.digest);
            return Err(Common::DigestMismatch { what, expected, found }.into());
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Format {
    format: u32,
}

fn publishes(who: &Principal) -> bool {
    who.may(Role::Publisher)
}

/// A small file of the zip; none where it has no such entry.
fn entry(zip: &mut ZipArchive<BufReader<File>>, path: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let wrong = |detail: String| Error::Format { path: path.into(), detail };
    let entry = match zip.by_name(name) {
        Ok(entry) => entry,
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(wrong(format!("`{name}`: {error}"))),
    };
    let mut bytes = Vec::new();
    let n_read = entry.take(limits::FRAME_BYTES as u64 * 4).read_to_end(&mut bytes);
    n_read.map_err(|e| wrong(format!("`{name}`: {e}")))?;
    Ok(Some(bytes))
}

fn decode<T: DeserializeOwned>(bytes: &[u8], path: &Path, name: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::Format { path: path.into(), detail: format!("`{name}`: {e}") })
}
