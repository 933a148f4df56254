//! The coordinator's look at what is submitted: what the reference's layout does not ask for is refused.

use crate::{
    condition::{Columns, ConditionKey, Section},
    error::{Error, Result},
    layout::{Axis, Layout, TensorKind},
    part::Member,
    state_dict::Tensor,
    tree,
};

/// Checks the columns of one key against what its axis owns and the task's bound on their norm.
///
/// Refused are: a key of an axis that the reference does not have, a tensor that its keys do not own (so also any frozen
/// one), a missing tensor, another type or shape, NaN or infinity, a fact that is neither 0 nor 1, a norm over the bound.
/// What is trained and what is computed from cells have a norm each; facts have none.
///
/// # Errors  [`Error::RefusedColumns`] with the tensor, what was found and what is expected
pub fn columns(key: &ConditionKey, columns: &Columns, layout: &Layout, max_norm: f64) -> Result<()> {
    let refuse = |reason: String| Err(Error::RefusedColumns { key: Box::new(key.clone()), reason });
    let Some(axis) = layout.axis(key.section()) else {
        return refuse(format!("the reference does not grow along {}", key.section()));
    };
    for (name, tensor) in columns.0.iter() {
        match axis.tensors.get(name) {
            None => {
                let owned: Vec<String> = axis.tensors.keys().map(|name| format!("`{name}`")).collect();
                return refuse(format!(
                    "tensor `{name}` does not belong to a condition; conditions own {}",
                    owned.join(", ")
                ));
            }
            Some(expected) if expected.spec != tensor.spec() => {
                return refuse(format!("tensor `{name}` is {}, expected {}", tensor.spec(), expected.spec));
            }
            Some(_) => {}
        }
    }
    if let Some(missing) = axis.tensors.keys().find(|name| columns.0.get(name).is_none()) {
        return refuse(format!("tensor `{missing}` is missing"));
    }
    if let Some(fact) = not_a_fact(columns, axis) {
        return refuse(format!("tensor `{fact}` says what is so with 0 and 1, and has another value"));
    }
    for kind in [TensorKind::Trained, TensorKind::Statistic] {
        let norm = norm(columns, axis, kind);
        if !norm.is_finite() {
            return refuse("a value is NaN or infinite".to_owned());
        }
        if norm > max_norm {
            return refuse(format!("their norm is {norm:.3}, more than the task's bound of {max_norm}"));
        }
    }
    Ok(())
}

/// Euclidean norm over all values of one kind, of whatever type; NaN or infinite if one of them is.
pub fn norm(columns: &Columns, axis: &Axis, kind: TensorKind) -> f64 {
    let of_kind = columns.0.iter().filter(|(name, _)| axis.kind(name) == kind);
    let squares = of_kind.map(|(_, tensor)| tensor.numbers().map(|value| value * value).sum::<f64>());
    squares.sum::<f64>().sqrt()
}

/// A tensor that is declared a fact and holds something else than 0 and 1, if there is one.
pub fn not_a_fact<'a>(columns: &Columns, axis: &'a Axis) -> Option<&'a str> {
    let is_fact = |tensor: &Tensor| tensor.numbers().all(|value| value == 0.0 || value == 1.0);
    axis.of_kind(TensorKind::Fact).find(|name| columns.0.get(name).is_some_and(|tensor| !is_fact(tensor)))
}

/// Checks the member of a part against the rule that the layout has for it.
///
/// # Errors  [`Error::RefusedColumns`]: a part that the reference does not take, bytes that are not what the rule says
pub fn part(key: &ConditionKey, bytes: &[u8], layout: &Layout) -> Result<()> {
    let refuse = |reason: String| Err(Error::RefusedColumns { key: Box::new(key.clone()), reason });
    let Some(rule) = layout.rule(key.section()) else {
        return refuse(format!("the reference does not take {}", key.section()));
    };
    let read = Member::from_bytes(rule, bytes).and_then(|member| {
        match key.section() {
            Section::Part(part) if tree::is_declared(layout) => tree::check(part, &member)?,
            _ => {}
        }
        Ok(member)
    });
    match read {
        Ok(Member::Sums(pool)) => match pool.negative_count() {
            None => Ok(()),
            Some((entry, table)) => refuse(format!("table `{table}` of entry `{entry}` counts less than nothing")),
        },
        Ok(Member::Tensors(tensors)) => {
            match tensors.iter().find(|(_, tensor)| !tensor.numbers().all(f64::is_finite)) {
                None => Ok(()),
                Some((name, _)) => refuse(format!("a value of tensor `{name}` is NaN or infinite")),
            }
        }
        Err(error) => refuse(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        layout::{Owned, Rule},
        pool::{Pool, TableSpec},
        state_dict::{DType, StateDict, TensorSpec},
    };

    fn layout() -> Layout {
        let owned = |kind| Owned { spec: TensorSpec { dtype: DType::F32, shape: vec![2] }, kind };
        let mut tensors = BTreeMap::new();
        tensors.insert("w".to_owned(), owned(TensorKind::Trained));
        tensors.insert("prior".to_owned(), owned(TensorKind::Statistic));
        tensors.insert("measured".to_owned(), owned(TensorKind::Fact));
        let mut layout = Layout::of_axes(vec![Axis::new(Section::Condition, tensors)]);
        layout.parts.insert("models".parse().unwrap(), Rule::Union);
        let tables = BTreeMap::from([("n".to_owned(), TableSpec::counts(&[]))]);
        layout.parts.insert("counts".parse().unwrap(), Rule::Pool { tables });
        layout
    }

    fn check_as(key: &str, tensors: &[(&str, Tensor)]) -> std::result::Result<(), String> {
        let given = Columns(tensors.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect::<StateDict>());
        columns(&key.parse().unwrap(), &given, &layout(), 10.0).map_err(|e| e.to_string())
    }

    fn check(tensors: &[(&str, Tensor)]) -> std::result::Result<(), String> {
        check_as("s/d/b", tensors)
    }

    fn f32s(name: &'static str, values: &[f32]) -> (&'static str, Tensor) {
        (name, Tensor::from_f32(&[values.len()], values))
    }

    /// Columns with these in place of good ones.
    fn with(name: &'static str, values: &[f32]) -> Vec<(&'static str, Tensor)> {
        let mut given = vec![f32s("w", &[1.0, 2.0]), f32s("prior", &[8.0, 0.5]), f32s("measured", &[0.0, 1.0])];
        given.retain(|(present, _)| *present != name);
        given.push(f32s(name, values));
        given
    }

    #[test]
    fn good_columns_pass() {
        check(&with("w", &[1.0, 2.0])).unwrap();
    }

    #[test]
    fn each_breach_is_refused_with_its_reason() {
        for (given, expected) in [
            (with("decoder.bias", &[0.0]), "`decoder.bias` does not belong"),
            (vec![f32s("w", &[1.0, 2.0])], "`measured` is missing"),
            (with("w", &[1.0]), "F32[1], expected F32[2]"),
            (with("w", &[f32::NAN, 0.0]), "NaN"),
            (with("prior", &[f32::INFINITY, 0.0]), "NaN"),
            (with("w", &[11.0, 0.0]), "norm is 11"),
            (with("prior", &[11.0, 0.0]), "norm is 11"),
            (with("measured", &[0.5, 1.0]), "`measured` says what is so with 0 and 1"),
            (with("measured", &[f32::NAN, 1.0]), "`measured` says what is so with 0 and 1"),
        ] {
            let refused = check(&given).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
        let integers =
            [f32s("prior", &[0.0, 0.0]), f32s("measured", &[0.0, 0.0]), ("w", Tensor::from_i64(&[2], &[1, 2]))];
        assert!(check(&integers).unwrap_err().contains("I64[2], expected F32[2]"));
    }

    #[test]
    fn values_of_every_type_count_in_the_norm() {
        let check = |dtype, bytes: Vec<u8>| {
            let spec = TensorSpec { dtype, shape: vec![bytes.len() / dtype.size()] };
            let owned = Owned { spec: spec.clone(), kind: TensorKind::Trained };
            let axis = Axis::new(Section::Condition, BTreeMap::from([("w".to_owned(), owned)]));
            let tensor = Tensor::new("w", dtype, spec.shape, bytes).unwrap();
            let given = Columns([("w".to_owned(), tensor)].into_iter().collect());
            columns(&"s/d/b".parse().unwrap(), &given, &Layout::of_axes(vec![axis]), 10.0).map_err(|e| e.to_string())
        };
        let doubles = |values: [f64; 2]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        check(DType::F64, doubles([3.0, 4.0])).unwrap();
        for (dtype, bytes, expected) in [
            (DType::F64, doubles([f64::NAN, 0.0]), "NaN"),
            (DType::F64, doubles([0.0, f64::NEG_INFINITY]), "NaN"),
            (DType::F64, doubles([11.0, 0.0]), "norm is 11"),
            (DType::I64, (-11_i64).to_le_bytes().into(), "norm is 11"),
            (DType::I32, (-11_i32).to_le_bytes().into(), "norm is 11"),
            (DType::U8, vec![11], "norm is 11"),
        ] {
            let refused = check(dtype, bytes).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn a_key_of_another_axis_is_refused() {
        assert!(check_as("s/d@donor/b", &with("w", &[1.0, 2.0])).unwrap_err().contains("grow along axis `donor`"));
        assert!(check_as("s/d+models/b", &with("w", &[1.0, 2.0])).unwrap_err().contains("part `models`"));
    }

    #[test]
    fn what_is_trained_and_what_is_computed_have_a_norm_each_and_facts_have_none() {
        check(&with("w", &[9.9, 0.0])).unwrap();
        let axis = layout().axes.remove(0);
        let columns = Columns(with("w", &[3.0, 4.0]).into_iter().map(|(n, t)| (n.to_owned(), t)).collect());
        let norm = |kind| norm(&columns, &axis, kind);
        assert_eq!(norm(TensorKind::Trained), 5.0);
        assert_eq!(norm(TensorKind::Statistic), 64.25_f64.sqrt());
    }

    #[test]
    fn a_member_of_a_part_must_be_what_its_rule_says() {
        let refused = |key: &str, bytes: &[u8]| {
            part(&key.parse().unwrap(), bytes, &layout()).err().map(|e| e.to_string()).unwrap_or_default()
        };
        let tensors =
            |values: &[f32]| StateDict::from_iter([("t".to_owned(), f32s("t", values).1)]).to_safetensors(None);
        assert_eq!(refused("s/d+models/m", &tensors(&[1.0])), "");
        assert!(refused("s/d+models/m", &tensors(&[f32::NAN])).contains("NaN"));
        assert!(refused("s/d+models/m", b"counts of cells").contains("member of a part"));
        assert!(refused("s/d+terms/m", &tensors(&[1.0])).contains("does not take part `terms`"));
        assert!(refused("s/d/m", &tensors(&[1.0])).contains("does not take"));
        let pool = |name: &str| {
            let tables = BTreeMap::from([(name.to_owned(), TableSpec::counts(&[]))]);
            Pool::new(tables).to_bytes()
        };
        assert_eq!(refused("s/d+counts/T cell", &pool("n")), "");
        let mut negative = Pool::new(BTreeMap::from([("n".to_owned(), TableSpec::counts(&[]))]));
        negative.add("T", "n", 0, -1.0).unwrap();
        let told = refused("s/d+counts/b", &negative.to_bytes());
        assert!(told.contains("table `n` of entry `T` counts less than nothing"), "{told}");
        assert!(refused("s/d+counts/T cell", &pool("m")).contains("the reference's rule for it"));
        assert!(refused("s/d+counts/T cell", &tensors(&[1.0])).contains("what its tables look like"));
    }
}
