//! Prototypes of further types as a file: what `add-cell-type` writes, and what the other questions take.

use archipelago_common::{Digest, StateDict, Tensor as Stored};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{ScpoliModule, classify::NewType};
use crate::{
    error::{Error, Result},
    model::Module as _,
    nn::{from_tch, to_tch},
};

/// Prototypes of types that a reference does not have.
#[derive(Debug)]
pub(super) struct PrototypeFile {
    told: Told,
    tensors: StateDict,
}

/// What the file says of its tensors.
#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Told {
    /// Digest of what is frozen of the reference: the latent space that the numbers are of.
    latent_space: Digest,
    n_latent: usize,
    /// The types, in order of the tensors' rows.
    types: Vec<String>,
}

impl PrototypeFile {
    /// One without types, for the latent space of a module.
    pub(super) fn new(module: &ScpoliModule) -> Self {
        let told = Told {
            latent_space: module.weights().base().digest(),
            n_latent: module.config().latent_dim,
            types: Vec::new(),
        };
        Self { told, tensors: StateDict::new() }
    }

    /// The same with one more type.
    pub(super) fn with(mut self, name: &str, new: &NewType) -> Self {
        let at = self.told.types.len();
        self.told.types.push(name.to_owned());
        self.tensors.insert(format!("{at}.{MEAN}"), from_tch(&new.mean));
        self.tensors.insert(format!("{at}.{COV}"), from_tch(&new.cov));
        self.tensors.insert(format!("{at}.{N}"), Stored::from_i64(&[], &[new.n_cells as i64]));
        self
    }

    /// The file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let told = serde_json::to_string(&self.told).expect("names and numbers are JSON");
        self.tensors.to_safetensors(Some(&told))
    }

    /// Reads a file, for the latent space of this module.
    ///
    /// # Errors  [`Error::Prototypes`] for a file that is none, or that is of another latent space
    pub(super) fn read(bytes: &[u8], module: &ScpoliModule) -> Result<Self> {
        let refuse = |detail: String| Error::Prototypes { detail };
        let (tensors, told) = StateDict::from_safetensors(WHAT, bytes).map_err(|e| refuse(e.to_string()))?;
        let told = told.ok_or_else(|| refuse("the file does not say what it holds".to_owned()))?;
        let told: Told = serde_json::from_str(&told).map_err(|e| refuse(e.to_string()))?;
        let expected = Self::new(module).told;
        if told.n_latent != expected.n_latent {
            return Err(refuse(format!("they have {} dimensions, the reference {}", told.n_latent, expected.n_latent)));
        }
        if told.latent_space != expected.latent_space {
            return Err(refuse("they are of the latent space of another reference".to_owned()));
        }
        for at in 0..told.types.len() {
            for (part, shape) in [(MEAN, &[told.n_latent][..]), (COV, &[told.n_latent, told.n_latent])] {
                let name = format!("{at}.{part}");
                let values = tensors.require(WHAT, &name).map_err(|e| refuse(e.to_string()))?;
                let numbers = values.to_f32(&name).map_err(|e| refuse(e.to_string()))?;
                if values.shape() != shape {
                    return Err(refuse(format!("`{name}` is {}", values.spec())));
                }
                if numbers.iter().any(|value| !value.is_finite()) {
                    return Err(refuse(format!("`{name}` holds what is not a number")));
                }
            }
        }
        Ok(Self { told, tensors })
    }

    /// The means by type.
    pub(super) fn means(&self) -> Vec<(String, Tensor)> {
        let mean = |(at, name): (usize, &String)| {
            let tensor = self.tensors.get(&format!("{at}.{MEAN}")).expect("it was checked");
            (name.clone(), to_tch(name, tensor).expect("it was checked"))
        };
        self.told.types.iter().enumerate().map(mean).collect()
    }
}

const WHAT: &str = "prototypes";
const MEAN: &str = "mean";
const COV: &str = "cov";
const N: &str = "n_cells";
