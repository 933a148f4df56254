//! Python pickles as data: a machine that builds a graph of plain objects and executes nothing.
//!
//! A pickle is a program for a small stack machine, and Python's own reader lets it call any function. Here a call is
//! a node with a name and arguments: [`parse`] refuses every name that saved models do not need, and those it
//! lets through are given a meaning, if any, by the reader of the graph ([`Value`], [`NdArray`], the tensors of
//! [`super::torch`]).
//!
//! Objects keep their identity, as pickles share and nest them freely: the graph is as large as the pickle, however
//! often a part of it is referred to. Only walks turn it into a tree, and those are bounded.

mod classes;
mod fault;
mod graph;
mod json;
mod machine;
mod numpy;
mod opcode;
#[cfg(test)]
mod tests;
mod value;
mod write;

pub use fault::Fault;
pub use graph::Pickle;
pub use json::{CLASS, TENSOR};
pub use machine::{parse, parse_first};
pub use numpy::{Elements, NdArray};
pub use value::{Call, Scalar, Value};
pub use write::PickleWriter;
