//! The cells of one data set in the latent space, as they travel where positions may: the nearest of them say what a cell is.

use std::collections::BTreeMap;

use super::machines::{PLACE, TYPE, check_label, refuse, tensor_of, whole};
use crate::{
    error::Result,
    state_dict::{DType, StateDict, Tensor},
};

/// The cells of one data set.
#[derive(Clone, PartialEq, Debug)]
pub struct Points {
    /// How many data sets were there before: who joins the tree before whom, see [`super::Machines::place`].
    pub place: u64,
    /// Number of latent coordinates.
    pub n_dims: usize,
    /// The cells of each type, one after another.
    pub types: BTreeMap<String, Vec<f32>>,
}

impl Points {
    /// The tensors that travel.
    pub fn to_tensors(&self) -> StateDict {
        let mut tensors = StateDict::new();
        tensors.insert(PLACE, Tensor::from_i64(&[], &[i64::try_from(self.place).unwrap_or(i64::MAX)]));
        for (label, cells) in &self.types {
            let shape = [cells.len() / self.n_dims.max(1), self.n_dims];
            tensors.insert(tensor_of(label), Tensor::from_f32(&shape, cells));
        }
        tensors
    }

    /// Reads what [`Self::to_tensors`] wrote, of which a site may have left types out.
    ///
    /// # Errors  [`crate::Error::Decode`] for anything else
    pub fn from_tensors(tensors: &StateDict) -> Result<Self> {
        let place = whole(tensors.require(WHAT, PLACE)?).map_err(|detail| refuse(WHAT, detail))?;
        let (mut n_dims, mut types) = (None, BTreeMap::new());
        for (name, tensor) in tensors.iter().filter(|(name, _)| *name != PLACE) {
            let Some(label) = name.strip_prefix(TYPE) else {
                return Err(refuse(WHAT, format!("tensor `{name}` is no part of cells")));
            };
            check_label(label).map_err(|detail| refuse(WHAT, detail))?;
            let of_type = match (tensor.dtype(), tensor.shape()) {
                (DType::F32, &[n_cells, n]) if n_cells > 0 && n > 0 && n == *n_dims.get_or_insert(n) => {
                    tensor.to_f32(name)?
                }
                _ => return Err(refuse(WHAT, format!("tensor `{name}` is {}, expected cells", tensor.spec()))),
            };
            if !of_type.iter().all(|value| value.is_finite()) {
                return Err(refuse(WHAT, format!("a value of tensor `{name}` is NaN or infinite")));
            }
            types.insert(label.to_owned(), of_type);
        }
        match n_dims {
            Some(n_dims) => Ok(Self { place, n_dims, types }),
            None => Err(refuse(WHAT, "it has no type".to_owned())),
        }
    }
}

const WHAT: &str = "cells of a tree";

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Points {
        let types = [("B", vec![1.0, -0.5, 0.25, 2.0]), ("T", vec![1e-9, 3.0])];
        let types = types.map(|(label, cells)| (label.to_owned(), cells)).into();
        Points { place: 2, n_dims: 2, types }
    }

    #[test]
    fn cells_come_back_bit_for_bit_and_without_a_type_that_a_site_left_out() {
        let mut tensors = points().to_tensors();
        assert_eq!(Points::from_tensors(&tensors).unwrap(), points());
        tensors.remove(&tensor_of("T"));
        assert!(Points::from_tensors(&tensors).unwrap().types.keys().eq(["B"]));
    }

    #[test]
    fn what_are_no_cells_is_refused_in_words() {
        let check = |name: &str, tensor: Option<Tensor>, word: &str| {
            let mut tensors = points().to_tensors();
            match tensor {
                Some(tensor) => drop(tensors.insert(name, tensor)),
                None => drop(tensors.remove(name)),
            }
            let told = Points::from_tensors(&tensors).unwrap_err().to_string();
            assert!(told.contains(word), "{told}");
        };
        check(PLACE, None, "place");
        check("type/T", Some(Tensor::from_f32(&[1, 3], &[1.0, 2.0, 3.0])), "`type/T` is F32[1, 3], expected cells");
        check("type/T", Some(Tensor::from_f32(&[0, 2], &[])), "expected cells");
        check("type/T", Some(Tensor::from_f64(&[1, 2], &[1.0, 2.0])), "expected cells");
        check("type/T", Some(Tensor::from_f32(&[1, 2], &[1.0, f32::NAN])), "NaN");
        check("type/root", Some(Tensor::from_f32(&[1, 2], &[1.0, 2.0])), "`root` is no name");
        check("donors", Some(Tensor::from_f32(&[1, 2], &[1.0, 2.0])), "`donors` is no part");
        let mut none = points().to_tensors();
        ["B", "T"].iter().for_each(|label| drop(none.remove(&tensor_of(label))));
        assert!(Points::from_tensors(&none).unwrap_err().to_string().contains("no type"));
    }
}
