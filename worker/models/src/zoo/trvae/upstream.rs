//! trVAE in scArches' files: which attribute is which option, and what else is kept.

use serde_json::json;

use super::{Trvae, TrvaeConfig, config};
use crate::{
    blueprint::Blueprint,
    data::Registry,
    error::Result,
    formats::scarches::SavedFolder,
    model::{Config, Model as _},
    options::{OptionCard, Options as _},
    reference::Reference,
    upstream::{Namespace, ScarchesModel},
    zoo::family::saved,
};

impl ScarchesModel for Trvae {
    fn class(&self) -> &'static str {
        "TRVAE"
    }

    fn told_by(&self) -> &'static [&'static str] {
        &["condition_key_", "mmd_on_"]
    }

    fn to_reference(&self, saved: &SavedFolder, namespace: &Namespace) -> Result<Reference> {
        let model = self.configure(&options(saved))?;
        let conditions = saved::conditions(saved, namespace)?;
        let blueprint = Blueprint { model, registry: Registry::default(), n_genes: saved.genes.len() };
        saved::reference(config::NAME, saved, &blueprint, &conditions)
    }

    fn to_saved(&self, reference: &Reference) -> Result<SavedFolder> {
        let card = &reference.base.card;
        let mut attributes = saved::attributes(reference)?;
        let options = Blueprint::of_card(card)?.model.options();
        attributes.extend(options.iter().map(|(name, value)| (format!("{name}_"), value.clone())));
        Ok(SavedFolder::new(saved::tensors(reference)?, attributes, card.genes.clone()))
    }
}

/// The options among the attributes; what is not there has its default.
fn options(saved: &SavedFolder) -> Config {
    let given =
        |card: OptionCard| Some((card.name.to_owned(), saved.attributes.get(&format!("{}_", card.name))?.clone()));
    let mut options: Config = TrvaeConfig::cards().into_iter().filter_map(given).collect();
    // Anything but `z` means the decoder's first block there.
    if options.get("mmd_on").is_some_and(|on| on != "z") {
        options.insert("mmd_on".to_owned(), json!("y"));
    }
    options
}
