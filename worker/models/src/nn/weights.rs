//! Named tensors of a module, and how they become bytes.

use std::collections::BTreeMap;

use archipelago_common::{
    Columns, DType, Layout, Section, StateDict, Tensor as Stored, TensorKind,
    layout::{Axis, Owned},
    state_dict::TensorSpec,
};
use ndarray::ArrayView2;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// What a tensor is to training and to surgery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Trained with the reference, frozen by surgery.
    Parameter,
    /// Moves with training but has no gradient: running statistics, counters, priors.
    Buffer,
    /// Computed from the reference's cells and never trained. Part of the base; upstream keeps it elsewhere than among its tensors.
    Summary,
    /// One row per condition, trained by surgery.
    Condition,
    /// One row per condition, zeros in those of a reference: what a new condition has beside what is everybody's. Trained by surgery alone, and
    /// nothing that upstream has.
    ConditionOffset,
    /// One row per condition, computed from its cells and never trained.
    ConditionBuffer,
    /// One row per condition, a fact about its cells (0 or 1) that upstream keeps elsewhere than among its tensors.
    ConditionFact,
    /// Trained at the site that maps and kept there, in checkpoints and in a file of the site's own. A base does not have it, and it
    /// can be in no columns; it leaves only as a [part](crate::model::Model::kept_parts) that a model makes of it.
    Local,
}

impl Role {
    /// What the tensor's rows are among what leaves a site, for one that has a row per condition.
    pub fn kind(self) -> Option<TensorKind> {
        match self {
            Self::Parameter | Self::Buffer | Self::Summary | Self::Local => None,
            Self::Condition | Self::ConditionOffset => Some(TensorKind::Trained),
            Self::ConditionBuffer => Some(TensorKind::Statistic),
            Self::ConditionFact => Some(TensorKind::Fact),
        }
    }

    /// Whether the tensor has one row per condition.
    pub fn is_per_condition(self) -> bool {
        self.kind().is_some()
    }

    /// Whether an optimiser that trains a whole model may own the tensor.
    pub fn is_trainable(self) -> bool {
        matches!(self, Self::Parameter | Self::Condition | Self::Local)
    }
}

/// One tensor of a module.
#[derive(Debug)]
pub struct Weight {
    /// The tensor; the layers share its storage.
    pub tensor: Tensor,
    /// What it is.
    pub role: Role,
    /// The axis whose keys its rows belong to, for a per-condition role.
    pub section: Section,
}

/// All tensors of a module, by name. Layers hold handles to the same storage.
#[derive(Debug)]
pub struct Weights {
    entries: BTreeMap<String, Weight>,
    device: Device,
    /// Number of keys on each axis that the module was built for, conditions first.
    axes: Vec<(Section, usize)>,
}

impl Weights {
    pub(super) fn new(device: Device, axes: Vec<(Section, usize)>) -> Self {
        Self { entries: BTreeMap::new(), device, axes }
    }

    pub(super) fn insert(&mut self, name: &str, weight: Weight) {
        let replaced = self.entries.insert(name.to_owned(), weight);
        assert!(replaced.is_none(), "two layers ask for the tensor `{name}`");
    }

    /// Handles to the same tensors.
    pub(super) fn share(&self) -> Self {
        let entry = |(name, weight): (&String, &Weight)| {
            let section = weight.section.clone();
            (name.clone(), Weight { tensor: weight.tensor.shallow_clone(), role: weight.role, section })
        };
        let entries = self.entries.iter().map(entry).collect();
        Self { entries, device: self.device, axes: self.axes.clone() }
    }

    /// Where the tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Number of conditions, the rows of every tensor of the first axis.
    pub fn n_conditions(&self) -> usize {
        self.n_keys(&Section::Condition)
    }

    /// Number of keys on an axis, the rows of each of its tensors; 0 for an axis that the module does not have.
    pub fn n_keys(&self, section: &Section) -> usize {
        self.axes.iter().find(|(axis, _)| axis == section).map_or(0, |(_, n_keys)| *n_keys)
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

    /// Tensors that are the same for everyone, as values: those that neither conditions nor a site own.
    pub fn base(&self) -> StateDict {
        self.iter()
            .filter(|(_, w)| matches!(w.role, Role::Parameter | Role::Buffer | Role::Summary))
            .map(|(n, w)| (n.to_owned(), from_tch(&w.tensor)))
            .collect()
    }

    /// Tensors that stay at the site, as values.
    pub fn local(&self) -> StateDict {
        self.iter().filter(|(_, w)| w.role == Role::Local).map(|(n, w)| (n.to_owned(), from_tch(&w.tensor))).collect()
    }

    /// The columns of the condition with this code, as values.
    pub fn columns(&self, code: usize) -> Columns {
        self.columns_on(&Section::Condition, code)
    }

    /// The columns of the key with this code on an axis, as values.
    pub fn columns_on(&self, section: &Section, code: usize) -> Columns {
        let row = |(name, tensor): (&str, &Tensor)| (name.to_owned(), from_tch(&tensor.get(code as i64)));
        Columns(self.rows_on(section).map(|(name, weight)| row((name, &weight.tensor))).collect())
    }

    /// What a version of this module holds beside its base: the axes with the tensors of their keys, and what each is. The
    /// model adds the parts that it takes.
    pub fn layout(&self) -> Layout {
        let shape = |tensor: &Tensor| tensor.size()[1..].iter().map(|&n| n as usize).collect();
        let owned = |(name, weight): (&str, &Weight)| {
            let kind = weight.role.kind().expect("rows belong to keys");
            (name.to_owned(), Owned { spec: TensorSpec { dtype: DType::F32, shape: shape(&weight.tensor) }, kind })
        };
        let axis = |(section, _): &(Section, usize)| {
            let tensors = self.rows_on(section).map(owned).collect();
            Axis::new(section.clone(), tensors)
        };
        let layout = Layout::of_axes(self.axes.iter().map(axis).collect());
        if layout.axes.iter().any(|axis| !axis.tensors.is_empty()) { layout } else { Layout::plain(BTreeMap::new()) }
    }

    fn rows_on(&self, section: &Section) -> impl Iterator<Item = (&str, &Weight)> {
        self.iter().filter(move |(_, w)| w.role.is_per_condition() && w.section == *section)
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

/// Rows of numbers as a libtorch tensor on the CPU, `[n_rows, n_columns]`.
pub fn of_rows(rows: ArrayView2<'_, f32>) -> Tensor {
    let values: Vec<f32> = rows.iter().copied().collect();
    Tensor::from_slice(&values).view([rows.nrows() as i64, rows.ncols() as i64])
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
