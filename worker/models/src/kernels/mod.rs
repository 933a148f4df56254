//! Networks and likelihoods without a tensor library: what training, surgery and embedding spend their time on.
//!
//! Counts stay compressed rows from file to kernel. A row of logits goes through softmax, scale, log-likelihood and its gradient
//! while it is in cache; `lgamma` and `digamma` are computed at counts above 0 only, and only where a dispersion trains. The
//! gradients are written out; there is no graph, and nothing is allocated in a step.
//!
//! **The same bits everywhere.** Every kernel works on 16 lanes, whatever the processor's registers hold: one AVX-512 register,
//! two of AVX2, or an array. Multiplications are fused with additions explicitly, sums have one order, and work is cut at
//! fixed rows, so a result depends neither on the number of threads nor on the instruction set. libtorch promises neither.
//!
//! Start at [`likelihood`] for the mathematics, at [`matrix`] for the products, and at [`crate::fast`] for who uses them. The same
//! quantities through libtorch's autograd are the reference implementation that all of this is compared with.

pub(crate) mod adam;
pub(crate) mod batch_norm;
pub(crate) mod buffer;
pub(crate) mod experts;
pub(crate) mod gaussian;
pub(crate) mod label;
pub(crate) mod lanes;
pub(crate) mod layer;
pub(crate) mod likelihood;
pub(crate) mod masked;
pub(crate) mod math;
pub(crate) mod matrix;
pub(crate) mod memory;
pub(crate) mod mixture;
pub(crate) mod sparse;
pub(crate) mod team;
pub(crate) mod values;

pub(crate) use buffer::{Buffer, padded};
pub(crate) use lanes::Level;
pub(crate) use team::Team;
