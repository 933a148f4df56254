//! A model in the package that it comes from: its class there, its tensors there, and the way there and back.
//!
//! [`formats`](crate::formats) reads and writes what the package saves, and knows no model; a model's own file says what its class
//! is called and turns saved models into references ([`Upstream`]). Start at [`to_reference`] and [`from_reference`].

mod archive;
mod layout;
mod scarches;

use archipelago_common::{ConditionKey, Name, SiteId};

pub use archive::{ArchiveModel, DataAtHand, archived, reference_to_archive};
pub use layout::{Layout, Named, Part, PartKind};
pub use scarches::{ScarchesModel, folder_to_reference, reference_to_folder, with_terms};

use crate::{
    error::{Error, Result},
    formats::scvi_tools::{Arguments, SavedModel},
    model::{Config, Model},
    reference::Reference,
    zoo,
};

/// What a model is in the package that it comes from.
#[derive(Clone, Copy)]
pub enum Upstream {
    /// A class of scvi-tools.
    ScviTools(&'static dyn ScviToolsModel),
    /// A model of scArches' own.
    Scarches(&'static dyn ScarchesModel),
    /// A model of a package of its own, which saves one archive.
    Archive(&'static dyn ArchiveModel),
}

/// A model that scvi-tools has too.
pub trait ScviToolsModel: Sync {
    /// Its class there.
    fn class(&self) -> &'static Class;

    /// The reference that a saved model of this class is. Its batches become conditions of the namespace.
    ///
    /// # Errors  [`Error::Import`] for what this program cannot take, [`Error::Config`] for options it does not have, and tensors that
    /// do not fit the options
    fn to_reference(&self, saved: &SavedModel, namespace: &Namespace) -> Result<Reference>;

    /// The saved model that a reference is, for scvi-tools 1.4.
    ///
    /// # Errors  [`Error::Import`] for a reference without conditions, tensors that do not fit the card
    fn to_saved(&self, reference: &Reference) -> Result<SavedModel>;
}

/// A class of scvi-tools.
#[derive(Debug)]
pub struct Class {
    /// Its name.
    pub name: &'static str,
    /// Names in its constructor's signature.
    pub signature: &'static [&'static str],
    /// What its constructor calls the arguments that it passes on.
    pub further: &'static str,
    /// Names of those that its module takes.
    pub of_module: &'static [&'static str],
    /// A tensor that tells it from other classes, in files that do not name their class.
    pub own_tensor: Option<&'static str>,
}

impl Class {
    /// The arguments that these options are.
    pub fn arguments(&self, options: Config) -> Arguments {
        let (named, further) = options.into_iter().partition(|(name, _)| self.signature.contains(&name.as_str()));
        Arguments { named, further: [(self.further.to_owned(), further)].into() }
    }

    /// Whether its constructor or its module takes an argument of this name.
    pub fn takes(&self, argument: &str) -> bool {
        self.signature.contains(&argument) || self.of_module.contains(&argument)
    }
}

/// Whose conditions the batches of an imported model become: `owner/dataset/batch`.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// The operator or site that publishes the reference.
    pub owner: SiteId,
    /// The data set it was trained on.
    pub dataset: Name,
}

impl Namespace {
    /// The condition of a batch.
    ///
    /// # Errors  [`Error::Common`] if a name is too long or not text
    pub fn condition(&self, batch: impl Into<String>) -> Result<ConditionKey> {
        Ok(ConditionKey::new(self.owner.clone(), self.dataset.clone(), batch.into())?)
    }
}

/// The reference that a saved model is, whichever it is of those that can be references.
///
/// # Errors  [`Error::Import`] for a class that no model of the zoo is, and those of the model's own conversion
pub fn to_reference(saved: &SavedModel, namespace: &Namespace) -> Result<Reference> {
    model_of(saved)?.to_reference(saved, namespace)
}

/// The saved model that a reference is, for scvi-tools 1.4.
///
/// # Errors  [`Error::Export`] for a model that scvi-tools does not have, and those of the model's own conversion
pub fn from_reference(reference: &Reference) -> Result<SavedModel> {
    let name = &reference.base.card.model;
    match zoo::model(name)?.upstream() {
        Some(Upstream::ScviTools(model)) => model.to_saved(reference),
        Some(Upstream::Scarches(_) | Upstream::Archive(_)) | None => Err(Error::Export { model: name.clone() }),
    }
}

/// Whether a saved model's decoder has batch norm, which conditions can add to.
pub fn has_batch_norm(saved: &SavedModel) -> bool {
    saved
        .state_dict
        .iter()
        .any(|(name, _)| name.starts_with("decoder.px_decoder.") && name.ends_with(".1.running_mean"))
}

/// Whether the model that a saved one is has this option.
///
/// # Errors  as [`to_reference`] for an unknown class
pub fn has_option(saved: &SavedModel, option: &str) -> Result<bool> {
    let class = model_of(saved)?.class();
    let of_class =
        |model: &dyn Model| matches!(model.upstream(), Some(Upstream::ScviTools(of)) if of.class().name == class.name);
    let mut options = zoo::ZOO.iter().filter(|model| of_class(**model)).flat_map(|model| model.options());
    Ok(options.any(|card| card.name == option))
}

/// Says an option of ours that the class of a saved model does not have, before it becomes a reference.
///
/// # Errors  [`Error::Import`] for one that the model does not have either, and as [`to_reference`] for an unknown class
pub fn choose(saved: &mut SavedModel, option: &str, value: serde_json::Value) -> Result<()> {
    if !has_option(saved, option)? {
        return Err(saved.refuse(format!("its model has no option `{option}`; leave it out")));
    }
    saved.chosen.insert(option.to_owned(), value);
    Ok(())
}

/// Arguments of a saved model that its class does not take, as far as this program knows. They are kept, and what they do is not.
///
/// # Errors  as [`to_reference`] for an unknown class
pub fn unknown_arguments(saved: &SavedModel) -> Result<Vec<&str>> {
    let class = model_of(saved)?.class();
    Ok(saved.init_params.iter().map(|(name, _)| name).filter(|name| !class.takes(name)).collect())
}

/// The model of the zoo that a saved model is.
fn model_of(saved: &SavedModel) -> Result<&'static dyn ScviToolsModel> {
    let known = || {
        zoo::ZOO.iter().filter_map(|model| match model.upstream()? {
            Upstream::ScviTools(model) => Some(model),
            Upstream::Scarches(_) | Upstream::Archive(_) => None,
        })
    };
    let Some(name) = &saved.model_name else {
        let has_own = |model: &&dyn ScviToolsModel| {
            model.class().own_tensor.is_some_and(|tensor| saved.state_dict.get(tensor).is_some())
        };
        let plain = || known().find(|model| model.class().own_tensor.is_none());
        return known().find(has_own).or_else(plain).ok_or_else(|| saved.refuse("it does not say which class it is"));
    };
    known().find(|model| model.class().name == name).ok_or_else(|| {
        let names: Vec<String> = known().map(|model| format!("`{}`", model.class().name)).collect();
        saved.refuse(format!("it holds a `{name}`; {} can become references", names.join(", ")))
    })
}
