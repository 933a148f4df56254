//! Tensors that a module is built with beside a base and columns: what its site keeps, and what sites have contributed of theirs.
//!
//! They are one dict. What the site keeps stands under the names that the model gave it. What was contributed with a condition has that
//! condition before its names, so that any number of sites can have the same.

use std::collections::BTreeMap;

use archipelago_common::{ConditionKey, StateDict, Tensor};

/// The name among kept tensors of one that was contributed with a condition.
pub fn name(condition: &ConditionKey, tensor: &str) -> String {
    format!("{condition}{BETWEEN}{tensor}")
}

/// What the site itself keeps.
pub fn own(kept: &StateDict) -> StateDict {
    let own = kept.iter().filter(|(name, _)| !name.contains(BETWEEN));
    own.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
}

/// Contributed tensors, by the condition with which they were trained: the same order for everybody.
pub fn contributed(kept: &StateDict) -> BTreeMap<ConditionKey, StateDict> {
    let mut by_condition: BTreeMap<ConditionKey, StateDict> = BTreeMap::new();
    for (name, tensor) in kept.iter() {
        let split = name.split_once(BETWEEN).and_then(|(key, name)| Some((key.parse().ok()?, name)));
        if let Some((key, name)) = split {
            by_condition.entry(key).or_default().insert(name, tensor.clone());
        }
    }
    by_condition
}

/// What was contributed with a condition, under its names among kept tensors; to a module for these conditions.
pub(crate) fn named(
    condition: &ConditionKey,
    contributed: &StateDict,
    conditions: &[&ConditionKey],
) -> impl Iterator<Item = (String, Tensor)> {
    let is_own: Vec<f32> = conditions.iter().map(|key| f32::from(u8::from(*key == condition))).collect();
    let is_own = (name(condition, IS_OWN), Tensor::from_f32(&[is_own.len()], &is_own));
    let tensors = contributed.iter().map(|(tensor, value)| (name(condition, tensor), value.clone()));
    tensors.chain([is_own]).collect::<Vec<_>>().into_iter()
}

/// Of a module's conditions, in order of their codes: 1 for the one with which tensors were contributed, else 0.
pub const IS_OWN: &str = "is_own";
/// Between a key and a tensor's name: no key has a control character.
const BETWEEN: char = '\n';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_contributed_is_told_from_what_the_site_keeps_and_by_whom() {
        let keys: [ConditionKey; 2] = ["s/d/b".parse().unwrap(), "n/d/a x/y".parse().unwrap()];
        let tensors = |x: f32| StateDict::from_iter([("own.w".to_owned(), Tensor::from_f32(&[1], &[x]))]);
        let mut kept = tensors(0.0);
        for (key, x) in keys.iter().zip([1.0, 2.0]) {
            named(key, &tensors(x), &[&keys[0]]).for_each(|(name, tensor)| drop(kept.insert(name, tensor)));
        }
        let found = contributed(&kept);
        assert_eq!(own(&kept), tensors(0.0));
        assert!(found.keys().eq([&keys[1], &keys[0]]), "{found:?}");
        for ((key, x), own) in keys.iter().zip([1.0, 2.0]).zip([1.0, 0.0]) {
            let mut expected = tensors(x);
            expected.insert(IS_OWN, Tensor::from_f32(&[1], &[own]));
            assert_eq!(found[key], expected);
        }
    }
}
