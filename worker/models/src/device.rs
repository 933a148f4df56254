//! Where and how to compute, and how many threads libtorch may use.

use serde::{Deserialize, Serialize};

/// A device to compute on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Device {
    /// The processor: repeated runs give the same bits.
    #[default]
    Cpu,
    /// A CUDA device; repeated runs may differ in last bits.
    Cuda(usize),
}

impl Device {
    /// The first CUDA device where libtorch finds one, else the processor.
    pub fn best() -> Self {
        if tch::Cuda::is_available() { Self::Cuda(0) } else { Self::Cpu }
    }

    /// Whether a repetition gives the same bits.
    pub fn is_deterministic(self) -> bool {
        self == Self::Cpu
    }

    pub(crate) fn to_tch(self) -> tch::Device {
        match self {
            Self::Cpu => tch::Device::Cpu,
            Self::Cuda(index) => tch::Device::Cuda(index),
        }
    }
}

/// Who computes losses and gradients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The kernels, where they know the model and its options and the device is the processor; else autograd.
    #[default]
    Fast,
    /// libtorch's autograd, the reference implementation.
    Autograd,
}

/// Where and how to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compute {
    /// Where tensors live.
    pub device: Device,
    /// Who computes.
    pub engine: Engine,
}

impl From<Device> for Compute {
    fn from(device: Device) -> Self {
        Self { device, engine: Engine::default() }
    }
}

/// While this lives, libtorch computes on the calling thread alone: sums have one order, whatever the machine.
///
/// libtorch's number of threads is a property of each thread (OpenMP's and MKL's thread-local settings), taken from a
/// process-wide default on first use. Other threads that start meanwhile may begin with one thread too; that costs
/// them time, never a bit.
pub(crate) struct OneThread {
    before: i32,
}

impl OneThread {
    pub(crate) fn new() -> Self {
        // Asking first makes libtorch initialise this thread, so that it does not overwrite our setting later.
        let before = tch::get_num_threads();
        tch::set_num_threads(1);
        Self { before }
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        tch::set_num_threads(self.before);
    }
}
