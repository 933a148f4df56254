//! A reference in one file: what one sends to somebody who is in no consortium, or keeps in an archive of data.
//!
//! The file is a zip, so that people can look into it without this program:
//!
//! ```text
//! README.md                     what it is, for people
//! manifest.json                 what is in it, with digests: [`Manifest`]
//! signatures.json               whose word it is: [`Signatures`]; absent where nobody signed
//! reference/version.json        the directory of a version, as `train` and `reference fetch` write it
//!           base.safetensors
//!           columns/<n>.safetensors
//! embedding.h5ad                where the reference's cells lie, if its publisher gives that away
//! ```
//!
//! Nothing is believed but the manifest, and of that what its digests and signatures say: names of entries are looked up and never
//! taken for paths.

mod card;
mod error;
mod manifest;
mod read;
mod write;

pub use self::{
    card::Card,
    error::{Error, Result},
    manifest::{Manifest, Signatures},
    read::Pack,
    write::{Contents, write},
};

/// What people look at first.
const README: &str = "README.md";
const MANIFEST: &str = "manifest.json";
const SIGNATURES: &str = "signatures.json";
/// Before the names of the reference's files.
const REFERENCE: &str = "reference/";
/// Name of the file with the places of the reference's cells, in the pack and beside the unpacked reference.
pub const EMBEDDING: &str = "embedding.h5ad";
