//! Whole modules, pickled as objects, as `torch.save(module)` writes them: data of their attributes, of which nothing is run.

use std::io::{Read, Seek};

use archipelago_common::StateDict;

use super::{TorchArchive, read_tensor};
use crate::{error::Result, formats::pickle::Value};

/// The tensors of a module and of those within it, by the names that its state dict would have.
///
/// # Errors  [`crate::Error::Import`] for something else than a module, and those of [`read_tensor`]
pub fn read_module<R: Read + Seek>(archive: &mut TorchArchive<R>, module: Value<'_>) -> Result<StateDict> {
    let mut tensors = StateDict::new();
    collect(archive, module, "", 0, &mut tensors)?;
    Ok(tensors)
}

/// An attribute of a pickled object.
pub fn attribute<'a>(object: Value<'a>, name: &str) -> Option<Value<'a>> {
    object.call()?.state?.get(name)
}

fn collect<R: Read + Seek>(
    archive: &mut TorchArchive<R>,
    module: Value<'_>,
    within: &str,
    depth: usize,
    tensors: &mut StateDict,
) -> Result<()> {
    let told = within.trim_end_matches('.');
    if depth > DEEPEST {
        return Err(archive.refuse(format!("modules within `{told}` lie more than {DEEPEST} deep")));
    }
    for kind in ["_parameters", "_buffers"] {
        let Some(own) = attribute(module, kind).and_then(Value::entries) else {
            return Err(archive.refuse(format!("`{told}` is {}, expected a module with `{kind}`", module.kind())));
        };
        for (name, value) in own.into_iter().filter(|(_, value)| !value.is_none()) {
            let name = name.as_str().ok_or_else(|| archive.refuse("a tensor's name is not text"))?;
            let name = format!("{within}{name}");
            let tensor = read_tensor(archive, &name, value)?;
            tensors.insert(name, tensor);
        }
    }
    let inner = attribute(module, "_modules").and_then(Value::entries).unwrap_or_default();
    for (name, module) in inner.into_iter().filter(|(_, module)| !module.is_none()) {
        let name = name.as_str().ok_or_else(|| archive.refuse("a module's name is not text"))?;
        collect(archive, module, &format!("{within}{name}."), depth + 1, tensors)?;
    }
    Ok(())
}

/// Modules within modules; those of networks are three deep.
const DEEPEST: usize = 16;
