//! What can go wrong between an embedding and a figure.

use thiserror::Error;

use crate::{
    neighbours,
    preprocess::{highly_variable, loess},
};

/// A request that cannot be computed from the given cells.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum AnalysisError {
    /// Two inputs that describe the same cells or genes differ in length.
    #[error("{what} has {found} entries but {expected} are expected")]
    Length {
        /// The input at fault.
        what: &'static str,
        /// Entries found.
        found: usize,
        /// Entries needed.
        expected: usize,
    },
    /// A step needs more cells (or genes) than there are.
    #[error("{step} needs at least {needed} {unit} but there are {found}")]
    TooFew {
        /// The step that was asked for.
        step: &'static str,
        /// `cells` or `genes`.
        unit: &'static str,
        /// The least number that would do.
        needed: usize,
        /// The number there is.
        found: usize,
    },
    /// A value that has to be a finite number is not.
    #[error("{what} holds a value that is not finite in row {row}, column {column}")]
    NotFinite {
        /// The matrix at fault.
        what: &'static str,
        /// Row of the value.
        row: usize,
        /// Column of the value.
        column: usize,
    },
    /// A label code without a name.
    #[error("label code {code} of cell {cell} has no name, there are {n_names} names")]
    LabelCode {
        /// The code.
        code: u32,
        /// The cell that carries it.
        cell: usize,
        /// Number of names.
        n_names: usize,
    },
    /// A compressed sparse row matrix that contradicts itself.
    #[error("sparse matrix is malformed at row {row}: {reason}")]
    Csr {
        /// First row at fault.
        row: usize,
        /// What does not hold.
        reason: &'static str,
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
    /// A matrix too large for the exact decomposition.
    #[error("an exact PCA of {n_cells} cells x {n_genes} genes is too large")]
    PcaTooLarge {
        /// Cells in the matrix.
        n_cells: usize,
        /// Genes in the matrix.
        n_genes: usize,
    },
    /// The eigenvalue solver gave up.
    #[error("the eigendecomposition did not converge")]
    Decomposition,
    /// The system gave no thread to work on.
    #[error("failed to start a thread: {reason}")]
    Threads {
        /// The system's reason.
        reason: String,
    },
    /// A label that two data sets share, where each data set's labels must be its own.
    #[error("label `{label}` is in data set `{first}` and in `{second}`")]
    SharedLabel {
        /// The label.
        label: String,
        /// One data set.
        first: String,
        /// The other.
        second: String,
    },
    /// A cell type with too few cells to be told from others.
    #[error("`{label}` of data set `{set}` has {found} cell, at least {needed} are needed")]
    FewCells {
        /// The cell type.
        label: String,
        /// Its data set.
        set: String,
        /// Cells there are.
        found: usize,
        /// Cells needed.
        needed: usize,
    },
    /// A tree of cell types, a count table or an edit that cannot be used.
    #[error(transparent)]
    Hierarchy(#[from] archipelago_hierarchy::HierarchyError),
    /// A drawing that could not be turned into pixels.
    #[error("failed to render the figure: {reason}")]
    Render {
        /// The renderer's reason.
        reason: String,
    },
}

impl AnalysisError {
    /// What a user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TooFew { step, .. } => match *step {
                neighbours::STEP => Some("lower `--n-neighbors`, or use more cells"),
                highly_variable::STEP => {
                    Some("join small batches, or judge genes over all cells: leave out `--batch-key`")
                }
                loess::STEP => Some("choose another `--flavor`, or use more cells or genes"),
                "the PCA" | "k-means" => Some("lower the number of components or clusters, or use more cells"),
                _ => None,
            },
            Self::NotFinite { .. } => Some("a model that diverged writes such values: look at its loss curve"),
            Self::SharedLabel { .. } => {
                Some("make labels unique: append the name of the data set, such as `B cell-north`")
            }
            Self::FewCells { .. } => Some("leave out rare types, or join them with others: see `--min-cells`"),
            Self::Hierarchy(source) => source.hint(),
            Self::PcaTooLarge { .. } => Some("select highly variable genes first"),
            _ => None,
        }
    }
}
