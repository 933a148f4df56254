//! What a site adds to a reference's model for its own cells, and keeps.

use crate::{data::GeneSets, model::Config};

/// An addition to a model: nothing that the reference's other users see. What of it trains stays among the site's own tensors.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Extension {
    /// Options of the model, those that it lets a query have.
    pub options: Config,
    /// Sets of genes of the reference's panel, one for each new term.
    pub gene_sets: Option<GeneSets>,
}

impl Extension {
    /// Whether nothing is added.
    pub fn is_empty(&self) -> bool {
        self.options.is_empty() && self.gene_sets.is_none()
    }
}
