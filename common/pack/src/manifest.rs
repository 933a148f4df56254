//! What a pack holds, and whose word it is.

use std::{collections::BTreeMap, fmt::Write as _};

use archipelago_common::{
    BlobRef, ConditionKey, Digest, Name, Version, VersionId,
    signature::{Signature, Statement},
};
use serde::{Deserialize, Serialize};

use crate::card::Card;

/// What is in a pack. Its bytes are what is signed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of the pack.
    pub format: u32,
    /// Name of the reference.
    pub name: Name,
    /// Id of its version: a digest of all that follows of files.
    pub version: VersionId,
    /// The network and its card.
    pub base: BlobRef,
    /// Columns and members of parts, by key.
    pub columns: BTreeMap<ConditionKey, BlobRef>,
    /// Its model.
    pub model: String,
    /// Size of its gene panel.
    pub n_genes: u64,
    /// Labels that it knows.
    pub labels: Vec<String>,
    /// Where its cells lie.
    pub embedding: Option<BlobRef>,
    /// What it is, for people.
    pub card: Card,
}

/// Whose word a pack is: two signatures with one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signatures {
    /// Of name and version, as it is made when a reference is published to a consortium.
    pub reference: Signature,
    /// Of the whole manifest.
    pub manifest: Signature,
}

impl Manifest {
    /// The version that the files make.
    pub(crate) fn files(&self) -> Version {
        Version { base: self.base, columns: self.columns.clone() }
    }

    /// What is signed: the reference, and the manifest by its bytes.
    pub(crate) fn statements(&self, bytes: &[u8], signed_ms: [u64; 2]) -> [Statement; 2] {
        [
            Statement::of_reference(&self.name, self.version, signed_ms[0]),
            Statement::of_pack(&self.name, Digest::of(bytes), signed_ms[1]),
        ]
    }

    /// A page for people. Written anew wherever it is needed, so that it says what the manifest says.
    pub(crate) fn page(&self) -> String {
        let title = if self.card.title.is_empty() { self.name.as_str() } else { &self.card.title };
        let mut page = format!("# {title}\n\n");
        self.card.page(&mut page);
        let n_conditions = self.columns.keys().filter(|key| !key.is_part()).count();
        let _ = write!(
            page,
            "\n- Reference: `{}`, version `{}`\n- Model: {} on {} genes, {n_conditions} conditions\n",
            self.name, self.version, self.model, self.n_genes
        );
        if !self.labels.is_empty() {
            let _ = writeln!(page, "- Cell types: {}", self.labels.join(", "));
        }
        let _ = write!(
            page,
            "\n`archipelago-worker unpack FILE --out reference --ca ca.pem` verifies it, and `archipelago-worker map reference cells.h5ad` \
             maps cells onto it.\n"
        );
        page
    }
}

/// The format that is written.
pub(crate) const FORMAT: u32 = 1;
