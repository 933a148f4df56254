//! Folders that scArches' native models save: tensors, attributes and gene names, read as values and written so that
//! scArches loads them.
//!
//! A folder holds `model_params.pt` (tensors by name), `attr.pkl` (the constructor's arguments, each name ending in `_`) and
//! `var_names.csv`. What the attributes mean is each model's own business; the same three files, with other attributes, are what
//! scvi-tools saved before 0.15. An adaptor is one condition's columns in two files ([`adaptor`]).

pub mod adaptor;
mod folder;

pub use folder::{SavedFolder, is_one, json_of, tensor_of};
