//! Named tensors of a module, and how they become bytes.

use std::collections::BTreeMap;

use archipelago_common::{Columns, DType, StateDict, Tensor as Stored, state_dict::TensorSpec};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// What a tensor is to training and to surgery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Trained with the reference, frozen by surgery.
    Parameter,
    /// Moves with training but has no gradient: running statistics, counters, priors.
    Buffer,
    /// One row per condition, trained by surgery.
    Condition,
    /// One row per condition, computed from its cells and never trained.
    ConditionBuffer,
    /// One row per condition, a fact about its cells that upstream keeps elsewhere than among its tensors.
    ConditionFact,
}

impl Role {
    /// Whether the tensor has one row per condition.
    pub fn is_per_condition(self) -> bool {
        matches!(self, Self::Condition | Self::ConditionBuffer | Self::ConditionFact)
    }

    /// Whether an optimiser may ever own the tensor.
    pub fn is_trainable(self) -> bool {
        matches!(self, Self::Parameter | Self::Condition)
    }
}

/// One tensor of a module.
#[derive(Debug)]
pub struct Weight {
    /// The tensor; the layers share its storage.
    pub tensor: Tensor,
    /// What it is.
    pub role: Role,
}

/// All tensors of a module, by name. Layers hold handles to the same storage.
#[derive(Debug)]
pub struct Weights {
    entries: BTreeMap<String, Weight>,
    device: Device,
    n_conditions: usize,
}

impl Weights {
    pub(super) fn new(device: Device, n_conditions: usize) -> Self {
        Self { entries: BTreeMap::new(), device, n_conditions }
    }

    pub(super) fn insert(&mut self, name: &str, weight: Weight) {
        let replaced = self.entries.insert(name.to_owned(), weight);
        assert!(replaced.is_none(), "two layers ask for the tensor `{name}`");
    }

    /// Handles to the same tensors.
    pub(super) fn share(&self) -> Self {
        let entry = |(name, weight): (&String, &Weight)| {
            (name.clone(), Weight { tensor: weight.tensor.shallow_clone(), role: weight.role })
        };
        let entries = self.entries.iter().map(entry).collect();
        Self { entries, device: self.device, n_conditions: self.n_conditions }
    }

    /// Where the tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Number of conditions, the rows of every tensor of a per-condition role.
    pub fn n_conditions(&self) -> usize {
        self.n_conditions
    }

    /// All tensors in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Weight)> {
        self.entries.iter().map(|(name, weight)| (name.as_str(), weight))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.get(name).map(|weight| &weight.tensor)
    }

    /// The tensor of this name and its role. Panics without one: names come from [`Self::iter`].
    pub fn require(&self, name: &str) -> (&Tensor, Role) {
        let weight = self.entries.get(name).expect("names come from these weights");
        (&weight.tensor, weight.role)
    }

    /// Tensors that conditions do not own, as values.
    pub fn base(&self) -> StateDict {
        self.iter()
            .filter(|(_, w)| !w.role.is_per_condition())
            .map(|(n, w)| (n.to_owned(), from_tch(&w.tensor)))
            .collect()
    }

    /// The columns of the condition with this code, as values.
    pub fn columns(&self, code: usize) -> Columns {
        let rows = self.iter().filter(|(_, w)| w.role.is_per_condition());
        Columns(rows.map(|(name, w)| (name.to_owned(), from_tch(&w.tensor.get(code as i64)))).collect())
    }

    /// Type and shape of each tensor in one condition's columns.
    pub fn column_layout(&self) -> BTreeMap<String, TensorSpec> {
        let spec = |tensor: &Tensor| TensorSpec {
            dtype: DType::F32,
            shape: tensor.size()[1..].iter().map(|&n| n as usize).collect(),
        };
        self.iter().filter(|(_, w)| w.role.is_per_condition()).map(|(n, w)| (n.to_owned(), spec(&w.tensor))).collect()
    }
}

/// A libtorch tensor as a value. Panics on a type the models do not use: that is our own defect.
pub fn from_tch(tensor: &Tensor) -> Stored {
    let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
    let flat = tensor.detach().to_device(Device::Cpu).contiguous().view([-1]);
    let count = flat.numel();
    match tensor.kind() {
        Kind::Float => {
            let mut values = vec![0.0_f32; count];
            flat.copy_data(&mut values, count);
            Stored::from_f32(&shape, &values)
        }
        Kind::Int64 => {
            let mut values = vec![0_i64; count];
            flat.copy_data(&mut values, count);
            Stored::from_i64(&shape, &values)
        }
        other => panic!("models hold 32-bit floats and 64-bit counters, not {other:?}"),
    }
}

/// A value as a libtorch tensor on the CPU; `name` is for the error.
///
/// # Errors  [`Error::TensorShape`] for a type that the models do not use
pub fn to_tch(name: &str, stored: &Stored) -> Result<Tensor> {
    let shape: Vec<i64> = stored.shape().iter().map(|&n| n as i64).collect();
    let kind = match stored.dtype() {
        DType::F32 => Kind::Float,
        DType::F64 => Kind::Double,
        DType::I64 => Kind::Int64,
        DType::I32 => Kind::Int,
        DType::U8 => Kind::Uint8,
        DType::Bool => Kind::Bool,
    };
    Tensor::f_from_data_size(stored.bytes(), &shape, kind)
        .map_err(|source| Error::Torch { action: "hold a tensor", source })
        .inspect_err(|_| tracing::warn!(tensor = name, "tensor could not be held"))
}
