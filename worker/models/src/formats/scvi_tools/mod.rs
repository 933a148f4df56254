//! Models saved by scvi-tools, versions 0.8 to 1.4: read as values, written so that scvi-tools loads them.
//!
//! [`read`](fn@read) takes a folder or a file in any of the layouts there were and gives a [`SavedModel`]; [`write`](fn@write) makes the
//! folder that scvi-tools 1.4 loads, which also opens in PyTorch's restricted mode. Turning a saved model into a
//! reference, and back, is a file per model, such as [`scvi`].

mod arguments;
mod convert;
mod legacy;
mod read;
mod registry;
mod saved;
pub mod scanvi;
pub mod scvi;
mod state;
pub mod totalvi;
mod version;
mod write;

use crate::{error::Result, reference::Reference};

pub use convert::Namespace;
pub use read::{from_bytes, read};
pub use registry::{CategoricalField, ProteinField, SavedRegistry};
pub use saved::{Indices, SavedModel, VarNames};
pub use version::ToolsVersion;
pub use write::{to_bytes, write};

/// The reference that a saved model is, whichever it is of those that can be references.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for another model, and those of the model's own conversion
pub fn to_reference(saved: &SavedModel, namespace: &Namespace) -> Result<Reference> {
    match saved.model_name.as_str() {
        "SCVI" => scvi::to_reference(saved, namespace),
        "SCANVI" => scanvi::to_reference(saved, namespace),
        "TOTALVI" => totalvi::to_reference(saved, namespace),
        other => {
            let known = "`SCVI`, `SCANVI` and `TOTALVI` can become references";
            Err(convert::refuse(format!("it holds a `{other}`; {known}")))
        }
    }
}

/// The saved model that a reference is, for scvi-tools 1.4.
///
/// # Errors  [`Error::Export`](crate::Error::Export) for a model that scvi-tools does not have, and those of the model's own conversion
pub fn from_reference(reference: &Reference) -> Result<SavedModel> {
    match reference.base.card.model.as_str() {
        "scvi" => scvi::from_reference(reference),
        "scanvi" => scanvi::from_reference(reference),
        "totalvi" => totalvi::from_reference(reference),
        other => Err(crate::Error::Export { model: other.to_owned() }),
    }
}

/// Why a part of a saved model was not understood, in words; the reader adds the file.
type Understood<T> = std::result::Result<T, String>;
