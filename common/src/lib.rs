//! Values that coordinator and worker both speak of: identities, digests, tensors, condition columns, versions, tasks.
//!
//! Not here: sockets, async runtimes, tensor libraries, HDF5. Everything is a plain value with methods, so that the
//! same bytes mean the same thing on every side. Start with [`condition`], the reason why federation is exact here,
//! then [`manifest`] and [`task`].

pub mod act;
pub mod append;
pub mod blob;
pub mod check;
pub mod codec;
pub mod condition;
pub mod contact;
pub mod enrolment;
pub mod error;
pub mod figure;
pub mod finding;
pub mod fs;
pub mod hash;
pub mod health;
pub mod id;
pub mod layout;
pub mod limits;
pub mod manifest;
pub mod member;
pub mod part;
pub mod policy;
pub mod pool;
pub mod principal;
pub mod progress;
pub mod proposal;
mod quality;
pub mod record;
pub mod reference_dir;
pub mod role;
pub mod shown;
pub mod signature;
pub mod standing;
pub mod state_dict;
pub mod task;
pub mod telemetry;
pub mod text;
mod train_spec;
pub mod tree;

pub use blob::BlobRef;
pub use condition::{Columns, ConditionKey, Section};
pub use enrolment::Fingerprint;
pub use error::{Error, Result};
pub use figure::Figure;
pub use hash::Digest;
pub use id::{Name, NodeId, SiteId, TaskId, VersionId};
pub use layout::{Layout, TensorKind};
pub use manifest::{Base, BaseCard, Version};
pub use principal::{Identity, Principal};
pub use role::{Role, Roles};
pub use state_dict::{DType, StateDict, Tensor};
