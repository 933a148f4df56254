//! Architecture surgery: new conditions onto a frozen reference.
//!
//! [`exact`] is ours and the default: the optimiser owns the new condition's columns and nothing else, so columns
//! of different conditions can be merged without loss. [`upstream`] follows scvi-tools to the letter, for comparison.

pub mod exact;
pub mod upstream;

pub use exact::{Query, Surgery, surgery, surgery_of_many};
