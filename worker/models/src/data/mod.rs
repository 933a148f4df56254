//! From named fields of cells to tensors.
//!
//! A model declares [`Field`]s. [`Cells`] is what a caller hands in: expression aligned to the gene panel, and the values of
//! fields by name. A [`Registry`] remembers how the reference encoded them, so that query data map the same way. A [`Dataset`]
//! is the encoded result, still sparse, from which [`Minibatch`]es are drawn; a module fetches a field from them with the
//! [`Slot`] that it asked for when it was built.

mod axes;
mod categorical;
mod cells;
mod dataset;
mod encoding;
mod features;
mod field;
mod gene_sets;
mod minibatch;
mod minibatches;
mod numpy;
mod receptor;
mod registry;
pub mod slot;
mod split;
mod values;

pub use axes::CellNames;
pub(crate) use axes::GrownAxis;
pub use categorical::{Categorical, CellConditions};
pub use cells::{Cells, Minified};
pub use dataset::{Dataset, Encoded};
pub use encoding::{Categories, Encoding, LabelNames, Panel};
pub use features::{Features, PanelAlignment};
pub use field::{
    CATEGORICAL, CONTINUOUS, Field, FieldKind, GENE_SETS, LABELS, NEW_GENE_SETS, Names, Need, OBS, OBSM, RNA, Range,
    SIZE_FACTOR, Values,
};
pub use gene_sets::GeneSets;
pub use minibatch::{Covariates, Minibatch, MinifiedBatch};
pub use minibatches::Minibatches;
pub use numpy::RandomState;
pub use receptor::{AMINO_ACIDS, Chain, ReceptorForm, Receptors};
pub use registry::{Registered, Registry};
pub use slot::{PerCell, Slot, SlotKind};
pub use split::{Split, TrainSize};
pub use values::FieldValues;
