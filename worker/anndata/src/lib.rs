//! h5ad and h5mu files and the values in them.
//!
//! Start at [`AnnData`] for a whole data set in memory ([`AnnData::read`], [`AnnData::write`]), at [`H5adFile`] for rows
//! of a file that is too large for that, and at [`inspect`] for what a file holds. [`Csr`] is the form in which counts
//! reach a model; [`align`] puts a query's genes into the order of a reference; [`counts`] says whether a matrix holds
//! counts; a [`Storage`] says how much memory they may take, and keeps the rest in scratch files. No model, no statistics and no network here.
//!
//! HDF5 has one lock for the whole process: use this crate from one blocking thread at a time; more gain nothing.

pub mod align;
mod anndata;
mod array;
mod awkward;
mod beside;
mod cellranger;
mod column;
mod concat;
pub mod counts;
mod csr;
mod csr_builder;
mod element;
mod error;
mod foreign;
mod frame;
mod genes;
mod h5;
pub mod inspect;
mod kept;
mod mudata;
pub mod names;
pub mod organize;
mod read;
mod rows;
mod sparse;
mod storage;
mod values;
mod write;

pub use anndata::{AnnData, Compression, Raw};
pub use array::Array;
pub use awkward::Nested;
pub use beside::Beside;
pub use column::{Categorical, Column};
pub use concat::{Join, concat};
pub use csr::Csr;
pub use csr_builder::CsrBuilder;
pub use element::{Dict, Element, Matrix, Table};
pub use error::{Error, Result};
pub use frame::DataFrame;
pub use genes::Renaming;
pub use kept::Kept;
pub use mudata::MuData;
pub use organize::Organized;
pub use rows::{H5adFile, RAW, RowReader};
pub use sparse::{Layout, Sparse};
pub use storage::{Access, Growing, Storage, Stored};
pub use values::Values;
