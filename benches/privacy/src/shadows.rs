//! Shadows: many mappings of halves of the same cells by the worker's own code, and what leaves of each through its gate.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use archipelago_common::{
    Base, Columns, Layout, StateDict,
    condition::ConditionKey,
    hash::Digest,
    id::{Name, SiteId, TaskId},
    policy::{Budget, EmbeddingRelease, SitePolicy},
    reference_dir::ReferenceDir,
    task::TrainSpec,
};
use archipelago_models::{
    Compute, Extension, Reference,
    nn::{Mode, Pass, SeededNoise},
    surgery::{JointSurgery, Start},
    train::Seeds,
};
use archipelago_worker::{
    audit::AuditLog,
    data::{AlignedCounts, DataSpec, SiteData},
    egress::{Embeddings, Gate, Latent, MappedCells, TrainedCondition},
    fields::Source,
    ledger::{CellSet, Ledger},
    mapping::{QueryGroup, QueryKeys, Surgeon},
    ops::Metrics,
    secret::SiteSecret,
};
use tch::Kind;

/// A reference, and the cells of one batch that may or may not be mapped onto it.
pub(crate) struct Pool {
    base: Base,
    base_digest: Digest,
    layout: Layout,
    /// All cells of the batch.
    pub(crate) group: QueryGroup,
    extension: Extension,
    nothing: BTreeMap<ConditionKey, archipelago_common::part::Member>,
}

/// The columns of one shadow as the gate lets them out.
pub(crate) type Left = Columns;

/// One mapping: which cells were trained on, and what came of it.
pub(crate) struct Shadow {
    /// Positions in the pool.
    pub(crate) cells: Vec<usize>,
    surgery: JointSurgery,
}

impl Shadow {
    /// What came of it, as it is at the site.
    pub(crate) fn surgery(&self) -> &JointSurgery {
        &self.surgery
    }
}

/// Where a batch is.
pub(crate) struct Batch<'a> {
    /// The h5ad file.
    pub(crate) path: &'a Path,
    /// The obs column that names batches.
    pub(crate) batch_key: &'a str,
    /// The batch.
    pub(crate) batch: &'a str,
    /// The obs column that names labels.
    pub(crate) labels_key: &'a str,
    /// The obs column that names donors.
    pub(crate) donor_key: Option<&'a str>,
}

impl Pool {
    /// Reads the cells of a batch as a site would for this reference.
    pub(crate) fn open(reference: &Path, batch: &Batch<'_>) -> Result<Self> {
        let reference = ReferenceDir::open(reference)?;
        let base = reference.base()?;
        let layout = base.card.layout.clone();
        let mut spec = DataSpec {
            batches: vec![batch.batch.to_owned()],
            donor_key: batch.donor_key.map(str::to_owned),
            ..DataSpec::new(batch.path, batch.batch_key)
        };
        spec.fields.set("labels".to_owned(), Source::obs(batch.labels_key));
        let data = SiteData::open(spec.seen_through(&base.card)?)?;
        let keys = QueryKeys::new(&data, &owner(), &dataset(), &layout)?;
        let AlignedCounts { counts, alignment, .. } = data.counts_by_group(&base.card.genes, &keys.groups)?;
        let mut groups = QueryGroup::all(&data, &keys, counts, &alignment);
        ensure!(groups.len() == 1, "the batch is {} groups, expected one", groups.len());
        Ok(Self {
            base_digest: reference.version().base.digest,
            base,
            layout,
            group: groups.remove(0),
            extension: Extension::default(),
            nothing: BTreeMap::new(),
        })
    }

    /// The key of the batch.
    pub(crate) fn key(&self) -> &ConditionKey {
        &self.group.conditions.keys()[0]
    }

    /// Maps each choice of cells, as a task would with everything at its default.
    pub(crate) fn map(&self, choices: &[Vec<usize>]) -> Result<Vec<Shadow>> {
        let train = TrainSpec::default();
        let groups: Vec<QueryGroup> = choices.iter().map(|cells| self.group.select(cells)).collect();
        let surgeries = self.surgeon(&train).map_all(&groups, &|_, _| archipelago_common::progress::Continue::Yes)?;
        Ok(choices.iter().zip(surgeries).map(|(cells, surgery)| Shadow { cells: cells.clone(), surgery }).collect())
    }

    fn surgeon<'a>(&'a self, train: &'a TrainSpec) -> Surgeon<'a> {
        Surgeon {
            base: &self.base,
            base_digest: self.base_digest,
            extension: &self.extension,
            train,
            compute: Compute::default(),
            checkpoints: None,
            parts: &self.nothing,
            start: Start::Asked,
        }
    }

    /// How likely each cell of the pool is under columns that left: its evidence lower bound, in nats.
    pub(crate) fn elbo(&self, columns: &Left) -> Result<Vec<f64>> {
        let mut reference = Reference::of_base(self.base.clone())?;
        reference.columns.insert(self.key().clone(), columns.clone());
        let cells = self.group.cells()?;
        let dataset = reference.encode(&cells, &self.group.conditions)?;
        let module = reference.module(&[self.key().clone()], archipelago_models::Device::Cpu)?;
        let _guard = tch::no_grad_guard();
        // The same noise for every shadow: what differs is the columns.
        let mut noise = SeededNoise::new(Seeds::new(0, "attack").of("noise", 0));
        let mut elbo = Vec::with_capacity(dataset.n_cells());
        let all: Vec<usize> = (0..dataset.n_cells()).collect();
        for cells in all.chunks(MINIBATCH) {
            let minibatch = dataset.minibatch(cells, tch::Device::Cpu);
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            let terms = module.loss(&minibatch, 1.0, &mut pass);
            let negative = (terms.reconstruction + terms.kl_local).to_kind(Kind::Double);
            elbo.extend(Vec::<f64>::try_from(negative)?.into_iter().map(|value| -value));
        }
        Ok(elbo)
    }

    /// The places of all cells of the pool, seen through columns that left.
    pub(crate) fn places(&self, columns: &Left) -> Result<Latent> {
        let train = TrainSpec::default();
        let columns = BTreeMap::from([(self.key().clone(), columns.clone())]);
        Ok(self.surgeon(&train).latent(&self.group, columns, &StateDict::new())?)
    }
}

/// A worker's gate with a policy, over logs that nobody reads.
pub(crate) struct Door {
    gate: Gate,
    _dir: tempfile::TempDir,
}

impl Door {
    /// A gate that counts nothing, so that what is measured is clipping, noise and thresholds.
    pub(crate) fn new(policy: &SitePolicy) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let budget = Budget { columns: f64::INFINITY, embeddings: f64::INFINITY, ..policy.budget };
        let policy = SitePolicy { min_cells: 1, budget, ..policy.clone() };
        let logs = (AuditLog::open(&dir.path().join("audit.jsonl"))?, Ledger::open(&dir.path().join("ledger.jsonl"))?);
        let secret = SiteSecret::of_site(dir.path())?;
        Ok(Self { gate: Gate::new(owner(), policy, secret, logs, Arc::new(Metrics::new()?)), _dir: dir })
    }

    /// A shadow's columns as they leave.
    pub(crate) fn columns(&mut self, pool: &Pool, shadow: &Shadow) -> Result<Left> {
        let JointSurgery { columns, frozen, .. } = &shadow.surgery;
        let released = self.gate.release_columns(&TrainedCondition {
            task: TaskId(1),
            key: pool.key(),
            columns: &columns[pool.key()],
            layout: &pool.layout,
            cells: cell_set(shadow),
            n_donors: None,
            frozen_before: *frozen,
            frozen_after: *frozen,
        })?;
        Ok(released.value().clone())
    }

    /// A shadow's embeddings as they leave, of this kind.
    pub(crate) fn embeddings(
        &mut self,
        pool: &Pool,
        shadow: &Shadow,
        places: &Latent,
        asked: EmbeddingRelease,
    ) -> Result<Option<Embeddings>> {
        let of_cells = pool.group.annotations.select(&shadow.cells);
        let mapped = MappedCells {
            task: TaskId(1),
            key: pool.key(),
            cells: cell_set(shadow),
            latent: &places.select(&shadow.cells),
            labels: of_cells.labels(),
            donors: of_cells.donors(),
            is_identifying: false,
        };
        Ok(self.gate.release_embeddings(asked, &mapped)?.map(|released| released.value().clone()))
    }
}

/// All numbers of columns, one after the other.
pub(crate) fn numbers(columns: &Left) -> Vec<f64> {
    columns.0.iter().flat_map(|(_, tensor)| tensor.numbers().collect::<Vec<_>>()).collect()
}

/// Labels of the pool's cells.
pub(crate) fn labels(pool: &Pool) -> Result<&[Option<String>]> {
    pool.group.annotations.labels().context("the cells have no labels")
}

fn cell_set(shadow: &Shadow) -> CellSet {
    let text: String = shadow.cells.iter().map(|cell| format!("{cell} ")).collect();
    CellSet { digest: Digest::of(text.as_bytes()), n_cells: shadow.cells.len() as u64 }
}

fn owner() -> SiteId {
    "site".parse().expect("a name")
}

fn dataset() -> Name {
    "cells".parse().expect("a name")
}

/// Cells that are scored at once.
const MINIBATCH: usize = 256;
