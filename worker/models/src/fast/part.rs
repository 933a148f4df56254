//! Tensors as the kernels keep them: in pieces that one thread can train.

use std::sync::Arc;

use tch::{Device, Tensor, no_grad};

use super::gradient::Source;
use crate::kernels::{Buffer, Level, adam, buffer::PANEL, padded};

/// A piece of a tensor, and what training keeps about it.
#[derive(Debug)]
pub(super) struct Part {
    /// The module's tensor.
    pub(super) name: String,
    pub(super) layout: Layout,
    /// Of which modality's network it is a part.
    pub(super) modality: usize,
    /// Where its gradient comes from.
    pub(super) source: Source,
    /// Which of the optimiser's groups moves it; none where it follows from other parts, and its gradient is theirs.
    pub(super) group: Option<usize>,
    pub(super) values: Buffer,
    /// Where it trains.
    pub(super) moments: Option<Moments>,
}

/// Which piece of a tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// Outputs `32 p..` of the first columns of a `[n_out, n_columns]` matrix, as rows of 32 for each of `n_in` inputs.
    Panel { p: usize, n_in: usize, n_out: usize, n_columns: usize },
    /// The last `n` columns of a `[n_rows, n_columns]` matrix as such rows.
    Beside { n_rows: usize, n: usize, n_columns: usize },
    /// Rows of `n` numbers, padded.
    Rows { n_rows: usize, n: usize },
    /// The elements at these places; the tensor is 0 at all places that no part has.
    Listed(Arc<[u32]>),
}

/// What Adam keeps about a piece, and its gradient.
#[derive(Debug)]
pub(super) struct Moments {
    pub(super) gradient: Buffer,
    mean: Buffer,
    square: Buffer,
}

/// One of the numbers that belong to each element of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    Value,
    Gradient,
    Mean,
    Square,
}

impl Part {
    pub(super) fn new(name: &str, layout: Layout, values: &[f32], trains: bool) -> Self {
        let n = match &layout {
            Layout::Panel { n_in, .. } => n_in * PANEL,
            Layout::Rows { n_rows, n } | Layout::Beside { n_rows, n, .. } => n_rows * padded(*n),
            Layout::Listed(places) => places.len(),
        };
        let moments =
            trains.then(|| Moments { gradient: Buffer::zeros(n), mean: Buffer::zeros(n), square: Buffer::zeros(n) });
        let (name, source) = (name.to_owned(), Source::LogDispersion);
        let mut part = Self { name, layout, modality: 0, source, group: Some(0), values: Buffer::zeros(n), moments };
        part.read(Which::Value, values);
        part
    }

    /// Rows that follow from other parts, and have a gradient where one of those trains.
    pub(super) fn derived(name: &str, (n_rows, n): (usize, usize), has_gradient: bool) -> Self {
        let zeros = vec![0.0; n_rows * n];
        Self { group: None, ..Self::new(name, Layout::Rows { n_rows, n }, &zeros, has_gradient) }
    }

    /// Whether it is a tensor's, and moves.
    pub(super) fn trains(&self) -> bool {
        self.moments.is_some() && self.group.is_some()
    }

    /// Moves the values against the gradient, by the step of its group.
    pub(super) fn step(&mut self, level: Level, steps: &[adam::Step]) {
        if let (Some(Moments { gradient, mean, square }), Some(group)) = (&mut self.moments, self.group) {
            adam::step(level, steps[group], gradient, &mut self.values, mean, square);
        }
    }

    fn buffer(&mut self, which: Which) -> (&Layout, Option<&mut Buffer>) {
        let buffer = match (which, &mut self.moments) {
            (Which::Value, _) => Some(&mut self.values),
            (Which::Gradient, Some(moments)) => Some(&mut moments.gradient),
            (Which::Mean, Some(moments)) => Some(&mut moments.mean),
            (Which::Square, Some(moments)) => Some(&mut moments.square),
            _ => None,
        };
        (&self.layout, buffer)
    }

    /// Takes this piece from the values of the whole tensor.
    pub(super) fn read(&mut self, which: Which, tensor: &[f32]) {
        let (layout, buffer) = self.buffer(which);
        if let Some(buffer) = buffer {
            layout.each(|at, of_tensor| buffer[at] = tensor[of_tensor]);
        }
    }

    /// Puts this piece into the values of the whole tensor.
    pub(super) fn write(&mut self, which: Which, tensor: &mut [f32]) {
        let (layout, buffer) = self.buffer(which);
        if let Some(buffer) = buffer {
            layout.each(|at, of_tensor| tensor[of_tensor] = buffer[at]);
        }
    }
}

impl Layout {
    /// Calls `f` with the place of each number here and in the tensor.
    fn each(&self, mut f: impl FnMut(usize, usize)) {
        match self.clone() {
            Self::Panel { p, n_in, n_out, n_columns } => {
                for o in p * PANEL..n_out.min((p + 1) * PANEL) {
                    (0..n_in).for_each(|i| f(i * PANEL + o % PANEL, o * n_columns + i));
                }
            }
            Self::Rows { n_rows, n } => {
                for row in 0..n_rows {
                    (0..n).for_each(|i| f(row * padded(n) + i, row * n + i));
                }
            }
            Self::Beside { n_rows, n, n_columns } => {
                for row in 0..n_rows {
                    (0..n).for_each(|i| f(row * padded(n) + i, (row + 1) * n_columns - n + i));
                }
            }
            Self::Listed(places) => places.iter().enumerate().for_each(|(at, &place)| f(at, place as usize)),
        }
    }
}

/// The values of a tensor in order.
pub(super) fn values_of(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.detach().to_device(Device::Cpu).contiguous().view([-1])).expect("modules hold 32-bit floats")
}

/// Replaces the values of a tensor.
pub(super) fn set_values(tensor: &Tensor, values: &[f32]) {
    let values = Tensor::from_slice(values).view_as(tensor);
    no_grad(|| tensor.shallow_clone().copy_(&values));
}
