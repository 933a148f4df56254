//! What can be wrong with a tree, a table or an edit.

use thiserror::Error;

/// A tree or a table that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HierarchyError {
    /// A tree in Newick form that cannot be read.
    #[error("the tree cannot be read at letter {at} of `{text}`: {reason}")]
    Newick {
        /// The text, or its beginning.
        text: String,
        /// Letter at fault, from 1.
        at: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A node without a name, or a tree that is none.
    #[error("a node of the tree has no name")]
    NoName,
    /// A label that means something else.
    #[error("`{name}` cannot be the name of a cell type: the name is reserved")]
    Reserved {
        /// The name.
        name: String,
    },
    /// A label of the tree that a data set which joins it has too.
    #[error("label `{name}` is in the tree already and in the data set that joins it")]
    SharedLabel {
        /// The label.
        name: String,
    },
    /// A label listed twice.
    #[error("label `{name}` is listed twice")]
    RepeatedLabel {
        /// The label.
        name: String,
    },
    /// A label that the tree has not.
    #[error("the tree has no node `{name}`; it has {known}")]
    UnknownNode {
        /// The name asked for.
        name: String,
        /// Names of the tree.
        known: String,
    },
    /// The root cannot be removed, renamed or put elsewhere.
    #[error("the root of the tree cannot be {change}")]
    Root {
        /// What was asked for.
        change: &'static str,
    },
    /// A node that is not where an edit expects it.
    #[error("`{child}` is not a child of `{parent}`")]
    NotAChild {
        /// The node.
        child: String,
        /// Its supposed parent.
        parent: String,
    },
    /// A table whose parts do not fit each other.
    #[error("the count table has {found} {what} but {expected} are expected")]
    TableShape {
        /// `rows of counts`, `counts in row …`.
        what: String,
        /// Entries found.
        found: usize,
        /// Entries expected.
        expected: usize,
    },
    /// A count below zero, or more cells than can be counted.
    #[error("the count of `{row}` predicted as `{column}` is {found}, expected a whole number of cells")]
    Count {
        /// True label.
        row: String,
        /// Predicted label.
        column: String,
        /// What was found.
        found: String,
    },
    /// A table that speaks of labels which neither side has.
    #[error("the table of {table} predicts `{name}`, which is none of {known}")]
    UnknownPrediction {
        /// Which table.
        table: &'static str,
        /// The predicted label.
        name: String,
        /// What may be predicted.
        known: String,
    },
    /// A table without a cell.
    #[error("the table of {table} has no cell")]
    EmptyTable {
        /// Which table.
        table: &'static str,
    },
    /// An option outside the values that make sense.
    #[error("{option} must be {expected}, found `{found}`")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// The values allowed.
        expected: &'static str,
        /// The value given.
        found: String,
    },
}

impl HierarchyError {
    /// What a user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Newick { .. } => Some(
                "a tree looks like `((CD4,CD8)T,B)root`; put names with brackets, commas, colons or semicolons between single quotes",
            ),
            Self::SharedLabel { .. } => {
                Some("make labels unique: append the name of the data set, such as `B cell-north`")
            }
            Self::Reserved { .. } => Some(
                "rename the cell type; `root`, `root2`, `Rejected (RE)` and `Rejection (dist)` say that a cell has none",
            ),
            Self::UnknownNode { .. } => {
                Some("names are compared letter by letter; `archipelago-worker tree show` lists them")
            }
            Self::Count { .. } | Self::TableShape { .. } | Self::UnknownPrediction { .. } => {
                Some("a table has one row per true label, one column per predicted label, and whole numbers of cells")
            }
            _ => None,
        }
    }
}
