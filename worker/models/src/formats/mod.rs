//! Saved models of other packages: import without executing anything, export that the package itself loads.
//!
//! [`pickle`] reads Python objects as data, [`torch`] the archives around tensors, [`scvi_tools`] the models of
//! scvi-tools (0.8 to 1.4). None of them is ever used on bytes from the network: importing is a local command.

pub mod archive;
#[cfg(test)]
mod fuzz_tests;
pub mod pickle;
pub mod scarches;
pub mod scvi_tools;
pub mod torch;
