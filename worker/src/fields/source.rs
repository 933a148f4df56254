//! Where a file holds a field, as one word that people write and references remember.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// A place in a file of cells.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// `obs/<column>`: a column of obs.
    Obs(String),
    /// `obsm/<key>`, or `obsm/<key>@uns/<names>`: a table of obsm. A data frame has the names of its columns itself.
    Obsm {
        /// Its key.
        key: String,
        /// The key of uns that holds the names of its columns.
        names: Option<String>,
    },
    /// `varm/<key>`, or `varm/<key>@uns/<names>`: a table of genes and gene sets. A data frame has the names of its columns itself.
    Varm {
        /// Its key.
        key: String,
        /// The key of uns that holds the names of its columns.
        names: Option<String>,
    },
    /// `X`, `layers/<layer>`, `mod/<modality>` or `mod/<modality>/layers/<layer>`: a matrix of cells and features.
    Matrix {
        /// The modality of an h5mu file.
        modality: Option<String>,
        /// The layer; `X` if none.
        layer: Option<String>,
    },
    /// `file/<path>`: a file of its own, such as one of gene sets.
    File(PathBuf),
    /// `none`: the cells do not have the field, whatever a reference takes.
    Nowhere,
}

/// How places are written, for errors and help.
const FORMS: &str = "`obs/COLUMN`, `obsm/KEY`, `obsm/KEY@uns/NAMES`, `varm/KEY@uns/NAMES`, `X`, `layers/LAYER`, \
                         `mod/MODALITY`, `mod/MODALITY/layers/LAYER`, `file/PATH` or `none`";

impl Source {
    /// A column of obs.
    pub fn obs(column: impl Into<String>) -> Self {
        Self::Obs(column.into())
    }

    /// A layer of the file, or `X`.
    pub fn layer(layer: Option<String>) -> Self {
        Self::Matrix { modality: None, layer }
    }

    /// `X` of a modality.
    pub fn modality(name: impl Into<String>) -> Self {
        Self::Matrix { modality: Some(name.into()), layer: None }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is no place in a file, expected {FORMS}");
        let named = |name: &str| if name.is_empty() { Err(refuse()) } else { Ok(name.to_owned()) };
        let layer = |rest: &str| rest.strip_prefix("layers/").ok_or_else(refuse).and_then(named);
        let table = |rest: &str| match rest.split_once("@uns/") {
            Some((key, names)) => Ok((named(key)?, Some(named(names)?))),
            None => Ok((named(rest)?, None)),
        };
        match text {
            "none" => return Ok(Self::Nowhere),
            "X" => return Ok(Self::layer(None)),
            _ => {}
        }
        let (group, rest) = text.split_once('/').ok_or_else(refuse)?;
        match group {
            "obs" => named(rest).map(Self::Obs),
            "obsm" => table(rest).map(|(key, names)| Self::Obsm { key, names }),
            "varm" => table(rest).map(|(key, names)| Self::Varm { key, names }),
            "layers" => Ok(Self::layer(Some(named(rest)?))),
            "mod" => match rest.split_once('/') {
                Some((modality, rest)) => {
                    Ok(Self::Matrix { modality: Some(named(modality)?), layer: Some(layer(rest)?) })
                }
                None => Ok(Self::modality(named(rest)?)),
            },
            "file" => named(rest).map(|path| Self::File(path.into())),
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Obs(column) => write!(f, "obs/{column}"),
            Self::Obsm { key, names: None } => write!(f, "obsm/{key}"),
            Self::Obsm { key, names: Some(names) } => write!(f, "obsm/{key}@uns/{names}"),
            Self::Varm { key, names: None } => write!(f, "varm/{key}"),
            Self::Varm { key, names: Some(names) } => write!(f, "varm/{key}@uns/{names}"),
            Self::Matrix { modality: None, layer: None } => f.write_str("X"),
            Self::Matrix { modality: None, layer: Some(layer) } => write!(f, "layers/{layer}"),
            Self::Matrix { modality: Some(modality), layer: None } => write!(f, "mod/{modality}"),
            Self::Matrix { modality: Some(modality), layer: Some(layer) } => {
                write!(f, "mod/{modality}/layers/{layer}")
            }
            Self::File(path) => write!(f, "file/{}", path.display()),
            Self::Nowhere => f.write_str("none"),
        }
    }
}

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_read_as_it_is_written() {
        for text in [
            "obs/cell_type",
            "obs/a/b",
            "obsm/protein_expression",
            "obsm/ADT@uns/names",
            "varm/I@uns/terms",
            "varm/sets",
            "X",
            "layers/counts",
            "mod/atac",
            "mod/rna/layers/counts",
            "file//data/sets.gmt",
            "none",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!("file/sets.gmt".parse::<Source>().unwrap(), Source::File("sets.gmt".into()));
    }

    #[test]
    fn what_is_no_place_is_refused_with_the_forms_there_are() {
        for text in ["cell_type", "obs/", "var/x", "mod/rna/obs/x", "obsm/a@uns/", ""] {
            let refused = text.parse::<Source>().unwrap_err();
            assert!(refused.contains("mod/MODALITY") && refused.contains(text), "{refused}");
        }
    }
}
