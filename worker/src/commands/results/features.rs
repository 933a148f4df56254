//! What a model speaks of: its genes and, for a model that takes them, its proteins.

use archipelago_models::{Blueprint, data::slot::Matrix, zoo::totalvi::PROTEINS};

use crate::{
    commands::known::KnownCells,
    error::{Error, Result},
    lists,
};

/// Features in the order of the model's own results: genes, then proteins.
pub(super) struct Features {
    /// Names of the genes, then of the proteins as `<protein>_protein`, which is upstream's name for them.
    pub names: Vec<String>,
    /// Number of genes.
    pub n_genes: usize,
    /// Names of the proteins as the panel has them.
    pub proteins: Vec<String>,
}

impl Features {
    /// The features of the reference.
    pub(super) fn of(known: &KnownCells) -> Result<Self> {
        let card = &known.reference().base.card;
        let registry = Blueprint::of_card(card)?.registry;
        let proteins = registry.remembered::<Matrix>(PROTEINS).map(|panel| panel.names.clone()).unwrap_or_default();
        let suffixed = proteins.iter().map(|protein| format!("{protein}_protein"));
        Ok(Self { names: card.genes.iter().cloned().chain(suffixed).collect(), n_genes: card.genes.len(), proteins })
    }

    /// Whether there are proteins.
    pub(super) fn with_proteins(&self) -> bool {
        !self.proteins.is_empty()
    }
}

/// Positions of the genes or features asked for, all where none is.
pub(super) fn positions(names: &[String], asked: &[String]) -> Result<Vec<usize>> {
    if asked.is_empty() {
        return Ok((0..names.len()).collect());
    }
    let position = |name: &String| {
        let unknown = || Error::UnknownFeature { name: name.clone(), n_known: names.len() };
        names.iter().position(|known| known == name).ok_or_else(unknown)
    };
    lists::among(asked, |name| names.iter().find(|known| *known == name).cloned()).iter().map(position).collect()
}
