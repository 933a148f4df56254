//! The coordinator's look at submitted columns: what the task does not ask for is refused.

use std::collections::BTreeMap;

use crate::{
    condition::{Columns, ConditionKey},
    error::{Error, Result},
    state_dict::{DType, TensorSpec},
};

/// Checks the columns of one condition against the base card's layout and the task's bound on their norm.
///
/// Refused are: a tensor that conditions do not own (so also any frozen one), a missing tensor, another type or
/// shape, NaN or infinity, a norm over the bound.
///
/// # Errors  [`Error::RefusedColumns`] with the tensor, what was found and what is expected
pub fn columns(
    key: &ConditionKey,
    columns: &Columns,
    layout: &BTreeMap<String, TensorSpec>,
    max_norm: f64,
) -> Result<()> {
    let refuse = |reason: String| Err(Error::RefusedColumns { key: key.clone(), reason });
    for (name, tensor) in columns.0.iter() {
        match layout.get(name) {
            None => {
                return refuse(format!(
                    "tensor `{name}` does not belong to a condition; conditions own {}",
                    names(layout)
                ));
            }
            Some(expected) if *expected != tensor.spec() => {
                return refuse(format!("tensor `{name}` is {}, expected {expected}", tensor.spec()));
            }
            Some(_) => {}
        }
    }
    if let Some(missing) = layout.keys().find(|name| columns.0.get(name).is_none()) {
        return refuse(format!("tensor `{missing}` is missing"));
    }
    let norm = norm(columns)?;
    if !norm.is_finite() {
        return refuse("a value is NaN or infinite".to_owned());
    }
    if norm > max_norm {
        return refuse(format!("their norm is {norm:.3}, more than the task's bound of {max_norm}"));
    }
    Ok(())
}

/// Euclidean norm over all float values of some columns; NaN or infinite if one of them is.
///
/// # Errors  none for tensors of 32-bit floats; other types do not count
pub fn norm(columns: &Columns) -> Result<f64> {
    let mut sum = 0.0;
    for (name, tensor) in columns.0.iter().filter(|(_, tensor)| tensor.dtype() == DType::F32) {
        sum += tensor.to_f32(name)?.into_iter().map(|v| f64::from(v) * f64::from(v)).sum::<f64>();
    }
    Ok(sum.sqrt())
}

fn names(layout: &BTreeMap<String, TensorSpec>) -> String {
    layout.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dict::{StateDict, Tensor};

    fn check(tensors: &[(&str, Tensor)]) -> std::result::Result<(), String> {
        let layout = BTreeMap::from([("w".to_owned(), TensorSpec { dtype: DType::F32, shape: vec![2] })]);
        let given = Columns(tensors.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect::<StateDict>());
        columns(&"s/d/b".parse().unwrap(), &given, &layout, 10.0).map_err(|e| e.to_string())
    }

    fn w(values: &[f32]) -> (&'static str, Tensor) {
        ("w", Tensor::from_f32(&[values.len()], values))
    }

    #[test]
    fn good_columns_pass() {
        check(&[w(&[1.0, 2.0])]).unwrap();
    }

    #[test]
    fn each_breach_is_refused_with_its_reason() {
        let frozen = ("decoder.bias", Tensor::from_f32(&[1], &[0.0]));
        assert!(check(&[w(&[1.0, 2.0]), frozen]).unwrap_err().contains("`decoder.bias` does not belong"));
        assert!(check(&[]).unwrap_err().contains("`w` is missing"));
        assert!(check(&[w(&[1.0])]).unwrap_err().contains("F32[1], expected F32[2]"));
        assert!(check(&[("w", Tensor::from_i64(&[2], &[1, 2]))]).unwrap_err().contains("I64[2], expected F32[2]"));
        assert!(check(&[w(&[f32::NAN, 0.0])]).unwrap_err().contains("NaN"));
        assert!(check(&[w(&[f32::INFINITY, 0.0])]).unwrap_err().contains("NaN"));
        assert!(check(&[w(&[11.0, 0.0])]).unwrap_err().contains("norm is 11"));
    }
}
