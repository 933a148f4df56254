//! Models that scArches has as its own, in its folders: the way to a reference and back.

use super::{Namespace, Upstream};
use crate::{error::Result, formats::scarches::SavedFolder, model::Model, reference::Reference, zoo};

/// A model that scArches has, as one of its own.
pub trait ScarchesModel: Sync {
    /// The name of its class there.
    fn class(&self) -> &'static str;

    /// Whether a folder's attributes are those of its class.
    fn has_saved(&self, folder: &SavedFolder) -> bool;

    /// The reference that a saved folder is. Its conditions become those of the namespace.
    ///
    /// # Errors  [`Error::Import`](crate::Error::Import) for what this program cannot take, [`Error::Config`](crate::Error::Config) for options it does not have, and tensors that
    /// do not fit the options
    fn to_reference(&self, saved: &SavedFolder, namespace: &Namespace) -> Result<Reference>;

    /// The folder that a reference is, for scArches 0.6.1.
    ///
    /// # Errors  [`Error::Import`](crate::Error::Import) for a reference without conditions, tensors that do not fit the card
    fn to_saved(&self, reference: &Reference) -> Result<SavedFolder>;
}

/// The reference that a folder is, whichever it is of those that can be references.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for a class that no model of the zoo is, and those of the model's own conversion
pub fn folder_to_reference(saved: &SavedFolder, namespace: &Namespace) -> Result<Reference> {
    let native = || zoo::ZOO.iter().filter_map(|model| of(*model));
    let Some(model) = native().find(|model| model.has_saved(saved)) else {
        let names: Vec<String> = native().map(|model| format!("`{}`", model.class())).collect();
        return Err(SavedFolder::refuse(format!("it holds another model than {}", names.join(", "))));
    };
    model.to_reference(saved, namespace)
}

/// The folder that a reference is, and its class; none for a model that scArches takes from another package.
///
/// # Errors  [`Error::UnknownModel`](crate::Error::UnknownModel), and those of the model's own conversion
pub fn reference_to_folder(reference: &Reference) -> Result<Option<(SavedFolder, &'static str)>> {
    of(zoo::model(&reference.base.card.model)?).map(|model| Ok((model.to_saved(reference)?, model.class()))).transpose()
}

fn of(model: &dyn Model) -> Option<&'static dyn ScarchesModel> {
    match model.upstream()? {
        Upstream::Scarches(native) => Some(native),
        Upstream::ScviTools(_) => None,
    }
}
