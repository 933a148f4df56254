//! Models saved by scvi-tools, versions 0.8 to 1.4: read as values, written so that scvi-tools loads them.
//!
//! [`read`](fn@read) takes a folder or a file in any of the layouts there were and gives a [`SavedModel`]; [`write`](fn@write) makes the
//! folder that scvi-tools 1.4 loads, which also opens in PyTorch's restricted mode. What a class is called and what its tensors mean
//! is not known here: see [`upstream`](crate::upstream).

mod arguments;
mod legacy;
mod read;
mod registry;
mod saved;
mod state;
mod version;
mod write;

pub use arguments::Arguments;
#[cfg(test)]
pub(super) use read::understood;
pub use read::{from_bytes, read};
pub use registry::{CategoricalField, ProteinField, SavedRegistry};
pub use saved::{Indices, SavedModel, VarNames};
pub use state::SETUP_ANNDATA;
pub use version::ToolsVersion;
pub use write::{to_bytes, write};

/// Why a part of a saved model was not understood, in words; the reader adds the file.
type Understood<T> = std::result::Result<T, String>;
