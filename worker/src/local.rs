//! Tensors that a site trains and keeps: one file beside what it mapped.
//!
//! They are in no version, so they are in no directory that can be published; whoever embeds cells at this site finds them here.

use std::{collections::BTreeMap, path::Path};

use archipelago_common::{StateDict, condition::ConditionKey, fs, limits};

use crate::error::{Error, Result};

/// Writes what was kept with each condition; no file where that is nothing.
///
/// # Errors  [`Error::Common`]
pub fn write<'a>(dir: &Path, kept: impl Iterator<Item = (&'a ConditionKey, &'a StateDict)>) -> Result<()> {
    let named = |(key, tensors): (&ConditionKey, &StateDict)| {
        let key = key.to_string();
        tensors.iter().map(|(name, tensor)| (format!("{key}{BETWEEN}{name}"), tensor.clone())).collect::<Vec<_>>()
    };
    let tensors: StateDict = kept.flat_map(named).collect();
    if tensors.is_empty() {
        return Ok(());
    }
    Ok(fs::write_atomic(&dir.join(FILE), &tensors.to_safetensors(None))?)
}

/// Reads what [`write()`] wrote; nothing where there is no file.
///
/// # Errors  [`Error::Reference`] for a file that is something else
pub fn read(dir: &Path) -> Result<BTreeMap<ConditionKey, StateDict>> {
    let path = dir.join(FILE);
    let mut kept: BTreeMap<ConditionKey, StateDict> = BTreeMap::new();
    if !path.exists() {
        return Ok(kept);
    }
    let failed = |source| Error::Reference { path: path.clone(), source };
    let bytes = fs::read_bounded(&path, limits::BLOB_BYTES).map_err(failed)?;
    let (tensors, _) = StateDict::from_safetensors("tensors that stay at the site", &bytes).map_err(failed)?;
    for (name, tensor) in tensors.iter() {
        let Some((key, name)) = name.split_once(BETWEEN) else { continue };
        kept.entry(key.parse().map_err(failed)?).or_default().insert(name, tensor.clone());
    }
    Ok(kept)
}

/// Name of the file.
pub const FILE: &str = "local.safetensors";
/// Between a key and a tensor's name: no key has a control character.
const BETWEEN: char = '\n';

#[cfg(test)]
mod tests {
    use archipelago_common::Tensor;

    use super::*;

    #[test]
    fn what_is_kept_is_read_again_by_condition_and_nothing_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let keys: [ConditionKey; 2] = ["s/d/a".parse().unwrap(), "s/d/b x/y".parse().unwrap()];
        let nothing = StateDict::new();
        write(dir.path(), keys.iter().map(|key| (key, &nothing))).unwrap();
        assert!(!dir.path().join(FILE).exists() && read(dir.path()).unwrap().is_empty());
        let tensors =
            [1.0, 2.0].map(|x| StateDict::from_iter([("library.weight".to_owned(), Tensor::from_f32(&[1], &[x]))]));
        write(dir.path(), keys.iter().zip(&tensors)).unwrap();
        assert_eq!(read(dir.path()).unwrap(), keys.into_iter().zip(tensors).collect());
        std::fs::write(dir.path().join(FILE), "nonsense").unwrap();
        assert!(matches!(read(dir.path()), Err(Error::Reference { .. })));
    }
}
