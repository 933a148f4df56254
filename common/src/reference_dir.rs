//! A reference version as a directory: what training writes, publishing reads, and fetching writes again.
//!
//! ```text
//! <dir>/version.json            what there is: version id, digests, sizes, file names
//!       base.safetensors        the base file, see [`crate::Base`]
//!       columns/<n>.safetensors one file per key, its columns or its member of a part, numbered in key order
//! ```
//!
//! `version.json` is written last, so a directory that has one is whole. Everything read is checked against it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    blob::BlobRef,
    condition::{Columns, ConditionKey},
    error::{Error, Result},
    fs,
    id::{Name, VersionId},
    layout::Layout,
    limits,
    manifest::{Base, Version},
    part::{self, Member},
};

/// A directory that holds one version, whole and verified when it was opened.
#[derive(Clone, Debug)]
pub struct ReferenceDir {
    dir: PathBuf,
    version: Version,
    files: BTreeMap<ConditionKey, PathBuf>,
}

impl ReferenceDir {
    /// Writes a version and its directory.
    ///
    /// # Errors  [`Error::File`], [`Error::Decode`] if the base's card has a number JSON cannot hold
    pub fn write(dir: &Path, base: &Base, columns: &BTreeMap<ConditionKey, Columns>) -> Result<Self> {
        Self::write_with_parts(dir, base, columns, &BTreeMap::new())
    }

    /// The same with the members of parts.
    ///
    /// # Errors  as [`Self::write`]
    pub fn write_with_parts(
        dir: &Path,
        base: &Base,
        columns: &BTreeMap<ConditionKey, Columns>,
        parts: &BTreeMap<ConditionKey, Member>,
    ) -> Result<Self> {
        fs::create_dir(dir)?;
        let base_bytes = base.to_bytes()?;
        fs::write_atomic(&dir.join(BASE_FILE), &base_bytes)?;
        let mut version = Version { base: BlobRef::of(&base_bytes), columns: BTreeMap::new() };
        drop(base_bytes);
        fs::create_dir(&dir.join(COLUMNS_DIR))?;
        let columns = columns.iter().map(|(key, columns)| (key, columns.to_bytes()));
        let parts = parts.iter().map(|(key, member)| (key, member.to_bytes()));
        let files: BTreeMap<&ConditionKey, Vec<u8>> = columns.chain(parts).collect();
        for (position, (key, bytes)) in files.into_iter().enumerate() {
            fs::write_atomic(&dir.join(columns_file(position)), &bytes)?;
            version.columns.insert(key.clone(), BlobRef::of(&bytes));
        }
        Self::seal(dir, &version)
    }

    /// The files of a version that is to be fetched, with the paths where [`Self::seal`] will look for them.
    pub fn layout(dir: &Path, version: &Version) -> Vec<(BlobRef, PathBuf)> {
        let columns = version.columns.values().enumerate();
        std::iter::once((version.base, dir.join(BASE_FILE)))
            .chain(columns.map(|(position, blob)| (*blob, dir.join(columns_file(position)))))
            .collect()
    }

    /// Declares a directory whole, after every file of [`Self::layout`] is in its place, and opens it.
    ///
    /// # Errors  those of [`Self::open`]
    pub fn seal(dir: &Path, version: &Version) -> Result<Self> {
        let entry = |(position, (key, blob)): (usize, (&ConditionKey, &BlobRef))| {
            (key.clone(), FileEntry { file: columns_file(position), blob: *blob })
        };
        let contents = Contents {
            format: FORMAT,
            version: version.id(),
            base: version.base,
            columns: version.columns.iter().enumerate().map(entry).collect(),
        };
        let text = serde_json::to_vec_pretty(&contents)
            .map_err(|e| Error::Decode { what: VERSION_FILE, detail: e.to_string() })?;
        fs::write_atomic(&dir.join(VERSION_FILE), &text)?;
        Self::open(dir)
    }

    /// Opens a directory and checks every file against its digest, without holding more than a piece of it.
    ///
    /// # Errors  [`Error::File`], [`Error::Decode`], [`Error::UnknownVersion`], [`Error::DigestMismatch`]
    pub fn open(dir: &Path) -> Result<Self> {
        let bytes = fs::read_bounded(&dir.join(VERSION_FILE), VERSION_FILE_BYTES)?;
        let decode = |detail: String| Error::Decode { what: VERSION_FILE, detail };
        let Format { format } = serde_json::from_slice(&bytes).map_err(|e| decode(e.to_string()))?;
        if format != FORMAT {
            return Err(Error::UnknownVersion { what: VERSION_FILE, found: format, expected: FORMAT });
        }
        let contents: Contents = serde_json::from_slice(&bytes).map_err(|e| decode(e.to_string()))?;
        let mut version = Version { base: contents.base, columns: BTreeMap::new() };
        let mut files = BTreeMap::new();
        verify(&dir.join(BASE_FILE), &contents.base)?;
        for (key, FileEntry { file, blob }) in contents.columns {
            if !is_columns_file(&file) {
                return Err(decode(format!("`{file}` is not a file name of the form `{COLUMNS_DIR}/<n>.safetensors`")));
            }
            verify(&dir.join(&file), &blob)?;
            version.columns.insert(key.clone(), blob);
            files.insert(key, dir.join(file));
        }
        if version.id() != contents.version {
            let (what, expected, found) = (VERSION_FILE.to_owned(), contents.version.0, version.id().0);
            return Err(Error::DigestMismatch { what, expected, found });
        }
        Ok(Self { dir: dir.to_owned(), version, files })
    }

    /// The version that the directory holds.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Every file with what is in it, base first.
    pub fn files(&self) -> impl Iterator<Item = (BlobRef, PathBuf)> {
        let columns = self.version.columns.iter().map(|(key, blob)| (*blob, self.files[key].clone()));
        std::iter::once((self.version.base, self.dir.join(BASE_FILE))).chain(columns)
    }

    /// Reads the base.
    ///
    /// # Errors  [`Error::File`], [`Error::DigestMismatch`], [`Error::Decode`]
    pub fn base(&self) -> Result<Base> {
        let path = self.dir.join(BASE_FILE);
        let bytes = fs::read_bounded(&path, limits::BLOB_BYTES)?;
        self.version.base.verify(&path.display().to_string(), &bytes)?;
        Base::from_bytes(&bytes)
    }

    /// Reads the columns of every key that owns some.
    ///
    /// # Errors  [`Error::File`], [`Error::DigestMismatch`], [`Error::Decode`]
    pub fn columns(&self) -> Result<BTreeMap<ConditionKey, Columns>> {
        let owners = self.files.iter().filter(|(key, _)| !key.is_part());
        owners.map(|(key, path)| Ok((key.clone(), Columns::from_bytes(&self.read(key, path)?)?))).collect()
    }

    /// Reads every member of a part, under the rule that the base's layout has for it.
    ///
    /// # Errors  [`Error::File`], [`Error::DigestMismatch`], [`Error::Decode`]
    pub fn parts(&self, layout: &Layout) -> Result<BTreeMap<ConditionKey, Member>> {
        let members = self.files.iter().filter(|(key, _)| key.is_part());
        let member = |(key, path): (&ConditionKey, &PathBuf)| {
            let undeclared = || Error::Decode {
                what: VERSION_FILE,
                detail: format!("`{key}` belongs to {}, which the card does not declare", key.section()),
            };
            let rule = layout.rule(key.section()).ok_or_else(undeclared)?;
            Ok((key.clone(), Member::from_bytes(rule, &self.read(key, path)?)?))
        };
        members.map(member).collect()
    }

    /// Computes a value that the card derives from a part.
    ///
    /// # Errors  [`Error::InvalidValue`] for a value that the card does not derive, or a function that only its model has; those
    /// of [`Self::parts`]
    pub fn derive(&self, value: &Name) -> Result<Vec<u8>> {
        let layout = self.base()?.card.layout;
        let refuse = |expected| Err(Error::InvalidValue { what: "derived value", found: value.to_string(), expected });
        let Some(derivation) = layout.derived.get(value) else {
            return refuse("a value that the reference's card derives");
        };
        let mut members = self.parts(&layout)?;
        members.retain(|key, _| part::reads(derivation, key.section()));
        match part::derive(derivation, &layout, &members)? {
            Some(bytes) => Ok(bytes),
            None => refuse("one whose function this program has; name the file with its value"),
        }
    }

    fn read(&self, key: &ConditionKey, path: &Path) -> Result<Vec<u8>> {
        let limit = if key.is_part() { limits::PART_BYTES } else { limits::COLUMNS_BYTES };
        let bytes = fs::read_bounded(path, limit)?;
        self.version.columns[key].verify(&path.display().to_string(), &bytes)?;
        Ok(bytes)
    }
}

/// Name of the file that says what a directory holds.
pub const VERSION_FILE: &str = "version.json";
/// Name of the base file.
pub const BASE_FILE: &str = "base.safetensors";
const COLUMNS_DIR: &str = "columns";
const FORMAT: u32 = 1;
// A key and its entry are under 400 bytes of text, and there are at most `limits::CONDITIONS`.
const VERSION_FILE_BYTES: u64 = 400 * limits::CONDITIONS as u64;

/// Looked at first, so that a later format is named as such.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    format: u32,
    version: VersionId,
    base: BlobRef,
    columns: BTreeMap<ConditionKey, FileEntry>,
}

#[derive(Serialize, Deserialize)]
struct FileEntry {
    file: String,
    #[serde(flatten)]
    blob: BlobRef,
}

fn columns_file(position: usize) -> String {
    format!("{COLUMNS_DIR}/{position}.safetensors")
}

/// A directory may come from someone else: a name in it must not lead out of it.
fn is_columns_file(file: &str) -> bool {
    let number = file.strip_prefix(COLUMNS_DIR).and_then(|f| f.strip_prefix('/')?.strip_suffix(".safetensors"));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn verify(path: &Path, expected: &BlobRef) -> Result<()> {
    let found = fs::blob_ref(path)?;
    if found == *expected {
        return Ok(());
    }
    let what = format!("`{}`", path.display());
    Err(Error::DigestMismatch { what, expected: expected.digest, found: found.digest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        layout::{Derivation, Rule},
        manifest::BaseCard,
        pool::{Pool, TableSpec},
        state_dict::{DType, StateDict, Tensor, TensorSpec},
    };

    fn base() -> Base {
        let card = BaseCard {
            format: BaseCard::PLAIN_FORMAT,
            model: "scvi".to_owned(),
            config: BTreeMap::new(),
            genes: vec!["LYZ".to_owned()],
            batch_key: "batch".to_owned(),
            labels_key: None,
            labels: vec![],
            layout: Layout::plain(BTreeMap::from([("w".to_owned(), TensorSpec { dtype: DType::F32, shape: vec![1] })])),
            moves_embedding: true,
            training: BTreeMap::new(),
            recipe: None,
        };
        Base { card, tensors: StateDict::from_iter([("b".to_owned(), Tensor::from_f32(&[1], &[1.0]))]) }
    }

    fn columns() -> BTreeMap<ConditionKey, Columns> {
        let column = |value| Columns(StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[1], &[value]))]));
        BTreeMap::from([("op/ref/a".parse().unwrap(), column(1.0)), ("op/ref/b".parse().unwrap(), column(2.0))])
    }

    fn written() -> (tempfile::TempDir, ReferenceDir) {
        let dir = tempfile::tempdir().unwrap();
        let written = ReferenceDir::write(dir.path(), &base(), &columns()).unwrap();
        (dir, written)
    }

    #[test]
    fn a_directory_round_trips() {
        let (dir, written) = written();
        let opened = ReferenceDir::open(dir.path()).unwrap();
        assert_eq!(opened.version(), written.version());
        assert_eq!(opened.base().unwrap(), base());
        assert_eq!(opened.columns().unwrap(), columns());
        assert_eq!(opened.files().collect::<Vec<_>>(), ReferenceDir::layout(dir.path(), opened.version()));
    }

    #[test]
    fn members_of_parts_are_kept_beside_columns_and_read_under_their_rule() {
        let dir = tempfile::tempdir().unwrap();
        let mut base = base();
        base.card.layout.parts.insert("models".parse().unwrap(), Rule::Union);
        base.card.format = base.card.layout.card_format();
        let member = Member::Tensors(StateDict::from_iter([("t".to_owned(), Tensor::from_f32(&[1], &[5.0]))]));
        let parts = BTreeMap::from([("op/ref+models/m".parse().unwrap(), member)]);
        let written = ReferenceDir::write_with_parts(dir.path(), &base, &columns(), &parts).unwrap();
        let opened = ReferenceDir::open(dir.path()).unwrap();
        assert_eq!(opened.version(), written.version());
        assert_eq!(opened.columns().unwrap(), columns());
        assert_eq!(opened.parts(&base.card.layout).unwrap(), parts);
        assert!(opened.parts(&Layout::plain(BTreeMap::new())).is_err());
    }

    #[test]
    fn the_sum_of_a_pool_is_derived_from_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut base = base();
        let tables = BTreeMap::from([("n".to_owned(), TableSpec::counts(&[]))]);
        let (counts, value): (Name, Name) = ("counts".parse().unwrap(), "totals".parse().unwrap());
        base.card.layout.parts.insert(counts.clone(), Rule::Pool { tables: tables.clone() });
        let derivation = |function: &str| Derivation { function: function.parse().unwrap(), part: counts.clone() };
        base.card.layout.derived.insert(value.clone(), derivation(part::SUM));
        base.card.layout.derived.insert("tree".parse().unwrap(), derivation("hpl-99"));
        base.card.format = base.card.layout.card_format();
        let member = |n| {
            let mut pool = Pool::new(tables.clone());
            pool.add("T", "n", 0, n).unwrap();
            Member::Sums(pool)
        };
        let parts = ["op/ref+counts/a", "op/ref+counts/b"]
            .map(|key| key.parse().unwrap())
            .into_iter()
            .zip([member(2.0), member(3.0)]);
        let written = ReferenceDir::write_with_parts(dir.path(), &base, &columns(), &parts.collect()).unwrap();
        assert_eq!(written.derive(&value).unwrap(), member(5.0).to_bytes());
        assert!(written.derive(&"tree".parse().unwrap()).unwrap_err().to_string().contains("name the file"));
        assert!(written.derive(&counts).is_err());
    }

    #[test]
    fn a_changed_file_is_refused_by_name() {
        let (dir, _) = written();
        let path = dir.path().join("columns/1.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = ReferenceDir::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, Error::DigestMismatch { .. }) && error.to_string().contains("1.safetensors"),
            "{error}"
        );
    }

    #[test]
    fn an_edited_version_file_is_refused() {
        let (dir, _) = written();
        let path = dir.path().join(VERSION_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        let refused = |text: String| {
            std::fs::write(&path, text).unwrap();
            ReferenceDir::open(dir.path()).unwrap_err().to_string()
        };
        assert!(refused(text.replace("op/ref/b", "op/ref/c")).contains("does not match its digest"));
        assert!(refused(text.replace("columns/0", "columns/../../0")).contains("is not a file name"));
        assert!(refused(text.replace("\"format\": 1", "\"format\": 9")).contains("version 9"));
        assert!(refused("{".to_owned()).contains(VERSION_FILE));
    }

    #[test]
    fn a_directory_without_its_version_file_is_not_a_reference() {
        let (dir, _) = written();
        std::fs::remove_file(dir.path().join(VERSION_FILE)).unwrap();
        assert!(matches!(ReferenceDir::open(dir.path()), Err(Error::File { .. })));
    }
}
