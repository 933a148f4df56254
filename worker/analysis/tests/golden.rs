//! Numbers of the real upstream packages, reproduced: label transfer, metrics, trees of cell types, cells in space.
//!
//! The directory is `$ARCHIPELAGO_GOLDEN`, by default the repository's `tests/golden`. A folder without cases is a failure. Cases of
//! networks are the models crate's, those of a tree alone the hierarchy crate's.

#[path = "golden/case.rs"]
mod case;
#[path = "golden/sagenet.rs"]
mod sagenet;
#[path = "golden/transfer.rs"]
mod transfer;
#[path = "golden/treearches.rs"]
mod treearches;
