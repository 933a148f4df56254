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
    zoo::family::saved::{self, Namespace},
};

/// The reference that a saved trVAE is.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for another model, [`Error::Config`](crate::Error::Config) for options this
/// program does not have, and tensors that do not fit the options
pub fn to_reference(saved: &SavedFolder, namespace: &Namespace) -> Result<Reference> {
    let model = Trvae.configure(&options(saved)?)?;
    let conditions = saved::conditions(saved, namespace)?;
    let blueprint = Blueprint { model, registry: Registry::default(), n_genes: saved.genes.len() };
    saved::reference(config::NAME, saved, &blueprint, &conditions)
}

/// The saved trVAE that a reference is.
///
/// # Errors  [`Error::UnknownModel`](crate::Error::UnknownModel) for another model, a reference without conditions
pub fn from_reference(reference: &Reference) -> Result<SavedFolder> {
    let card = &reference.base.card;
    let mut attributes = saved::attributes(reference, config::NAME)?;
    let options = Blueprint::of_card(card)?.model.options();
    attributes.extend(options.iter().map(|(name, value)| (format!("{name}_"), value.clone())));
    Ok(SavedFolder { tensors: saved::tensors(reference)?, attributes, genes: card.genes.clone() })
}

/// The options among the attributes; what is not there has its default.
fn options(saved: &SavedFolder) -> Result<Config> {
    if !saved.attributes.contains_key("mmd_on_") || saved.attributes.contains_key("embedding_dims_") {
        return Err(SavedFolder::refuse("the attributes are not those of a trVAE"));
    }
    let given =
        |card: OptionCard| Some((card.name.to_owned(), saved.attributes.get(&format!("{}_", card.name))?.clone()));
    let mut options: Config = TrvaeConfig::cards().into_iter().filter_map(given).collect();
    // Anything but `z` means the decoder's first block there.
    if options.get("mmd_on").is_some_and(|on| on != "z") {
        options.insert("mmd_on".to_owned(), json!("y"));
    }
    Ok(options)
}
