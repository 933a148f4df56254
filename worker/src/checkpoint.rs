//! Training on disk, so that what was killed goes on where it was, and what was finished is not trained again.
//!
//! A [`TrainingFile`] is the state of one run. [`Checkpoints`] is a folder of conditions, finished or on the way.
//! Columns are a pure function of (base, key, training settings, cells): a checkpoint is filed under the digest of these
//! inputs, so it is found again whatever the task's number or epoch, and never used for anything else. A checkpoint that
//! does not verify is discarded and the condition trained anew, to the same bits.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use archipelago_common::{
    Name,
    condition::{Columns, ConditionKey},
    fs,
    hash::{Digest, FieldHasher},
    layout::Rule,
    limits,
    part::{Contribution, Member},
    progress::EpochReport,
    state_dict::{DType, StateDict, Tensor},
    task::{ColumnInit, MissingGenes},
};
use archipelago_models::{
    CellConditions, CheckpointStore, Engine, Evaluation, Extension,
    surgery::{JointSurgery, Start},
    train::TrainPlan,
};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Epochs from one state of a training to the next, unless somebody says otherwise.
pub const EPOCHS_PER_CHECKPOINT: u32 = 10;

/// What determines the columns of the keys of a group.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Digest of the base trained against.
    pub base: Digest,
    /// Its keys.
    pub keys: &'a CellConditions,
    /// How it is trained: everything, what nobody asked for too.
    pub plan: &'a TrainPlan,
    /// How its columns start where nothing else is said, and the seed.
    pub init: (ColumnInit, u64),
    /// Where they start, and whether they are trained.
    pub start: Start<'a>,
    /// Digest of its cells, as the base's model sees them.
    pub cells: Digest,
    /// Genes that its cells have, where these are not all, and what the others are to it.
    pub genes: (Option<&'a [usize]>, MissingGenes),
    /// What the site adds to the base's model.
    pub extension: &'a Extension,
}

impl Inputs<'_> {
    /// The name under which the result is filed.
    pub fn digest(&self) -> Digest {
        let mut hasher = FieldHasher::new("archipelago/checkpoint/4");
        hasher
            .field(self.base.as_bytes())
            .field(self.keys.all_keys().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n").as_bytes())
            .field(format!("{:?} {:?}", self.plan, self.init).as_bytes())
            .field(self.cells.as_bytes());
        if !self.extension.is_empty() {
            hasher.field(format!("{:?}", self.extension).as_bytes());
        }
        if let (Some(genes), MissingGenes::LeftOut) = self.genes {
            hasher.field(format!("{genes:?}").as_bytes());
        }
        let (word, given) = match self.start {
            Start::Asked => return hasher.finish(),
            Start::At(columns) => ("from", columns),
            Start::Untrained(columns) => ("untrained", columns),
        };
        hasher.field(word.as_bytes());
        for columns in self.keys.all_keys().iter().filter_map(|key| given.get(key)) {
            hasher.field(columns.0.digest().as_bytes());
        }
        hasher.finish()
    }
}

/// The state of one training run in a file, from which a killed run goes on.
#[derive(Clone, Debug)]
pub struct TrainingFile {
    path: PathBuf,
    every: u32,
}

impl TrainingFile {
    /// A file that is written every so many epochs.
    pub fn new(path: impl Into<PathBuf>, every: u32) -> Self {
        Self { path: path.into(), every }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, after the run's result is safe.
    pub fn discard(&self) {
        // One that stays behind is taken up or refused by the next run, which says so.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl CheckpointStore for TrainingFile {
    fn load(&mut self) -> archipelago_models::Result<Option<Vec<u8>>> {
        if !self.path.exists() {
            return Ok(None);
        }
        tracing::warn!(path = %self.path.display(), "going on from the checkpoint of a run that did not finish");
        Ok(Some(fs::read_bounded(&self.path, limits::BLOB_BYTES)?))
    }

    fn save(&mut self, checkpoint: &[u8]) -> archipelago_models::Result<()> {
        Ok(fs::write_atomic(&self.path, checkpoint)?)
    }

    fn every(&self) -> u32 {
        self.every.max(1)
    }
}

/// A folder of conditions, finished or on the way.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    every: u32,
}

impl Checkpoints {
    /// Opens the folder, or makes it. A condition on the way is kept every so many epochs.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub fn open(dir: &Path, every: u32) -> Result<Self> {
        fs::create_dir(dir)?;
        Ok(Self { dir: dir.into(), every })
    }

    /// The training of the condition with these inputs.
    pub fn training(&self, inputs: &Digest) -> TrainingFile {
        TrainingFile::new(self.dir.join(format!("{inputs}.training")), self.every)
    }

    /// Keeps a finished condition.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub fn store(&self, inputs: &Digest, surgery: &JointSurgery) -> Result<()> {
        let (tensors, card) = to_file(inputs, surgery);
        fs::write_atomic(&self.path(inputs), &tensors.to_safetensors(Some(&card)))?;
        self.training(inputs).discard();
        Ok(())
    }

    /// The finished condition of these inputs, if there is one that verifies. A damaged one is removed with a warning.
    pub fn load(&self, inputs: &Digest) -> Option<JointSurgery> {
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
    frozen: Digest,
    fit: BTreeMap<ConditionKey, Evaluation>,
    n_cells: usize,
    deterministic: bool,
    engine: Engine,
    /// The contributions, whose values stand among the tensors under [`PART`] and their position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    contributions: Vec<Contributed>,
}

/// A contribution of a condition's cells, without its value.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contributed {
    condition: ConditionKey,
    part: Name,
    rule: Rule,
    cells: BTreeMap<String, Vec<usize>>,
}

fn to_file(inputs: &Digest, surgery: &JointSurgery) -> (StateDict, String) {
    let named = |prefix: &str, tensors: &StateDict| {
        tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect::<Vec<_>>()
    };
    let of_keys = |prefix: &str, columns: &BTreeMap<ConditionKey, Columns>| {
        let of_key = |(key, columns): (&ConditionKey, &Columns)| named(&format!("{prefix}{key}{BETWEEN}"), &columns.0);
        columns.iter().flat_map(of_key).collect::<Vec<_>>()
    };
    let contributions = || surgery.contributions.iter().flat_map(|(key, all)| all.iter().map(move |one| (key, one)));
    let file = |(position, (_, contribution)): (usize, (&ConditionKey, &Contribution))| {
        let bytes = contribution.value.to_bytes();
        let tensor = Tensor::new(PART, DType::U8, vec![bytes.len()], bytes).expect("one byte for each element");
        (format!("{PART}{position}"), tensor)
    };
    let tensors: StateDict = (of_keys(COLUMNS, &surgery.columns).into_iter())
        .chain(of_keys(INITIAL, &surgery.initial))
        .chain(named(LOCAL, &surgery.local))
        .chain(contributions().enumerate().map(file))
        .collect();
    let card = Card {
        inputs: *inputs,
        tensors: tensors.digest(),
        history: surgery.history.clone(),
        frozen: surgery.frozen,
        fit: surgery.fit.clone(),
        n_cells: surgery.n_cells,
        deterministic: surgery.deterministic,
        engine: surgery.engine,
        contributions: contributions().map(|(key, contribution)| Contributed::of(key, contribution)).collect(),
    };
    (tensors, serde_json::to_string(&card).expect("numbers and digests are JSON"))
}

fn read(path: &Path, inputs: &Digest) -> Result<JointSurgery, String> {
    // Twice the columns, what the site keeps and contributes, and a history of some hundred bytes an epoch.
    let bytes =
        fs::read_bounded(path, 3 * limits::COLUMNS_BYTES + 4 * limits::PART_BYTES).map_err(|e| e.to_string())?;
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
        named.collect::<StateDict>()
    };
    let of_keys = |prefix: &str| {
        let mut columns: BTreeMap<ConditionKey, Columns> = BTreeMap::new();
        for (name, tensor) in part(prefix).iter() {
            let (key, name) = name.split_once(BETWEEN).ok_or("a tensor is of no key")?;
            let key = key.parse().map_err(|e: archipelago_common::Error| e.to_string())?;
            columns.entry(key).or_default().0.insert(name, tensor.clone());
        }
        // Keys that own nothing are keys all the same.
        for key in card.fit.keys() {
            columns.entry(key.clone()).or_default();
        }
        Ok::<_, String>(columns)
    };
    let (columns, initial) = (of_keys(COLUMNS)?, of_keys(INITIAL)?);
    let mut contributions: BTreeMap<_, Vec<_>> = card.fit.keys().map(|key| (key.clone(), vec![])).collect();
    for (position, contributed) in card.contributions.into_iter().enumerate() {
        let key = contributed.condition.clone();
        contributions.entry(key).or_default().push(contributed.with(&tensors, position)?);
    }
    Ok(JointSurgery {
        columns,
        initial,
        local: part(LOCAL),
        contributions,
        history: card.history,
        frozen: card.frozen,
        fit: card.fit,
        n_cells: card.n_cells,
        deterministic: card.deterministic,
        engine: card.engine,
    })
}

impl Contributed {
    fn of(condition: &ConditionKey, contribution: &Contribution) -> Self {
        let rule = match &contribution.value {
            Member::Tensors(_) => Rule::Union,
            Member::Sums(pool) => Rule::Pool { tables: pool.specs().clone() },
        };
        Self { condition: condition.clone(), part: contribution.part.clone(), rule, cells: contribution.cells.clone() }
    }

    fn with(self, tensors: &StateDict, position: usize) -> Result<Contribution, String> {
        let file = tensors.require("checkpoint", &format!("{PART}{position}")).map_err(|e| e.to_string())?;
        let value = Member::from_bytes(&self.rule, file.bytes()).map_err(|e| e.to_string())?;
        Ok(Contribution { part: self.part, value, cells: self.cells })
    }
}

const COLUMNS: &str = "columns/";
const INITIAL: &str = "initial/";
const LOCAL: &str = "local/";
const PART: &str = "part/";
/// Between a key and a tensor's name: no key has a control character.
const BETWEEN: char = '\n';

#[cfg(test)]
mod tests {
    use archipelago_common::{
        pool::{Pool, TableSpec},
        task::TrainSpec,
    };
    use archipelago_models::{train::Aim, zoo};

    use super::*;

    fn inputs() -> Digest {
        Digest::of(b"inputs")
    }

    fn contribution() -> Contribution {
        let mut pool = Pool::new(BTreeMap::from([("n".to_owned(), TableSpec::counts(&[]))]));
        pool.add("T cell", "n", 0, 3.0).unwrap();
        let cells = BTreeMap::from([("T cell".to_owned(), vec![0, 2, 5])]);
        Contribution { part: "counts".parse().unwrap(), value: Member::Sums(pool), cells }
    }

    fn key(text: &str) -> ConditionKey {
        text.parse().unwrap()
    }

    fn trained() -> JointSurgery {
        let tensor =
            |name: &str, value| StateDict::from_iter([(name.to_owned(), Tensor::from_f32(&[2], &[0.1, value]))]);
        let columns = |value| {
            let of_axis = Columns(tensor("v", value));
            BTreeMap::from([(key("s/d/a b"), Columns(tensor("w", value))), (key("s/d@donor/a"), of_axis)])
        };
        let report = EpochReport { epoch: 1, n_epochs: 1, loss: 0.1 + 0.2, elapsed_ms: 7, ..EpochReport::default() };
        let fit = Evaluation { loss: 0.7, figures: [("elbo".to_owned(), -1.0 / 3.0)].into() };
        JointSurgery {
            columns: columns(f32::MIN_POSITIVE),
            initial: columns(0.0),
            local: tensor("w", 3.0),
            contributions: BTreeMap::from([(key("s/d/a b"), vec![contribution()])]),
            history: vec![report],
            frozen: Digest::of(b"frozen"),
            fit: BTreeMap::from([(key("s/d/a b"), fit)]),
            n_cells: 9,
            deterministic: true,
            engine: Engine::Fast,
        }
    }

    fn stored() -> (tempfile::TempDir, Checkpoints) {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path(), 1).unwrap();
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
    fn a_training_that_has_finished_leaves_no_file_behind() {
        let (_dir, checkpoints) = stored();
        let mut training = checkpoints.training(&inputs());
        assert_eq!(training.load().unwrap(), None);
        training.save(b"epoch 1").unwrap();
        assert_eq!(training.load().unwrap().as_deref(), Some(&b"epoch 1"[..]));
        checkpoints.store(&inputs(), &trained()).unwrap();
        assert!(!training.path().exists());
    }

    #[test]
    fn every_input_changes_the_name() {
        let (a, b) = (CellConditions::single(key("s/d/a"), 5), CellConditions::single(key("s/d/b"), 5));
        let bound = a.clone().with_axis(CellConditions::single(key("s/d@donor/x"), 5));
        let plan = |epochs| {
            let spec = TrainSpec { epochs, ..TrainSpec::default() };
            TrainPlan::new(zoo::model("scvi").unwrap(), Aim::ExactSurgery, &spec, 5).unwrap()
        };
        let (plan, longer) = (plan(Some(3)), plan(None));
        let (init, start) = ((ColumnInit::Mean, 0), Start::Asked);
        let columns = |value| {
            let tensor = Tensor::from_f32(&[1], &[value]);
            BTreeMap::from([(key("s/d/a"), Columns(StateDict::from_iter([("c".to_owned(), tensor)])))])
        };
        let (one, two) = (columns(1.0), columns(2.0));
        let extension = &Extension::default();
        let cells = Digest::of(b"cells");
        let genes = (None, MissingGenes::LeftOut);
        let usual = Inputs { base: Digest::of(b"1"), keys: &a, plan: &plan, init, start, cells, genes, extension };
        let added = Extension { options: [("n_ext".to_owned(), 3.into())].into(), gene_sets: None };
        let digests = [
            usual,
            Inputs { base: Digest::of(b"2"), ..usual },
            Inputs { keys: &b, ..usual },
            Inputs { keys: &bound, ..usual },
            Inputs { plan: &longer, ..usual },
            Inputs { genes: (Some(&[0, 2]), MissingGenes::LeftOut), ..usual },
            Inputs { genes: (Some(&[0, 1]), MissingGenes::LeftOut), ..usual },
            Inputs { init: (ColumnInit::Random, 0), ..usual },
            Inputs { init: (ColumnInit::Mean, 1), ..usual },
            Inputs { start: Start::At(&one), ..usual },
            Inputs { start: Start::At(&two), ..usual },
            Inputs { start: Start::Untrained(&one), ..usual },
            Inputs { cells: Digest::of(b"other cells"), ..usual },
            Inputs { extension: &added, ..usual },
        ]
        .map(|inputs| inputs.digest());
        assert_eq!(digests.iter().collect::<std::collections::BTreeSet<_>>().len(), digests.len());
    }
}
