//! Architecture surgery: new conditions onto a frozen reference.
//!
//! [`surgery`] is ours and the default: the optimiser owns the new condition's columns and nothing else, so columns
//! of different conditions can be merged without loss. [`upstream_surgery`] follows scvi-tools to the letter, for comparison.
//! [`likeness`] finds a condition whose columns a new one can take over, to start from or to keep.

mod approximate;
mod exact;
mod measured;
mod shot;
pub mod upstream;

pub use approximate::{Placement, UpstreamSurgery, upstream_surgery};
pub use exact::{
    JointQuery, JointSurgery, Query, Start, Surgery, extended_surgery, joint_surgery, surgery, surgery_from,
    surgery_of_many,
};
pub use shot::{Likeness, likeness};
