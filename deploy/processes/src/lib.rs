//! Programs of this workspace as real processes on one machine: what the demonstration, the campaign and the benchmarks
//! share. [`process`] starts, signals and kills; [`consortium`] founds the coordinators of one consortium and looks at them
//! from outside, through their operator's commands and their second port. Nothing here knows the product's code.

pub mod consortium;
pub mod process;

pub use consortium::{Consortium, NodePlan};
pub use process::{Running, Signal, free_ports, program, run, wait_until};
