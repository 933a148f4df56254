//! Models whose package saves one archive: what the file lacks, the data set at hand says.

use super::{Namespace, Upstream};
use crate::{error::Result, formats::archive::SavedArchive, model::Model, reference::Reference, zoo};

/// A model that its own package saves as one archive.
pub trait ArchiveModel: Sync {
    /// The package and the release that is written for.
    fn package(&self) -> &'static str;

    /// Values by which a file of its package is told from others.
    fn told_by(&self) -> &'static [&'static str];

    /// The obs column of the conditions, where the file names one.
    fn condition_column(&self, saved: &SavedArchive) -> Option<String>;

    /// The reference that a saved model is.
    ///
    /// # Errors  [`Error::Import`](crate::Error::Import) for what this program cannot take, [`Error::Config`](crate::Error::Config) for options it does not have, tensors that do not
    /// fit options or data
    fn to_reference(&self, saved: &SavedArchive, data: &DataAtHand, namespace: &Namespace) -> Result<Reference>;

    /// The saved model that a reference is.
    ///
    /// # Errors  tensors that do not fit the card
    fn to_saved(&self, reference: &Reference) -> Result<SavedArchive>;
}

/// What a saved model is loaded with, since its file does not say it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataAtHand {
    /// Names of the genes, in order.
    pub genes: Vec<String>,
    /// The obs column of the conditions.
    pub batch_key: String,
    /// Names of the conditions, sorted as upstream numbers them.
    pub batches: Vec<String>,
}

/// The model of the zoo that a saved archive is of.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for a package that is not known
pub fn archived(saved: &SavedArchive) -> Result<&'static dyn ArchiveModel> {
    let is_of = |model: &&dyn ArchiveModel| model.told_by().iter().all(|name| saved.values.contains_key(*name));
    let known = zoo::ZOO.iter().filter_map(|model| of(*model)).find(is_of);
    known.ok_or_else(|| SavedArchive::refuse("it holds tensors of a model that is not known here"))
}

/// The archive that a reference is, and the package it is for; none for a model of another package.
///
/// # Errors  [`Error::UnknownModel`](crate::Error::UnknownModel), and those of the model's own conversion
pub fn reference_to_archive(reference: &Reference) -> Result<Option<(SavedArchive, &'static str)>> {
    let model = of(zoo::model(&reference.base.card.model)?);
    model.map(|model| Ok((model.to_saved(reference)?, model.package()))).transpose()
}

fn of(model: &dyn Model) -> Option<&'static dyn ArchiveModel> {
    match model.upstream()? {
        Upstream::Archive(archived) => Some(archived),
        Upstream::ScviTools(_) | Upstream::Scarches(_) => None,
    }
}
