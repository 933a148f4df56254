//! Weights from terms to genes, held to the terms' gene sets.

use ndarray::ArrayView1;
use tch::{Kind, Tensor, no_grad};

use crate::{
    data::GeneSets,
    error::Result,
    fast::MaskedSpec,
    nn::{Builder, Init, Role},
    reference::to_array,
};

/// A decoder's weights of terms with gene sets, `[n_genes, n_terms]`.
#[derive(Debug)]
pub(super) struct Masked {
    /// Name of the weights.
    pub(super) name: String,
    /// The weights; with a hard mask 0 outside the sets, to the bit.
    pub(super) weight: Tensor,
    /// 1 where a gene is in a term's set, else 0.
    pub(super) mask: Tensor,
    is_soft: bool,
}

/// Whether genes outside a term's set may have weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outside {
    /// They may, and a penalty shrinks them.
    Soft,
    /// They may not.
    Hard,
}

impl Outside {
    /// What an option says.
    pub(super) fn of(is_soft: bool) -> Self {
        if is_soft { Self::Soft } else { Self::Hard }
    }
}

impl Masked {
    /// Weights under the name `name`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub(super) fn new(b: &mut Builder<'_>, name: &str, sets: &GeneSets, role: Role, outside: Outside) -> Result<Self> {
        let mask = mask(sets, b.device());
        let shape = [mask.size()[0] as usize, sets.terms().len()];
        let weight = b.tensor(name, &shape, role, Init::FanIn(shape[1]))?;
        let masked = Self { name: name.to_owned(), weight, mask, is_soft: outside == Outside::Soft };
        masked.hold();
        Ok(masked)
    }

    /// Makes weights outside a hard mask 0; those that are 0 stay as they are.
    pub(super) fn hold(&self) {
        if !self.is_soft {
            no_grad(|| self.weight.shallow_clone().copy_(&(&self.weight * &self.mask)));
        }
    }

    /// What the kernels are told about it, beside the columns of conditions.
    pub(super) fn spec(&self) -> MaskedSpec {
        let members = |genes: ArrayView1<'_, f32>| {
            (0..).zip(genes).filter(|(_, is_member)| **is_member > 0.5).map(|(term, _)| term).collect()
        };
        let of_genes = to_array(&self.mask).rows().into_iter().map(members).collect();
        MaskedSpec { weight: self.name.clone(), of_genes, is_soft: self.is_soft, columns: None }
    }

    /// What `z`, `[n, n_terms]`, adds to the genes, `[n, n_genes]`.
    pub(super) fn forward(&self, z: &Tensor) -> Tensor {
        let held = if self.is_soft { self.weight.shallow_clone() } else { &self.weight * &self.mask };
        z.matmul(&held.tr())
    }
}

/// 1 where a gene belongs to a term, else 0: `[n_genes, n_terms]`.
fn mask(sets: &GeneSets, device: tch::Device) -> Tensor {
    let mask = sets.mask();
    let (rows, columns) = mask.dim();
    let flat: Vec<f32> = mask.iter().copied().collect();
    Tensor::from_slice(&flat).view([rows as i64, columns as i64]).to_kind(Kind::Float).to_device(device)
}
