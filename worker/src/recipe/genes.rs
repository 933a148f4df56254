//! Names of genes: another column, a table of identifiers, versions cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use archipelago_anndata::{DataFrame, align::Duplicates};
use archipelago_common::fs;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where the names of genes come from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneNames {
    /// The var column with the identifiers; the names of the rows if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Cut a version off, as in `ENSG00000090382.7`.
    pub strip_version: bool,
    /// What becomes of genes of one name: `sum` or `refuse`.
    pub duplicates: Duplicates,
    /// What becomes of genes that the table lacks: `keep` or `drop`.
    pub unmapped: Unmapped,
    /// Identifier to name: a file of two columns separated by tabs or commas, or the pairs themselves.
    #[serde(skip_serializing_if = "Table::is_none")]
    pub table: Table,
}

impl Default for GeneNames {
    fn default() -> Self {
        Self {
            column: None,
            strip_version: false,
            duplicates: Duplicates::Sum,
            unmapped: Unmapped::Keep,
            table: Table::Pairs(BTreeMap::new()),
        }
    }
}

/// Where identifiers are looked up.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Table {
    /// In a file, until the recipe is read.
    File(PathBuf),
    /// Here.
    Pairs(BTreeMap<String, String>),
}

impl Table {
    fn is_none(&self) -> bool {
        matches!(self, Self::Pairs(pairs) if pairs.is_empty())
    }
}

/// What becomes of genes that a table lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Unmapped {
    /// They keep their name.
    #[default]
    Keep,
    /// They are left out.
    Drop,
}

impl GeneNames {
    /// Puts the pairs of a file in the place of its name.
    ///
    /// # Errors  [`Error::ConfigFile`], [`Error::Recipe`] for lines that are no pair, or an identifier with two names
    pub fn read_table(&mut self, folder: &Path) -> Result<()> {
        if let Table::File(path) = &self.table {
            let path = folder.join(path);
            self.table = Table::Pairs(read_pairs(&path)?);
        }
        Ok(())
    }

    /// Forgets identifiers that lead to no gene of the panel.
    pub(super) fn keep_targets(&mut self, panel: &[String]) {
        let panel: BTreeSet<&String> = panel.iter().collect();
        if let Table::Pairs(pairs) = &mut self.table {
            pairs.retain(|_, name| panel.contains(name));
        }
    }

    /// The name of each gene of `var`, `None` for one that is left out. A gene that bears a name of the table already
    /// keeps it: a file whose genes were mapped is not changed by the same table.
    ///
    /// # Errors  [`Error::Anndata`] when the column is missing
    pub fn names(&self, var: &DataFrame) -> Result<Vec<Option<String>>> {
        let given: Vec<Option<String>> = match &self.column {
            Some(column) => var.column(column)?.to_strings(),
            None => var.index().iter().cloned().map(Some).collect(),
        };
        let empty = BTreeMap::new();
        let pairs = match &self.table {
            Table::Pairs(pairs) => pairs,
            Table::File(_) => &empty,
        };
        let targets: BTreeSet<&str> = pairs.values().map(String::as_str).collect();
        let name = |id: Option<String>| {
            let id = id.filter(|id| !id.is_empty())?;
            let id = if self.strip_version { without_version(&id).to_owned() } else { id };
            match pairs.get(&id) {
                Some(name) => Some(name.clone()),
                None if pairs.is_empty() || self.unmapped == Unmapped::Keep || targets.contains(&*id) => Some(id),
                None => None,
            }
        };
        Ok(given.into_iter().map(name).collect())
    }
}

/// An identifier without a version such as `.7`; symbols with a dot and letters keep it.
fn without_version(id: &str) -> &str {
    match id.rsplit_once('.') {
        Some((stem, version)) if id.starts_with("ENS") && version.bytes().all(|b| b.is_ascii_digit()) => stem,
        _ => id,
    }
}

fn read_pairs(path: &Path) -> Result<BTreeMap<String, String>> {
    let invalid = |detail: String| Error::Recipe { path: path.into(), detail };
    let bytes =
        fs::read_bounded(path, TABLE_BYTES).map_err(|source| Error::ConfigFile { path: path.into(), source })?;
    let text = String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8 text".to_owned()))?;
    let mut pairs = BTreeMap::new();
    for (n, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let separator = if line.contains('\t') { '\t' } else { ',' };
        let fields: Vec<&str> = line.split(separator).map(|field| field.trim().trim_matches('"')).collect();
        let [id, name] = fields[..] else {
            return Err(invalid(format!("line {n} has {} fields, expected identifier and name", fields.len())));
        };
        if name.is_empty() || id.is_empty() {
            continue;
        }
        if let Some(other) = pairs.insert(id.to_owned(), name.to_owned()).filter(|other| other != name) {
            return Err(invalid(format!("line {n} calls `{id}` `{name}`, an earlier one `{other}`")));
        }
    }
    Ok(pairs)
}

/// Every gene of a genome with its name takes some megabytes.
const TABLE_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(genes: &GeneNames, names: &[&str]) -> Vec<Option<String>> {
        genes.names(&DataFrame::new(names.to_vec())).unwrap()
    }

    fn table(unmapped: Unmapped) -> GeneNames {
        let pairs = [("ENSG1", "LYZ"), ("ENSG2", "LYZ"), ("ENSG3", "CD3D")];
        let pairs = pairs.map(|(id, name)| (id.to_owned(), name.to_owned()));
        GeneNames { table: Table::Pairs(pairs.into()), strip_version: true, unmapped, ..GeneNames::default() }
    }

    fn some(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| Some((*name).to_owned())).collect()
    }

    #[test]
    fn identifiers_are_looked_up_without_their_version() {
        let names = ["ENSG1.12", "ENSG2", "ENSG9.1", "HLA-A.x", "RP11-1.3"];
        assert_eq!(mapped(&table(Unmapped::Keep), &names), some(&["LYZ", "LYZ", "ENSG9", "HLA-A.x", "RP11-1.3"]));
        assert_eq!(mapped(&table(Unmapped::Drop), &names)[2..], [None, None, None]);
    }

    #[test]
    fn mapping_twice_changes_nothing() {
        assert_eq!(mapped(&table(Unmapped::Drop), &["LYZ", "CD3D"]), some(&["LYZ", "CD3D"]));
    }

    #[test]
    fn a_line_that_is_no_pair_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_pairs(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read("E1,\"LYZ\"\nE2,\n").unwrap(), BTreeMap::from([("E1".to_owned(), "LYZ".to_owned())]));
        assert!(read("E1,LYZ\nE2\n").unwrap_err().contains("line 2 has 1 fields"));
        assert!(read("E1,LYZ\nE1,CD3D\n").unwrap_err().contains("line 2 calls `E1` `CD3D`"));
    }
}
