//! Finished conditions on disk, so that a restarted worker does not train them again.
//!
//! Columns are a pure function of (base, key, training settings, cells): a checkpoint is filed under the digest of these
//! inputs, so it is found again whatever the task's number or epoch, and never used for anything else. A checkpoint that
//! does not verify is discarded and the condition trained anew, to the same bits.

use std::path::{Path, PathBuf};

use archipelago_anndata::Csr;
use archipelago_common::{
    condition::{Columns, ConditionKey},
    fs,
    hash::{Digest, FieldHasher, StreamHasher},
    limits,
    progress::EpochReport,
    state_dict::StateDict,
    task::TrainSpec,
};
use archipelago_models::{Categorical, Surgery};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What determines the columns of a condition.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Digest of the base trained against.
    pub base: Digest,
    /// The condition.
    pub key: &'a ConditionKey,
    /// How it is trained.
    pub train: &'a TrainSpec,
    /// Its cells, in panel order.
    pub counts: &'a Csr,
    /// Their labels, where the model takes them.
    pub labels: Option<&'a Categorical>,
}

impl Inputs<'_> {
    /// The name under which the result is filed.
    pub fn digest(&self) -> Digest {
        let mut hasher = FieldHasher::new("archipelago/checkpoint/1");
        hasher
            .field(self.base.as_bytes())
            .field(self.key.to_string().as_bytes())
            .field(&serde_json::to_vec(self.train).expect("numbers and names are JSON"));
        hasher
            .field(stream(self.counts.indptr().iter().map(|&at| (at as u64).to_le_bytes())).as_bytes())
            .field(stream(self.counts.indices().iter().map(|gene| gene.to_le_bytes())).as_bytes())
            .field(stream(self.counts.data().iter().map(|count| count.to_le_bytes())).as_bytes());
        if let Some(labels) = self.labels {
            hasher.field(stream(labels.codes().iter().map(|code| code.to_le_bytes())).as_bytes());
            for name in labels.names() {
                hasher.field(name.as_bytes());
            }
        }
        hasher.finish()
    }
}

/// Digest of a long sequence of numbers, without a copy of it.
fn stream<const N: usize>(numbers: impl Iterator<Item = [u8; N]>) -> Digest {
    let mut hasher = StreamHasher::default();
    numbers.for_each(|bytes| hasher.update(&bytes));
    hasher.finish()
}

/// A folder of finished conditions.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
}

impl Checkpoints {
    /// Opens the folder, or makes it.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir(dir)?;
        Ok(Self { dir: dir.into() })
    }

    /// Keeps a finished condition.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub fn store(&self, inputs: &Digest, surgery: &Surgery) -> Result<()> {
        let (tensors, card) = to_file(inputs, surgery);
        Ok(fs::write_atomic(&self.path(inputs), &tensors.to_safetensors(Some(&card)))?)
    }

    /// The finished condition of these inputs, if there is one that verifies. A damaged one is removed with a warning.
    pub fn load(&self, inputs: &Digest) -> Option<Surgery> {
        let path = self.path(inputs);
        if !path.exists() {
            return None;
        }
        match read(&path, inputs) {
            Ok(surgery) => Some(surgery),
            Err(detail) => {
                tracing::warn!(path = %path.display(), detail, "a checkpoint is damaged and discarded; its condition is trained again");
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "the damaged checkpoint could not be removed");
                }
                None
            }
        }
    }

    fn path(&self, inputs: &Digest) -> PathBuf {
        self.dir.join(format!("{inputs}.safetensors"))
    }
}

/// What a checkpoint says beside its tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    inputs: Digest,
    tensors: Digest,
    history: Vec<EpochReport>,
    frozen_before: Digest,
    frozen_after: Digest,
    elbo: f64,
    reconstruction: f64,
    n_cells: usize,
    deterministic: bool,
}

fn to_file(inputs: &Digest, surgery: &Surgery) -> (StateDict, String) {
    let named = |prefix: &str, columns: &Columns| {
        columns.0.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect::<Vec<_>>()
    };
    let tensors: StateDict =
        named(COLUMNS, &surgery.columns).into_iter().chain(named(INITIAL, &surgery.initial)).collect();
    let card = Card {
        inputs: *inputs,
        tensors: tensors.digest(),
        history: surgery.history.clone(),
        frozen_before: surgery.frozen_before,
        frozen_after: surgery.frozen_after,
        elbo: surgery.elbo,
        reconstruction: surgery.reconstruction,
        n_cells: surgery.n_cells,
        deterministic: surgery.deterministic,
    };
    (tensors, serde_json::to_string(&card).expect("numbers and digests are JSON"))
}

fn read(path: &Path, inputs: &Digest) -> Result<Surgery, String> {
    // Twice the columns, and a history of some hundred bytes an epoch.
    let bytes = fs::read_bounded(path, 3 * limits::COLUMNS_BYTES).map_err(|e| e.to_string())?;
    let (tensors, card) = StateDict::from_safetensors("checkpoint", &bytes).map_err(|e| e.to_string())?;
    let card: Card = serde_json::from_str(&card.ok_or("it has no card")?).map_err(|e| e.to_string())?;
    if card.inputs != *inputs {
        return Err("it was made from other inputs".to_owned());
    }
    if card.tensors != tensors.digest() {
        return Err("its tensors do not match their digest".to_owned());
    }
    let part = |prefix: &str| {
        let named =
            tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())));
        Columns(named.collect())
    };
    Ok(Surgery {
        columns: part(COLUMNS),
        initial: part(INITIAL),
        history: card.history,
        frozen_before: card.frozen_before,
        frozen_after: card.frozen_after,
        elbo: card.elbo,
        reconstruction: card.reconstruction,
        n_cells: card.n_cells,
        deterministic: card.deterministic,
    })
}

const COLUMNS: &str = "columns/";
const INITIAL: &str = "initial/";

#[cfg(test)]
mod tests {
    use archipelago_common::state_dict::Tensor;

    use super::*;

    fn inputs() -> Digest {
        Digest::of(b"inputs")
    }

    fn trained() -> Surgery {
        let columns = |value| Columns(StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[2], &[0.1, value]))]));
        let report = EpochReport { epoch: 1, n_epochs: 1, loss: 0.1 + 0.2, validation_loss: None, elapsed_ms: 7 };
        Surgery {
            columns: columns(f32::MIN_POSITIVE),
            initial: columns(0.0),
            history: vec![report],
            frozen_before: Digest::of(b"frozen"),
            frozen_after: Digest::of(b"frozen"),
            elbo: -1.0 / 3.0,
            reconstruction: 0.7,
            n_cells: 9,
            deterministic: true,
        }
    }

    fn stored() -> (tempfile::TempDir, Checkpoints) {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path()).unwrap();
        checkpoints.store(&inputs(), &trained()).unwrap();
        (dir, checkpoints)
    }

    #[test]
    fn a_finished_condition_comes_back_bit_for_bit() {
        let (_dir, checkpoints) = stored();
        assert_eq!(checkpoints.load(&inputs()), Some(trained()));
        assert_eq!(checkpoints.load(&Digest::of(b"other")), None);
    }

    #[test]
    fn a_damaged_checkpoint_is_discarded() {
        let whole = {
            let (_dir, checkpoints) = stored();
            std::fs::read(checkpoints.path(&inputs())).unwrap()
        };
        let (mut flipped, cut) = (whole.clone(), &whole[..whole.len() - 3]);
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&flipped[..], cut, b"", b"not a checkpoint"] {
            let (_dir, checkpoints) = stored();
            std::fs::write(checkpoints.path(&inputs()), damaged).unwrap();
            assert_eq!(checkpoints.load(&inputs()), None);
            assert!(!checkpoints.path(&inputs()).exists());
        }
    }

    #[test]
    fn a_checkpoint_of_other_inputs_is_not_used() {
        let (_dir, checkpoints) = stored();
        let other = Digest::of(b"other");
        std::fs::copy(checkpoints.path(&inputs()), checkpoints.path(&other)).unwrap();
        assert_eq!(checkpoints.load(&other), None);
    }

    #[test]
    fn every_input_changes_the_name() {
        let counts = Csr::from_dense(1, 2, &[1.0, 0.0]).unwrap();
        let moved = Csr::from_dense(1, 2, &[0.0, 1.0]).unwrap();
        let labels = Categorical::from_values(&["B"]);
        let (a, b) = ("s/d/a".parse().unwrap(), "s/d/b".parse().unwrap());
        let (train, longer) = (TrainSpec::default(), TrainSpec { epochs: Some(9), ..TrainSpec::default() });
        let digests = [
            Inputs { base: Digest::of(b"1"), key: &a, train: &train, counts: &counts, labels: None },
            Inputs { base: Digest::of(b"2"), key: &a, train: &train, counts: &counts, labels: None },
            Inputs { base: Digest::of(b"1"), key: &b, train: &train, counts: &counts, labels: None },
            Inputs { base: Digest::of(b"1"), key: &a, train: &longer, counts: &counts, labels: None },
            Inputs { base: Digest::of(b"1"), key: &a, train: &train, counts: &moved, labels: None },
            Inputs { base: Digest::of(b"1"), key: &a, train: &train, counts: &counts, labels: Some(&labels) },
        ]
        .map(|inputs| inputs.digest());
        assert_eq!(digests.iter().collect::<std::collections::BTreeSet<_>>().len(), 6);
    }
}
