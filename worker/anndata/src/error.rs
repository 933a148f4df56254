//! The one error type of this crate.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with an h5ad file or the values read from it.
///
/// Messages may name local paths, cells and genes: print them at the site, never send them away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no file at this path.
    #[error("no such file: `{path}`")]
    NotFound {
        /// Path as given.
        path: PathBuf,
    },
    /// The operating system refused an operation on a file.
    #[error("failed to {action} `{path}`")]
    Io {
        /// Verb: `read`, `write`, `rename`…
        action: &'static str,
        /// Path as given.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What does not fit into the memory that large arrays may take cannot be kept in a file either.
    #[error(
        "failed to {action} a scratch file of up to {needed} bytes in `{}`, after {spilled} bytes there",
        folder.display()
    )]
    Scratch {
        /// Verb: `create`, `write`, `map`.
        action: &'static str,
        /// The directory of scratch files.
        folder: PathBuf,
        /// Bytes that this file may come to.
        needed: u64,
        /// Bytes that were written to scratch files before.
        spilled: u64,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file, or a folder, of another format than h5ad.
    #[error("`{path}` is {format}, not an h5ad file")]
    OtherFormat {
        /// Path as given.
        path: PathBuf,
        /// What it is.
        format: &'static str,
        /// How it becomes an h5ad file.
        advice: &'static str,
    },
    /// Modalities beside a data set would not fit it any more.
    #[error("the modalities {} of `{path}` cannot follow a choice of cells or genes", quoted(modalities))]
    Modalities {
        /// The file.
        path: PathBuf,
        /// Their names.
        modalities: Vec<String>,
    },
    /// A pipe, socket or device: HDF5 reads here and there, which only a file allows.
    #[error("`{path}` is not a regular file")]
    NotAFile {
        /// Path as given.
        path: PathBuf,
    },
    /// The file lacks the HDF5 signature.
    #[error("`{path}` is not an HDF5 file")]
    NotHdf5 {
        /// Path as given.
        path: PathBuf,
    },
    /// The file is shorter than its own header says.
    #[error("`{path}` is truncated: its header asks for more bytes than the file has ({size})")]
    Truncated {
        /// Path as given.
        path: PathBuf,
        /// Bytes the file has.
        size: u64,
    },
    /// The HDF5 library failed on an object of a file.
    #[error("failed to {action} `{object}` in `{path}`")]
    Hdf5 {
        /// Verb: `open`, `read`, `write`…
        action: &'static str,
        /// Path of the object inside the file.
        object: String,
        /// Path of the file.
        path: PathBuf,
        /// The library's reason.
        source: hdf5::Error,
    },
    /// A link, virtual dataset or external storage that may lead out of the file.
    #[error("`{path}` is refused: `{object}` {detail}")]
    LeavesFile {
        /// Path of the file.
        path: PathBuf,
        /// Path of the object inside the file.
        object: String,
        /// What it is.
        detail: &'static str,
    },
    /// An object does not have the form that its encoding asks for.
    #[error("`{object}` in `{path}` is malformed: {detail}")]
    Malformed {
        /// Path of the file.
        path: PathBuf,
        /// Path of the object inside the file.
        object: String,
        /// Found and expected.
        detail: String,
    },
    /// A well-formed object of a kind that this crate does not read or write.
    #[error("`{object}` in `{path}` is not supported: {detail}")]
    Unsupported {
        /// Path of the file.
        path: PathBuf,
        /// Path of the object inside the file.
        object: String,
        /// What it is.
        detail: String,
    },
    /// The file has no `X` although one was asked for.
    #[error("`{path}` has no X")]
    NoX {
        /// Path of the file.
        path: PathBuf,
        /// Layers that look like counts.
        counted: Vec<String>,
    },
    /// A named thing is absent.
    #[error("no {kind} `{name}`; there are: {}", or_none(available))]
    Missing {
        /// `layer`, `column`, `obsm`…
        kind: &'static str,
        /// Name asked for.
        name: String,
        /// Names there are.
        available: Vec<String>,
    },
    /// Two parts of one data set disagree about the number of cells or genes.
    #[error("`{part}` has {found} {axis} but {expected} are in `{against}`")]
    Shape {
        /// `X`, `layers/counts`…
        part: String,
        /// `cells`, `genes`, `rows`…
        axis: &'static str,
        /// Length found.
        found: usize,
        /// Length expected.
        expected: usize,
        /// The part that sets the expectation, such as `obs`.
        against: &'static str,
    },
    /// Arrays do not form a valid matrix, array or column.
    #[error("invalid {kind}: {detail}")]
    Invalid {
        /// `CSR matrix`, `categorical`…
        kind: &'static str,
        /// Found and expected.
        detail: String,
    },
    /// A value is not of the kind asked for (say, text where numbers are needed).
    #[error("`{name}` holds {found}, not {expected}")]
    Kind {
        /// Name of the column or element.
        name: String,
        /// What it holds.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// A matrix without cells.
    #[error("there are no cells")]
    NoCells,
    /// A matrix without genes.
    #[error("no gene is left")]
    NoGenes,
    /// A cell name occurs more than once where names must be unique.
    #[error("{n_duplicated} cell names occur more than once, such as {}", quoted(examples))]
    DuplicateCells {
        /// How many names repeat.
        n_duplicated: usize,
        /// A few of them.
        examples: Vec<String>,
    },
    /// A value that cannot be a count.
    #[error("not counts: cell row {cell_row}, gene `{gene}` holds {value}, expected a whole number of at least 0")]
    NotCounts {
        /// Zero-based row.
        cell_row: usize,
        /// Gene name, or `#column` where names were not given.
        gene: String,
        /// The value found.
        value: f32,
        /// Layers of the file that look like counts, where it was looked for them.
        counted: Vec<String>,
    },
    /// A gene name occurs more than once where names must be unique.
    #[error("{of} names {n_duplicated} genes more than once, such as {}", quoted(examples))]
    DuplicateGenes {
        /// `the query` or `the panel`.
        of: &'static str,
        /// How many names repeat.
        n_duplicated: usize,
        /// A few of them.
        examples: Vec<String>,
    },
    /// A data set, or a modality of a table of both, is nowhere.
    #[error("{}", nowhere(*dataset, name.as_deref()))]
    NoModality {
        /// The place of a data set that no modality has, from 0.
        dataset: Option<usize>,
        /// A modality that no data set has.
        name: Option<String>,
    },
    /// The modalities of a data set are of different cells.
    #[error("{n_missing} cells of data set {} are not in `{modality}`, which has {n_further} others", dataset + 1)]
    OtherCells {
        /// The place of the data set, from 0.
        dataset: usize,
        /// A modality of it.
        modality: String,
        /// Cells of its other modalities that this one lacks.
        n_missing: usize,
        /// Cells that only this one has.
        n_further: usize,
    },
    /// Data sets have different features of a modality.
    #[error("`{modality}` has other features in data set {} than in data set {}", dataset + 1, first + 1)]
    OtherFeatures {
        /// The modality.
        modality: String,
        /// The place of the first data set that has it, from 0.
        first: usize,
        /// The place of the data set that differs, from 0.
        dataset: usize,
    },
    /// Query and panel share no gene.
    #[error("no gene in common: the query has {}, the panel {}", quoted(query), quoted(panel))]
    NoCommonGenes {
        /// A few query names.
        query: Vec<String>,
        /// A few panel names.
        panel: Vec<String>,
    },
}

impl Error {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Scratch { .. } => {
                "name a directory on a disk with room with `--scratch`, or allow more with `--memory`".into()
            }
            Self::NotAFile { .. } => "write what comes through a pipe into a file first".into(),
            Self::NotHdf5 { .. } => "h5ad files are HDF5; convert loom, mtx or csv with scanpy first".into(),
            Self::OtherFormat { advice, .. } => format!("convert it in Python: `{advice}`"),
            Self::Modalities { .. } => "choose them in muon: `mdata[cells].write(copy)`".into(),
            Self::Truncated { .. } => "the copy or download stopped early; fetch the file again".into(),
            Self::LeavesFile { .. } => "write a self-contained copy: `anndata.read_h5ad(path).write_h5ad(copy)`".into(),
            Self::NoX { counted, .. } | Self::NotCounts { counted, .. } if !counted.is_empty() => {
                let layers: Vec<String> = counted.iter().map(|layer| format!("`--layer {layer}`")).collect();
                format!("raw counts are needed; these look like some: {}", layers.join(", "))
            }
            Self::NoX { .. } => "choose a layer, for example `--layer counts`".into(),
            Self::NotCounts { .. } => {
                "raw counts are needed; if they are in a layer choose it, for example `--layer counts`".into()
            }
            Self::DuplicateGenes { .. } => "make names unique: `adata.var_names_make_unique()`".into(),
            Self::DuplicateCells { .. } => "make names unique: `adata.obs_names_make_unique()`".into(),
            Self::NoGenes => "check that the table maps from the identifiers that the file uses".into(),
            Self::NoCommonGenes { .. } => {
                "both sides must use one naming, such as gene symbols or Ensembl identifiers without version".into()
            }
            Self::OtherFeatures { .. } => "keep the features that all data sets have with `--features shared`".into(),
            Self::OtherCells { .. } => {
                "name the modality once for the cells that have it, and `none` for the others: each is a data set"
                    .into()
            }
            Self::Unsupported { .. } => "rewrite the file with a current anndata and `compression=\"gzip\"`".into(),
            _ => return None,
        })
    }
}

fn nowhere(dataset: Option<usize>, name: Option<&str>) -> String {
    match (dataset, name) {
        (Some(dataset), _) => format!("data set {} has no modality", dataset + 1),
        (None, name) => format!("no data set has the modality `{}`", name.unwrap_or_default()),
    }
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { quoted(names) }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
