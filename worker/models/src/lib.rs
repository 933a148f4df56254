//! The zoo: networks that embed single cells, their training, and architecture surgery onto them.
//!
//! The only crate that knows libtorch. Start at [`mod@reference`] (train, embed, evaluate) and [`mod@surgery`]; a
//! model is a folder of [`zoo`]. Roles are kept apart as in scvi-tools: *data* turns named columns into tensors, a
//! *module* knows tensors only, *train* knows optimiser and schedules, *surgery* is one procedure for all models.

pub mod aggregate;
pub mod blueprint;
pub mod data;
pub mod device;
pub mod distributions;
pub mod error;
pub mod extension;
pub mod fast;
pub mod formats;
pub mod kept;
#[expect(unsafe_code, reason = "instructions of the processor, chosen at run time; every block says why it holds")]
mod kernels;
pub mod losses;
pub mod model;
pub mod nn;
pub mod options;
pub mod parts;
pub mod place;
pub mod prediction;
pub mod pretrained;
pub mod reference;
pub mod results;
pub mod start;
pub mod surgery;
pub mod train;
pub mod upstream;
pub mod zoo;

pub use blueprint::Blueprint;
pub use data::{Categorical, CellConditions, Cells};
pub use device::{Compute, Device, Engine};
pub use error::{Error, Result};
pub use extension::Extension;
pub use model::{Config, ModelCard, Moments, PredictFrom};
pub use options::{OptionCard, Size};
pub use place::Place;
pub use prediction::LabelPrediction;
pub use pretrained::train_reference_from;
pub use reference::{Latent, Reference, Trained, Training, layout_of, train_reference, zoo_layout};
pub use surgery::{Query, Surgery, surgery, surgery_of_many};
pub use train::{CheckpointStore, Evaluation, NoCheckpoints};
