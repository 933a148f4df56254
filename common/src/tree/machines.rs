//! The linear machines of one data set, as they travel: for each type a weighted sum of latent coordinates that is negative for
//! its cells, and the components of all cells that tell what is far from them.

use std::collections::BTreeMap;

use archipelago_hierarchy::RESERVED;

use crate::{
    error::{Error, Result},
    state_dict::{DType, StateDict, Tensor},
};

/// The machines of one data set.
#[derive(Clone, PartialEq, Debug)]
pub struct Machines {
    /// How many data sets had machines in the version that these were trained for: who joins the tree before whom.
    pub place: u64,
    /// For each type the weight of every latent coordinate, then what is added.
    pub types: BTreeMap<String, Vec<f64>>,
    /// What the cells have in common, where that rejects others.
    pub components: Option<Components>,
}

/// Principal components of a data set's cells.
#[derive(Clone, PartialEq, Debug)]
pub struct Components {
    /// The centre of the cells.
    pub mean: Vec<f64>,
    /// The components one after another.
    pub components: Vec<f64>,
    /// How far from the components a cell may lie.
    pub max_error: f64,
}

impl Machines {
    /// Number of latent coordinates.
    pub fn n_dims(&self) -> usize {
        self.types.values().next().map_or(0, |weights| weights.len() - 1)
    }

    /// The tensors that travel.
    pub fn to_tensors(&self) -> StateDict {
        let mut tensors = StateDict::new();
        tensors.insert(PLACE, Tensor::from_i64(&[], &[i64::try_from(self.place).unwrap_or(i64::MAX)]));
        for (label, weights) in &self.types {
            tensors.insert(tensor_of(label), Tensor::from_f64(&[weights.len()], weights));
        }
        if let Some(Components { mean, components, max_error }) = &self.components {
            let n_dims = mean.len();
            tensors.insert(MEAN, Tensor::from_f64(&[n_dims], mean));
            let shape = [components.len() / n_dims.max(1), n_dims];
            tensors.insert(COMPONENTS, Tensor::from_f64(&shape, components));
            tensors.insert(MAX_ERROR, Tensor::from_f64(&[], &[*max_error]));
        }
        tensors
    }

    /// Reads what [`Self::to_tensors`] wrote, or what a site left of it.
    ///
    /// # Errors  [`Error::Decode`]: no type, a tensor that is none of machines, another shape, a value that is not finite, a label
    /// that means something else
    pub fn from_tensors(tensors: &StateDict) -> Result<Self> {
        let place = whole(tensors.require(WHAT, PLACE)?).map_err(|detail| refuse(WHAT, detail))?;
        let n_dims = tensors.iter().find_map(|(name, tensor)| {
            name.starts_with(TYPE).then(|| tensor.shape().first().map_or(0, |n| n.saturating_sub(1)))
        });
        let Some(n_dims @ 1..) = n_dims else { return Err(refuse(WHAT, "it has no type".to_owned())) };
        let mut types = BTreeMap::new();
        for (name, tensor) in tensors.iter() {
            if let Some(label) = name.strip_prefix(TYPE) {
                check_label(label).map_err(|detail| refuse(WHAT, detail))?;
                types.insert(label.to_owned(), doubles(name, tensor, &[n_dims + 1])?);
            } else if ![PLACE, MEAN, COMPONENTS, MAX_ERROR].contains(&name) {
                return Err(refuse(WHAT, format!("tensor `{name}` is no part of machines")));
            }
        }
        let components = match [MEAN, COMPONENTS, MAX_ERROR].map(|name| tensors.get(name)) {
            [None, None, None] => None,
            [Some(mean), Some(components), Some(max_error)] => {
                let n_components = components.shape().first().copied().unwrap_or_default();
                Some(Components {
                    mean: doubles(MEAN, mean, &[n_dims])?,
                    components: doubles(COMPONENTS, components, &[n_components, n_dims])?,
                    max_error: doubles(MAX_ERROR, max_error, &[])?[0],
                })
            }
            _ => return Err(refuse(WHAT, "it has some of the tensors of components and not all".to_owned())),
        };
        Ok(Self { place, types, components })
    }
}

/// The name of the tensor that holds what tells a type: a site may leave it out.
pub fn tensor_of(label: &str) -> String {
    format!("{TYPE}{label}")
}

/// One whole number, or why it is none.
pub(super) fn whole(tensor: &Tensor) -> std::result::Result<u64, String> {
    match tensor.to_i64(PLACE).as_deref() {
        Ok([place]) if *place >= 0 => Ok(place.unsigned_abs()),
        _ => Err(format!("tensor `{PLACE}` is {}, expected one whole number, 0 or more", tensor.spec())),
    }
}

/// Why a label can be no name of a type, if it can't.
pub(super) fn check_label(label: &str) -> std::result::Result<(), String> {
    match label.is_empty() || RESERVED.contains(&label) || label.chars().any(char::is_control) {
        true => Err(format!("`{label}` is no name of a type")),
        false => Ok(()),
    }
}

fn doubles(name: &str, tensor: &Tensor, shape: &[usize]) -> Result<Vec<f64>> {
    if tensor.dtype() != DType::F64 || tensor.shape() != shape {
        return Err(refuse(WHAT, format!("tensor `{name}` is {}, expected F64{shape:?}", tensor.spec())));
    }
    let values: Vec<f64> = tensor.numbers().collect();
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(refuse(WHAT, format!("a value of tensor `{name}` is NaN or infinite"))),
    }
}

pub(super) fn refuse(what: &'static str, detail: String) -> Error {
    Error::Decode { what, detail }
}

const WHAT: &str = "machines of a tree";
pub(super) const PLACE: &str = "place";
pub(super) const TYPE: &str = "type/";
const MEAN: &str = "components/mean";
const COMPONENTS: &str = "components/axes";
const MAX_ERROR: &str = "components/max_error";

#[cfg(test)]
mod tests {
    use super::*;

    fn machines() -> Machines {
        let types = [("B/plasma", vec![1.0, -0.5, 0.25]), ("T", vec![-1.0, 0.5, 1e-9])];
        Machines {
            place: 3,
            types: types.map(|(label, weights)| (label.to_owned(), weights)).into(),
            components: Some(Components { mean: vec![0.1, 0.2], components: vec![0.6, 0.8], max_error: 1.5 }),
        }
    }

    #[test]
    fn machines_come_back_bit_for_bit_and_without_a_type_that_a_site_left_out() {
        let tensors = machines().to_tensors();
        assert_eq!(Machines::from_tensors(&tensors).unwrap(), machines());
        let mut fewer = tensors;
        fewer.remove(&tensor_of("T"));
        assert!(Machines::from_tensors(&fewer).unwrap().types.keys().eq(["B/plasma"]));
    }

    #[test]
    fn what_are_no_machines_is_refused_in_words() {
        let check = |name: &str, tensor: Option<Tensor>, word: &str| {
            let mut tensors = machines().to_tensors();
            match tensor {
                Some(tensor) => drop(tensors.insert(name, tensor)),
                None => drop(tensors.remove(name)),
            }
            let told = Machines::from_tensors(&tensors).unwrap_err().to_string();
            assert!(told.contains(word), "{told}");
        };
        check(PLACE, None, "place");
        check(PLACE, Some(Tensor::from_i64(&[], &[-1])), "one whole number");
        check("type/T", Some(Tensor::from_f64(&[2], &[1.0, 2.0])), "`type/T` is F64[2], expected F64[3]");
        check("type/T", Some(Tensor::from_f64(&[3], &[1.0, f64::NAN, 0.0])), "NaN");
        check("type/root", Some(Tensor::from_f64(&[3], &[1.0, 2.0, 3.0])), "`root` is no name");
        check("latents", Some(Tensor::from_f64(&[1], &[1.0])), "`latents` is no part");
        check(MAX_ERROR, None, "some of the tensors of components");
    }
}
