//! What a site adds to a reference's model for its own cells: options of a query and gene sets of new terms, from the command line or
//! from the site's configuration.

use std::path::{Path, PathBuf};

use archipelago_analysis::preprocess::SetOptions;
use archipelago_common::BaseCard;
use archipelago_models::{Blueprint, Config, Extension, zoo};
use serde::{Deserialize, Serialize};

use crate::{error::Result, fields::sets_of_files};

/// What is added. It trains at the site and stays there.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Additions {
    /// GMT files with the gene sets of new terms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gene_sets: Vec<PathBuf>,
    /// Options that the model lets a query have, such as `n_ext`.
    #[serde(flatten)]
    pub options: Config,
}

impl Additions {
    /// Whether nothing is added.
    pub fn is_empty(&self) -> bool {
        self.gene_sets.is_empty() && self.options.is_empty()
    }

    /// What is added to the model of a card.
    ///
    /// # Errors  those of [`Self::read`]; [`Error::Models`](crate::Error::Models) for an addition that the model does not take
    pub fn to(&self, card: &BaseCard) -> Result<Extension> {
        let extension = self.read(card)?;
        Blueprint::extended(card, &extension)?;
        Ok(extension)
    }

    /// The same, whatever the model takes. Sets are of the genes of its panel.
    ///
    /// # Errors  [`Error::Config`](crate::Error::Config) for a file without a gene of the panel
    pub fn read(&self, card: &BaseCard) -> Result<Extension> {
        let files: Vec<&Path> = self.gene_sets.iter().map(PathBuf::as_path).collect();
        let gene_sets = match files.is_empty() {
            true => None,
            false => Some(sets_of_files(&files, &card.genes, SetOptions::default())?),
        };
        Ok(Extension { options: self.options.clone(), gene_sets })
    }

    /// The same for a task, whose reference may be of a model that takes no addition: then nothing is added.
    ///
    /// # Errors  those of [`Self::to`]
    pub fn to_task(&self, card: &BaseCard) -> Result<Extension> {
        let takes_none = zoo::model(&card.model)?.options_of_query().is_empty();
        if takes_none { Ok(Extension::default()) } else { self.to(card) }
    }
}
