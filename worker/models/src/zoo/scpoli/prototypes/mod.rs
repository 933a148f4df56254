//! Prototypes: a point of the latent space for each cell type, and for clusters of cells without one.

mod clustering;
mod distance;
mod statistics;

pub use clustering::{Clusters, cluster};
pub use distance::{PrototypeLoss, distances, labelled_loss, unlabelled_loss};
pub use statistics::{OfType, Statistics};

use std::cell::{Ref, RefCell};

use tch::{Kind, Tensor, no_grad};

use crate::{error::Result, nn::Builder};

/// The prototypes of a module.
#[derive(Debug)]
pub struct Prototypes {
    /// Training cells of each type, `[n_types]`; 0 for a type without a prototype.
    n_cells: Tensor,
    /// `[n_types, n_latent]`
    mean: Tensor,
    /// `[n_types, n_latent, n_latent]`; zeros for a type of one cell.
    cov: Tensor,
    /// Of clusters of cells, `[n_clusters, n_latent]`.
    unlabelled: Tensor,
    /// What draws cells now, if something does.
    drawing: RefCell<Option<Drawing>>,
}

/// What cells are drawn to, beside the prototypes of their types.
#[derive(Debug)]
pub struct Drawing {
    /// Prototypes of clusters, `[n_clusters, n_latent]`, where there are some.
    pub clusters: Option<Tensor>,
}

impl Prototypes {
    /// Those of so many types; tensors `prototypes.labeled.{n,mean,cov}` and `prototypes.unlabeled.mean`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn new(b: &mut Builder<'_>, n_types: usize, n_latent: usize) -> Result<Self> {
        let (n_cells, mean) = (b.summary_rows(N, n_types, &[])?, b.summary_rows(MEAN, n_types, &[n_latent])?);
        let cov = b.summary_rows(COV, n_types, &[n_latent, n_latent])?;
        let unlabelled = b.summary_rows(UNLABELLED, 0, &[n_latent])?;
        Ok(Self { n_cells, mean, cov, unlabelled, drawing: RefCell::new(None) })
    }

    /// Training cells of each type, `[n_types]`.
    pub fn n_cells(&self) -> Vec<f64> {
        Vec::try_from(self.n_cells.to_kind(Kind::Double)).expect("it is a list of numbers")
    }

    /// Whether a type has a prototype, `[n_types]`.
    pub fn are_present(&self) -> Vec<bool> {
        self.n_cells().into_iter().map(|n| n > 0.0).collect()
    }

    /// Of types, `[n_types, n_latent]`; zeros where there is none.
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// Covariances of the types' cells, `[n_types, n_latent, n_latent]`.
    pub fn cov(&self) -> &Tensor {
        &self.cov
    }

    /// Of clusters, `[n_clusters, n_latent]`; no row where there are none.
    pub fn unlabelled(&self) -> &Tensor {
        &self.unlabelled
    }

    /// Draws cells from now on, or draws none any more.
    pub fn draw(&self, drawing: Option<Drawing>) {
        *self.drawing.borrow_mut() = drawing;
    }

    /// What draws cells now.
    pub(in crate::zoo::scpoli) fn drawing(&self) -> Option<Ref<'_, Drawing>> {
        Ref::filter_map(self.drawing.borrow(), Option::as_ref).ok()
    }

    /// Takes the statistics of cells of these types as their prototypes. A type without a cell keeps what it has.
    pub fn set(&self, statistics: &Statistics, types: &[bool]) {
        for (code, one) in statistics.types().iter().enumerate().filter(|(code, one)| types[*code] && one.n_cells > 0) {
            let put = |to: &Tensor, from: Tensor| no_grad(|| to.get(code as i64).copy_(&from.to_device(to.device())));
            put(&self.n_cells, Tensor::from(one.n_cells as f32));
            put(&self.mean, one.mean());
            put(&self.cov, one.cov());
        }
    }

    /// Takes these as prototypes of clusters, `[n_clusters, n_latent]`.
    pub fn set_unlabelled(&self, means: &Tensor) {
        no_grad(|| self.unlabelled.shallow_clone().set_data(&means.detach().copy()));
    }

    /// How far cells are from the prototypes that draw them; none where nothing does. `types`: `[n, n_levels]`.
    pub fn loss(&self, z: &Tensor, types: &Tensor, p: f64) -> Option<PrototypeLoss> {
        let drawing = self.drawing.borrow();
        let Drawing { clusters } = drawing.as_ref()?;
        let present = Tensor::from_slice(&self.are_present()).to_device(z.device());
        let labelled = labelled_loss(z, types, &self.mean, &present, p);
        let unlabelled = clusters.as_ref().map(|means| unlabelled_loss(z, means, p));
        Some(PrototypeLoss { labelled, unlabelled })
    }
}

/// Names of the tensors.
pub(super) const N: &str = "prototypes.labeled.n";
pub(super) const MEAN: &str = "prototypes.labeled.mean";
pub(super) const COV: &str = "prototypes.labeled.cov";
pub(super) const UNLABELLED: &str = "prototypes.unlabeled.mean";
