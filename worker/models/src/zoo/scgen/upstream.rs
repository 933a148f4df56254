//! scGen in scArches' files. They hold no condition and no cell type: upstream maps with the reference's cells at hand.

use serde_json::json;

use super::{Scgen, config};
use crate::{
    blueprint::Blueprint,
    data::Registry,
    error::Result,
    formats::scarches::SavedFolder,
    model::{Config, Model as _},
    reference::Reference,
    upstream::{Namespace, ScarchesModel},
    zoo::family::saved,
};

/// Its options and the attributes that they are.
const OPTIONS: [(&str, &str); 3] =
    [("hidden_layer_sizes", "hidden_layer_sizes_"), ("z_dimension", "z_dim_"), ("dr_rate", "dr_rate_")];
/// Number of genes.
const GENES: &str = "x_dim_";

impl ScarchesModel for Scgen {
    fn class(&self) -> &'static str {
        "scgen"
    }

    fn told_by(&self) -> &'static [&'static str] {
        &[GENES, "z_dim_"]
    }

    fn to_reference(&self, saved: &SavedFolder, _namespace: &Namespace) -> Result<Reference> {
        let given =
            |(option, attribute): (&str, &str)| Some((option.to_owned(), saved.attributes.get(attribute)?.clone()));
        let options: Config = OPTIONS.into_iter().filter_map(given).collect();
        let model = self.configure(&options)?;
        let registry = Registry::default().of_model(&model.fields());
        let blueprint = Blueprint { model, registry, n_genes: saved.genes.len() };
        saved::reference_of_genes(GENES, config::NAME, saved, &blueprint, &[])
    }

    fn to_saved(&self, reference: &Reference) -> Result<SavedFolder> {
        let card = &reference.base.card;
        let options = Blueprint::of_card(card)?.model.options();
        let mut attributes: Config =
            OPTIONS.iter().map(|(option, attribute)| ((*attribute).to_owned(), options[*option].clone())).collect();
        attributes.extend([(GENES.to_owned(), json!(card.genes.len())), ("is_trained_".to_owned(), json!(true))]);
        Ok(SavedFolder::new(saved::tensors(reference)?, attributes, card.genes.clone()))
    }
}
