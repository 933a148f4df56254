//! What a reference is, for people: the fields of a model card of scvi-hub, as far as they are no facts of the files themselves.

use std::{fmt::Write as _, path::Path};

use archipelago_common::fs;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A card. Everything may be left out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Card {
    /// One line.
    pub title: String,
    /// What it was trained on, what it is for, and what not.
    pub description: String,
    /// The licence under which it may be used, such as `CC-BY-4.0`.
    pub license: String,
    /// What was measured, such as `rna`.
    pub data_modalities: Vec<String>,
    /// Tissues of the cells, such as `lung`.
    pub tissues: Vec<String>,
    /// Where the cells can be had.
    pub training_data_url: String,
    /// Where the code is that trained it.
    pub training_code_url: String,
    /// What to cite.
    pub references: Vec<String>,
}

impl Card {
    /// Reads a card, JSON.
    ///
    /// # Errors  [`Error::Common`], [`Error::Card`] naming the field
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read_bounded(path, LARGEST)?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Card { path: path.into(), detail: e.to_string() })
    }

    /// The card's part of a page for people.
    pub(crate) fn page(&self, page: &mut String) {
        for text in [&self.description].into_iter().filter(|text| !text.is_empty()) {
            let _ = write!(page, "{text}\n\n");
        }
        let joined = [self.data_modalities.join(", "), self.tissues.join(", ")];
        let rows = [
            ("Licence", &self.license),
            ("Modalities", &joined[0]),
            ("Tissues", &joined[1]),
            ("Cells", &self.training_data_url),
            ("Code", &self.training_code_url),
        ];
        for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
            let _ = writeln!(page, "- {name}: {value}");
        }
        for reference in &self.references {
            let _ = writeln!(page, "- Cite: {reference}");
        }
    }
}

/// Nobody reads a longer one.
const LARGEST: u64 = 1 << 20;
