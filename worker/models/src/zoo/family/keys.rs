//! Several condition keys: options that name them, and the axes that they become.

use archipelago_common::Name;

use crate::data::{Field, Names};

/// The axes of these condition keys, in their order; of those that are in `common`, names mean the same at every site.
pub fn axes(keys: &[Name], common: &[Name]) -> Vec<Field> {
    let names = |key| if common.contains(key) { Names::Common } else { Names::Own };
    keys.iter().map(|key| Field::axis(key, names(key))).collect()
}

/// Checks that the keys in common are among the keys.
///
/// # Errors  a text that names the option, `common_option`
pub fn check(keys: &[Name], common: &[Name], common_option: &str) -> Result<(), String> {
    match common.iter().find(|key| !keys.contains(key)) {
        None => Ok(()),
        Some(key) => Err(format!("`{common_option}` names `{key}`, which is no condition key")),
    }
}
