//! From raw counts to values that distances and components make sense of.

mod normalize;

pub use normalize::{CP10K, log1p, normalize_total};
