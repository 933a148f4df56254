//! What is asked of folders that scArches' own models have saved: they are read as they are, become references, and come back.

use std::{fs, path::PathBuf};

use archipelago_common::{ConditionKey, StateDict, Tensor};
use archipelago_models::{
    Reference,
    formats::scarches::{self, SavedFolder},
    upstream::{Namespace, ScarchesModel, folder_to_reference},
};
use serde_json::Value;

use crate::case;

/// A folder, and what its `CONTENTS.json` says of it.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) saved: SavedFolder,
    pub(crate) contents: Value,
}

impl Folder {
    /// A folder of a model's cases; its tensors are those that were saved, to the bit.
    pub(crate) fn read(model: &str, name: &str) -> Self {
        let path = case::folder(model).join(name);
        assert!(scarches::is_one(&path).unwrap(), "`{}` is not there", path.display());
        let contents = serde_json::from_slice(&fs::read(path.join("CONTENTS.json")).unwrap()).unwrap();
        let saved = SavedFolder::read(&path).unwrap();
        if let Ok(bytes) = fs::read(path.join("expected_params.safetensors")) {
            let (expected, _) = StateDict::from_safetensors("case", &bytes).unwrap();
            for (name, tensor) in saved.tensors.iter() {
                assert_eq!(Some(tensor), expected.get(&format!("param.{name}")), "{name}");
            }
            assert!(!saved.tensors.is_empty());
        }
        Self { path, saved, contents }
    }

    /// What is told of its attributes.
    pub(crate) fn attributes(&self) -> &serde_json::Map<String, Value> {
        self.contents["attr.pkl"].as_object().unwrap()
    }

    /// The reference that it is, and the folder as which that comes back: with every tensor and attribute, of the same kind. Conditions
    /// are in name order there, and what is exported is trained.
    pub(crate) fn comes_back(&self, model: &dyn ScarchesModel) -> (Reference, SavedFolder) {
        assert_eq!(serde_json::to_value(&self.saved.attributes).unwrap(), self.contents["attr.pkl"]);
        let reference = reference_of(&self.saved);
        let again = written(model, &reference);
        assert_eq!(reference_of(&again), reference);
        assert_eq!(again.tensors.len(), self.saved.tensors.len());
        for (name, tensor) in self.saved.tensors.iter() {
            assert_eq!(again.tensors.get(name).map(Tensor::spec), Some(tensor.spec()), "{name}");
        }
        assert!(again.attributes.keys().eq(self.attributes().keys()), "{:?}", again.attributes.keys());
        for (name, value) in self.attributes().iter().filter(|(name, _)| !MOVED.contains(&name.as_str())) {
            assert!(is_same(&again.attributes[name], value), "{name} is {}, expected {value}", again.attributes[name]);
        }
        (reference, again)
    }

    /// What is said of the folder with a change.
    pub(crate) fn refused(&self, change: impl Fn(&mut SavedFolder)) -> String {
        let mut saved = self.saved.clone();
        change(&mut saved);
        folder_to_reference(&saved, &namespace()).unwrap_err().to_string()
    }
}

/// The reference that a folder is.
pub(crate) fn reference_of(saved: &SavedFolder) -> Reference {
    folder_to_reference(saved, &namespace()).unwrap()
}

/// The folder that a reference is written as, read again.
pub(crate) fn written(model: &dyn ScarchesModel, reference: &Reference) -> SavedFolder {
    let folder = tempfile::tempdir().unwrap();
    let ours = model.to_saved(reference).unwrap();
    ours.write(folder.path()).unwrap();
    let read = SavedFolder::read(folder.path()).unwrap();
    assert_eq!(read, ours);
    read
}

/// Whether two attributes are the same, as whole numbers and others are.
pub(crate) fn is_same(ours: &Value, theirs: &Value) -> bool {
    ours == theirs || ours.is_number() && ours.as_f64() == theirs.as_f64()
}

/// Whose the conditions of saved models become.
pub(crate) fn namespace() -> Namespace {
    Namespace { owner: "owner".parse().unwrap(), dataset: "atlas".parse().unwrap() }
}

/// A condition of such a model.
pub(crate) fn key(condition: &str) -> ConditionKey {
    format!("owner/atlas/{condition}").parse().unwrap()
}

/// Attributes that come back otherwise.
const MOVED: [&str; 2] = ["conditions_", "is_trained_"];
