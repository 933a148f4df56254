//! Models that scArches has as its own, in its folders: the way to a reference and back.

use std::fmt;

use super::{Namespace, Upstream};
use crate::{error::Result, formats::scarches::SavedFolder, model::Model, reference::Reference, zoo};

/// A model that scArches has, as one of its own.
pub trait ScarchesModel: Sync {
    /// The name of its class there.
    fn class(&self) -> &'static str;

    /// The attributes by which a folder of its class is told from those of others.
    fn told_by(&self) -> &'static [&'static str];

    /// The reference that a saved folder is. Its conditions become those of the namespace.
    ///
    /// # Errors  [`Error::Import`](crate::Error::Import) for what this program cannot take, [`Error::Config`](crate::Error::Config) for options it does not have, and tensors that
    /// do not fit the options
    fn to_reference(&self, saved: &SavedFolder, namespace: &Namespace) -> Result<Reference>;

    /// The folder with the names of its terms, which scArches keeps with the cells.
    ///
    /// # Errors  [`Error::Import`](crate::Error::Import) for a model without terms, or with other numbers of them
    fn with_terms(&self, _saved: SavedFolder, _names: Vec<String>) -> Result<SavedFolder> {
        Err(SavedFolder::refuse(format!("a `{}` has no terms that could be named", self.class())))
    }

    /// The folder that a reference is, for scArches 0.6.1.
    ///
    /// # Errors  [`Error::Import`](crate::Error::Import) for a reference without conditions, tensors that do not fit the card
    fn to_saved(&self, reference: &Reference) -> Result<SavedFolder>;
}

/// The reference that a folder is, whichever it is of those that can be references.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for a class that no model of the zoo is, and those of the model's own conversion
pub fn folder_to_reference(saved: &SavedFolder, namespace: &Namespace) -> Result<Reference> {
    class_of(saved)?.to_reference(saved, namespace)
}

/// The folder with these names of its terms, for a model that has terms.
///
/// # Errors  those of [`folder_to_reference`] and of [`ScarchesModel::with_terms`]
pub fn with_terms(saved: SavedFolder, names: Vec<String>) -> Result<SavedFolder> {
    class_of(&saved)?.with_terms(saved, names)
}

fn class_of(saved: &SavedFolder) -> Result<&'static dyn ScarchesModel> {
    let mut candidates: Vec<Candidate> =
        zoo::ZOO.iter().filter_map(|model| of(*model)).map(|model| Candidate::new(model, saved)).collect();
    // The likeliest first, so that whoever lost an attribute reads of it first.
    candidates.sort_by_key(|candidate| candidate.lacks.len());
    match candidates.first() {
        Some(Candidate { model, lacks }) if lacks.is_empty() => Ok(*model),
        _ => {
            let lacks: Vec<String> = candidates.iter().map(ToString::to_string).collect();
            Err(SavedFolder::refuse(format!("it lacks attributes of every model: {}", lacks.join("; "))))
        }
    }
}

/// A class that a folder may be of, and what it lacks for that.
struct Candidate {
    model: &'static dyn ScarchesModel,
    lacks: Vec<&'static str>,
}

impl Candidate {
    fn new(model: &'static dyn ScarchesModel, saved: &SavedFolder) -> Self {
        let is_missing = |name: &&str| !saved.attributes.contains_key(*name);
        Self { model, lacks: model.told_by().iter().copied().filter(is_missing).collect() }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of `{}`", self.lacks.join("`, `"), self.model.class())
    }
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
        Upstream::ScviTools(_) | Upstream::Archive(_) => None,
    }
}
