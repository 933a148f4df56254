//! Upstream's surgery, to the letter: what it can be told, how tensors grow, and the seam to what trains, which a model's package decides.
//!
//! It moves more than new columns (batch norm of the decoder, columns of earlier conditions), so its result is a new
//! base and cannot be merged with another site's. It is here for comparison and for those who need upstream's numbers.

use archipelago_common::StateDict;
use tch::Tensor;

use crate::{
    error::{Error, Result},
    nn::{LayerRules, Mode, Weights, from_tch, to_tch},
    train::GradientUse,
};

/// What upstream's surgery does with a module's layers and tensors.
pub trait UpstreamRules: LayerRules {
    /// The tensors that upstream's optimiser would own, ours by name, with their gradients switched on; all others off.
    fn trainable(&self, weights: &Weights) -> Vec<(String, Tensor, GradientUse)>;

    /// In which mode upstream's steps run: in evaluation there is no dropout, and batch norm takes the statistics that it has.
    fn mode(&self) -> Mode {
        Mode::Training
    }
}

/// What upstream's surgery can be told, under the names of scvi-tools' and scArches' flags and with their defaults. What of it a model knows, and what that
/// means to its tensors, its rules say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags {
    /// Everything trains, as in a new model.
    pub unfrozen: bool,
    /// Dropout off.
    pub freeze_dropout: bool,
    /// The expression columns of the encoder's first layer stay.
    pub freeze_expression: bool,
    /// The latent columns of the decoder's first layer stay.
    pub freeze_decoder_first_layer: bool,
    /// Batch norm of encoders stays, though it still normalises by minibatch.
    pub freeze_batchnorm_encoder: bool,
    /// The same for decoders.
    pub freeze_batchnorm_decoder: bool,
    /// The classifier stays, as far as upstream's rule goes.
    pub freeze_classifier: bool,
    /// Steps run in training mode. A package that maps in evaluation mode does so for want of a call, and did otherwise before.
    pub train_mode: bool,
    /// Dropout off, in scArches' models.
    pub remove_dropout: bool,
    /// What a query adds to scArches' models trains.
    pub unfreeze_ext: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            unfrozen: false,
            freeze_dropout: false,
            freeze_expression: true,
            freeze_decoder_first_layer: true,
            freeze_batchnorm_encoder: true,
            freeze_batchnorm_decoder: false,
            freeze_classifier: true,
            train_mode: false,
            remove_dropout: true,
            unfreeze_ext: true,
        }
    }
}

/// Grows a reference's tensors to the sizes of fresh ones, as upstream: along each dimension that is larger, the last slices of the
/// fresh tensor are appended. With further categorical covariates this puts new columns behind the last covariate, where old columns
/// change their meaning: upstream's layout, not ours.
///
/// # Errors  [`Error::TensorShape`] where a fresh tensor is smaller or has another number of dimensions
pub fn extend(reference: &StateDict, fresh: &StateDict) -> Result<StateDict> {
    let mut grown = StateDict::new();
    for (name, fresh) in fresh.iter() {
        let tensor = match reference.get(name) {
            Some(old) if old.shape() == fresh.shape() => old.clone(),
            Some(old) => from_tch(&append(name, to_tch(name, old)?, &to_tch(name, fresh)?)?),
            None => fresh.clone(),
        };
        grown.insert(name, tensor);
    }
    Ok(grown)
}

fn append(name: &str, old: Tensor, fresh: &Tensor) -> Result<Tensor> {
    let misfit = || Error::TensorShape {
        name: name.to_owned(),
        found: format!("{:?}", old.size()),
        expected: format!("at most {:?}", fresh.size()),
    };
    if old.dim() != fresh.dim() || old.size().iter().zip(fresh.size()).any(|(&old, fresh)| old > fresh) {
        return Err(misfit());
    }
    let mut grown = old.shallow_clone();
    for dim in 0..fresh.dim() as i64 {
        let (n_old, n_fresh) = (old.size()[dim as usize], fresh.size()[dim as usize]);
        if n_fresh > n_old {
            let mut tail = fresh.narrow(dim, n_old, n_fresh - n_old);
            for later in dim + 1..fresh.dim() as i64 {
                tail = tail.narrow(later, 0, old.size()[later as usize]);
            }
            grown = Tensor::cat(&[grown, tail], dim);
        }
    }
    Ok(grown)
}
