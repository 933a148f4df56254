//! A tree of cell types, and how count tables change it: the part of treeArches that every side of a consortium must
//! compute alike.
//!
//! A data set joins a tree by two tables of counts: cells of the tree's data sets by the label that the newcomer's
//! classifier gives them, and cells of the newcomer by the label that the tree gives them. [`Tree::join`] matches names,
//! splits and merges nodes and adds new populations from these counts alone, so whoever holds the same tables in the same
//! order holds the same tree, digit by digit: [`grow`]. Counts are additive ([`CountTable::add`]), so sites can count at
//! home.
//!
//! Where sites learn a tree together, [`SharedTree`] makes it of what each counted by the others' machines.
//!
//! Not here: cells, classifiers, files. Those are in the analysis crate's `hierarchy`, which trains and predicts.
//! Start at [`Tree`], then [`Addition`].
//!
//! # Source   Michielsen, Reinders & Mahfouz 2021 (scHPL); Michielsen, Lotfollahi et al. 2023 (treeArches);
//! checked against scHPL 1.0.5

mod actions;
mod edit;
mod error;
mod join;
mod jury;
mod marks;
mod newick;
mod scan;
mod score;
mod shared;
mod table;
mod tree;

pub use error::HierarchyError;
pub use join::{Addition, JoinOptions, Joined, Rules, Status, grow};
pub use jury::Jury;
pub use marks::{BinaryTable, SumTable};
pub use newick::Names;
pub use score::hierarchical_f1;
pub use shared::{SharedData, SharedTree, Standing, State, Tables, unique};
pub use table::CountTable;
pub use tree::{Node, Tree};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, HierarchyError>;

/// Name of the root of every tree.
pub const ROOT: &str = "root";
/// Name of the root of the flat tree of a data set that joins.
pub const JOINING_ROOT: &str = "root2";
/// Label of a cell that the projection reconstructs badly.
pub const REJECTED_BY_ERROR: &str = "Rejected (RE)";
/// Label of a cell far from all that the tree was trained on.
pub const REJECTED_BY_DISTANCE: &str = "Rejection (dist)";

/// Names that no cell type may have.
pub const RESERVED: [&str; 4] = [ROOT, JOINING_ROOT, REJECTED_BY_ERROR, REJECTED_BY_DISTANCE];
