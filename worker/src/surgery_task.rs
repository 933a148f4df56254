//! One surgery task from claim to acceptance: fetch, load, train, gate, keep, hand in.
//!
//! Heavy work runs on a blocking thread; beside it the lease is renewed with every word of progress. A lease that lapsed
//! meanwhile is claimed again: the columns do not depend on the epoch under which they were trained.

mod checks;
mod of_tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use archipelago_client::ClientError;
use archipelago_common::{
    Base, Section, StateDict,
    blob::BlobRef,
    condition::{Columns, ConditionKey},
    fs,
    hash::Digest,
    id::VersionId,
    layout::{Growth, Layout},
    limits,
    part::Member,
    policy::{EmbeddingRelease, TaskBounds},
    progress::{Continue, EpochReport},
    record::{BaseSummary, Progress, TaskHead},
    task::TrainSpec,
    tree::{self, Sharing},
};
use archipelago_models::{
    Device, Extension, layout_of,
    parts::Parts as KnownParts,
    surgery::{JointSurgery, Start},
    zoo,
};
use archipelago_protocol::message::Refusal;
use tokio::{sync::watch, time::Instant};

use self::of_tree::OfTree;
use crate::{
    audit::AuditTrail,
    bounds,
    checkpoint::Checkpoints,
    consent::Decision,
    data::{AlignedCounts, DataSpec, SiteData},
    egress::{
        ContributingCells, Gate, Latent, Lease, MappedCells, Released, ReleasedCondition, ReleasedPart,
        TrainedCondition,
    },
    error::{Error, Result},
    faults, lease,
    ledger::CellSet,
    local,
    mapping::{self, OBSM_KEY, QueryGroup, Rules, Surgeon},
    memory::{self, Handling, Spilled},
    naming::NameTable,
    ops::Metrics,
    results,
    session::{Site, in_contact},
    shared_tree::{TreeParts, Wanted},
    task_summary::TaskSummary,
    vouched::Vouched,
};

/// A task that this site has claimed.
pub(crate) struct SurgeryTask<'a> {
    site: &'a mut Site,
    record: &'a TaskHead,
    /// What was vouched for when the task was looked at, and consented to: not asked again.
    vouched: Vouched,
    /// What a person had said of the task when it was begun.
    decided: Option<Decision>,
    lease: Lease,
    progress: watch::Sender<Progress>,
    // Set when the work is dropped or done, so that a training thread does not go on for nobody.
    cancelled: Arc<AtomicBool>,
    started: Instant,
}

/// What of parts leaves, and what stays.
#[derive(Default)]
struct Parts {
    members: BTreeMap<ConditionKey, Released<Member>>,
    withheld: BTreeMap<ConditionKey, String>,
}

/// Everything that training needs, loaded and checked.
struct Prepared {
    base: Base,
    base_digest: Digest,
    layout: Layout,
    /// Members of parts by which the model maps, and those of a tree.
    parts: BTreeMap<ConditionKey, Member>,
    /// What the task's version says of trees, where the reference has them.
    tree: Option<TreeParts>,
    /// What is there of the site in the current version.
    merged: BTreeSet<ConditionKey>,
    data: SiteData,
    n_genes_found: usize,
    gene_coverage: f64,
    groups: Vec<QueryGroup>,
    withheld: BTreeMap<ConditionKey, String>,
    /// What the keys stand for, at this site alone.
    names: NameTable,
    /// What this site adds to the reference's model.
    extension: Extension,
    train: TrainSpec,
    /// Where the columns of each key begin, where the policy hides it.
    starts: Option<BTreeMap<ConditionKey, Columns>>,
    device: Device,
    checkpoints: Checkpoints,
}

impl<'a> SurgeryTask<'a> {
    pub(crate) fn new(site: &'a mut Site, record: &'a TaskHead, vouched: Vouched, lease: Lease) -> Self {
        let (progress, _) = watch::channel(Progress { epochs_done: 0, epochs_planned: 0, loss: None });
        let (cancelled, started) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let decided = site.decisions.about(record.id).ok().flatten();
        Self { site, record, vouched, decided, lease, progress, cancelled, started }
    }

    /// The lease as it stands.
    pub(crate) fn lease(&self) -> Lease {
        self.lease
    }

    /// Does the task. Returns the version that holds the result, if there is one already.
    pub(crate) async fn run(&mut self) -> Result<Option<VersionId>> {
        let asks = self.record.task.asks;
        let prepared = Arc::new(self.prepare().await?);
        let surgeries = self.train(prepared.clone()).await?;
        let columns = if asks.for_columns() { self.release_columns(&prepared, &surgeries)? } else { Vec::new() };
        let latents = self.embed(prepared.clone(), &columns, &surgeries).await?;
        let (latents, of_tree) = self.ask_tree(prepared.clone(), latents).await?;
        let conditions = self.release_conditions(&prepared, &surgeries, columns, &latents)?;
        let Parts { members: parts, withheld } = self.release_parts(&prepared, &surgeries, &of_tree)?;
        self.require_something(&prepared, &conditions, &parts, &withheld)?;
        self.keep_cells(prepared.clone(), latents, of_tree).await?;
        let of_group = |(group, surgery): (_, &'_ JointSurgery)| local_of(group, surgery);
        let kept: Vec<_> = prepared.groups.iter().zip(&surgeries).flat_map(of_group).collect();
        local::write(&self.out_dir()?, kept.iter().map(|(key, local)| (key, local)))?;
        self.keep_summary(&prepared, &surgeries, withheld)?;
        let version = self.submit(&conditions, &parts).await?;
        TaskSummary::mark_accepted(&self.out_dir()?, version)?;
        Ok(version)
    }

    /// Fetches what is missing of the reference and reads the data.
    async fn prepare(&mut self) -> Result<Prepared> {
        let task = &self.record.task;
        let bounds = self.site.gate.policy().tasks.clone();
        bounds::check_task(&bounds, task)?;
        // All versions of a reference have one base, and columns depend on nothing else.
        let (blob, current) = (self.vouched.reference.base, self.vouched.reference.current);
        let merged = self.site.uplink.merged(&task.reference, current, &self.site.config.site).await?;
        let path = self.cached(blob).await?;
        let (data, naming) = (self.site.data.clone(), self.site.naming.clone());
        let (train, device, checkpoints) = (task.train.clone(), self.site.device, self.site.checkpoints.clone());
        // Anew for each task: what is available changes while a worker serves.
        let storage = memory::storage(self.site.config.memory, &self.site.config.scratch);
        let quiet = Handling::quiet(storage.clone());
        let adds = self.site.config.adds.clone();
        let opened = self.beside_renewals(blocking(move || open(&path, blob, data, quiet, &bounds)));
        let (base, data) = opened.await?;
        if BaseSummary::from(&base.card) != self.vouched.reference.summary {
            return Err(Error::OtherCard { reference: self.vouched.reference.name.clone() });
        }
        let data = match self.site.gate.policy().new_labels {
            true => data,
            false => data.with_labels_among(&base.card.labels),
        };
        let layout = layout_of(&base)?;
        let (data, withheld) = self.withhold(data, &layout, &merged)?;
        let names = NameTable::path(&self.site.config.state_dir);
        let read = blocking(move || {
            let keys = naming.keys(&data, &layout)?;
            let AlignedCounts { counts, alignment, .. } = data.counts_by_group(&base.card.genes, &keys.groups)?;
            let names = NameTable::read(&names)?;
            if let Some(spilled) = Spilled::of(&storage) {
                tracing::info!(%spilled, "the data are larger than the memory that they may take");
            }
            Ok(Prepared {
                extension: adds.to_task(&base.card)?,
                groups: QueryGroup::all(&data, &keys, counts, &alignment),
                parts: BTreeMap::new(),
                tree: None,
                merged,
                layout,
                base,
                base_digest: blob.digest,
                data,
                n_genes_found: alignment.n_found,
                gene_coverage: alignment.coverage(),
                withheld,
                names,
                train,
                starts: None,
                device,
                checkpoints,
            })
        });
        let mut prepared = self.beside_renewals(read).await?;
        self.check_training(&prepared)?;
        prepared.starts = self.hidden_starts(&prepared);
        self.check_adds(&prepared)?;
        prepared.parts = self.members(&prepared).await?;
        if tree::is_declared(&prepared.layout) {
            prepared.tree = Some(TreeParts::new(&prepared.parts)?);
            let (asks, sharing) = (self.record.task.asks, self.sharing(&prepared.layout));
            prepared.require_news(&Wanted { asks, sharing, merged: &prepared.merged })?;
        }
        Ok(prepared)
    }

    /// What the cells may tell their types apart with: themselves, where the publisher takes positions and the policy gives them.
    fn sharing(&self, layout: &Layout) -> Sharing {
        let takes_points = layout.parts.keys().any(|part| part.as_str() == tree::POINTS);
        match takes_points && self.site.gate.policy().embeddings == EmbeddingRelease::Full {
            true => Sharing::Points,
            false => Sharing::Machines,
        }
    }

    /// Fetches the members of parts by which the model maps, and those of a tree: of those in the task's version, so that every
    /// site maps by the same and sees the same tree.
    async fn members(&mut self, prepared: &Prepared) -> Result<BTreeMap<ConditionKey, Member>> {
        let card = &prepared.base.card;
        let (maps_by, has_tree) = (zoo::model(&card.model)?.maps_by(), tree::is_declared(&prepared.layout));
        if maps_by.is_empty() && !has_tree {
            return Ok(BTreeMap::new());
        }
        let known = KnownParts::new(card, BTreeMap::new());
        let is_needed = |key: &ConditionKey| match key.section() {
            Section::Part(name) => {
                let maps = maps_by.contains(&name.as_str()) && known.is_of_reference(key);
                maps || (has_tree && [tree::MACHINES, tree::POINTS, tree::COUNTS].contains(&name.as_str()))
            }
            Section::Condition | Section::Axis(_) => false,
        };
        let mut there = self.vouched.held.clone();
        there.retain(|key, _| is_needed(key));
        let mut members = BTreeMap::new();
        for (key, blob) in there {
            let path = self.cached(blob).await?;
            let failed = |source| Error::Reference { path: path.clone(), source };
            let bytes = fs::read_bounded(&path, limits::PART_BYTES).map_err(failed)?;
            blob.verify("a member of a part", &bytes).map_err(failed)?;
            if let Some(rule) = prepared.layout.rule(key.section()) {
                members.insert(key, Member::from_bytes(rule, &bytes).map_err(failed)?);
            }
        }
        Ok(members)
    }

    /// Path of a blob in the site's cache, fetched if it is not there. What is there is verified when it is loaded.
    async fn cached(&mut self, blob: BlobRef) -> Result<PathBuf> {
        let dir = self.site.config.state_dir.join("blobs");
        fs::create_dir(&dir)?;
        let path = dir.join(blob.digest.to_string());
        let kept = path.clone();
        let is_whole = blocking(move || Ok(kept.exists() && fs::blob_ref(&kept)? == blob)).await?;
        if !is_whole {
            tracing::info!(%blob, "fetching the reference");
            let (uplink, target) = (self.site.uplink.clone(), path.clone());
            self.beside_renewals(async move { faults::fetch(&uplink, blob, &target).await }).await?;
        }
        Ok(path)
    }

    async fn train(&mut self, prepared: Arc<Prepared>) -> Result<Vec<JointSurgery>> {
        let mut planned = 0;
        for group in &prepared.groups {
            planned += u64::from(prepared.surgeon().n_epochs(group.cells.len())?);
        }
        self.progress.send_modify(|progress| progress.epochs_planned = planned);
        let (progress, cancelled) = (self.progress.clone(), self.cancelled.clone());
        let metrics = self.site.metrics.clone();
        let task = self.record.id;
        self.beside_renewals(blocking(move || {
            prepared.surgeon().map_all(&prepared.groups, &|group, report| {
                count_epoch(&metrics, group.n_cells(), report);
                progress.send_modify(|progress| progress.epochs_done += 1);
                tracing::debug!(%task, conditions = group.name(), epoch = report.epoch, loss = report.loss, "epoch");
                if cancelled.load(Ordering::Relaxed) { Continue::No } else { Continue::Yes }
            })
        }))
        .await
    }

    /// Runs work while the lease is kept. Ends early, with the coordinator's word, if the task is lost, and when a person here
    /// declines it.
    async fn beside_renewals<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (decisions, task, decided) = (self.site.decisions.clone(), self.record.id, self.decided);
        tokio::select! {
            done = work => done,
            because = decisions.declined(task, decided) => Err(Error::NotWanted { because }),
            lost = lease::keep(self.site, self.record, &mut self.lease, self.progress.subscribe()) => Err(lost),
        }
    }

    /// The columns of every key of each group, on every axis.
    fn release_columns(&mut self, prepared: &Prepared, surgeries: &[JointSurgery]) -> Result<Vec<ReleasedColumns>> {
        let mut released = Vec::with_capacity(surgeries.len());
        for (group, surgery) in prepared.groups.iter().zip(surgeries) {
            let mut of_group = ReleasedColumns::new();
            for (key, cells) in group.cells_of_keys(&prepared.layout) {
                let set = cell_set(&self.site.gate, &prepared.data, group, &cells);
                let columns = self.site.gate.release_columns(&TrainedCondition {
                    task: self.record.id,
                    key: &key,
                    columns: &surgery.columns[&key],
                    layout: &prepared.layout,
                    cells: set,
                    n_donors: group.n_donors(&cells),
                    frozen_before: surgery.frozen,
                    frozen_after: surgery.frozen,
                })?;
                of_group.insert(key, columns);
            }
            released.push(of_group);
        }
        Ok(released)
    }

    /// Positions of each group's cells, seen through the columns as they leave, where they do: what the site keeps is what the
    /// consortium's version gives.
    async fn embed(
        &mut self,
        prepared: Arc<Prepared>,
        columns: &[ReleasedColumns],
        surgeries: &[JointSurgery],
    ) -> Result<Vec<Latent>> {
        let of_group = |(place, surgery): (usize, &JointSurgery)| {
            let columns = match columns.get(place) {
                Some(left) => left.iter().map(|(key, columns)| (key.clone(), columns.value().clone())).collect(),
                None => surgery.columns.clone(),
            };
            (columns, surgery.local.clone())
        };
        let seen: Vec<(BTreeMap<ConditionKey, Columns>, StateDict)> =
            surgeries.iter().enumerate().map(of_group).collect();
        self.beside_renewals(blocking(move || {
            let each = prepared.groups.iter().zip(seen);
            each.map(|(group, (columns, local))| prepared.surgeon().latent(group, columns, &local)).collect()
        }))
        .await
    }

    /// What the tree of the task's version is to these cells and these cells to it, where the reference has one.
    async fn ask_tree(&mut self, prepared: Arc<Prepared>, latents: Vec<Latent>) -> Result<(Vec<Latent>, OfTree)> {
        let (asks, sharing) = (self.record.task.asks, self.sharing(&prepared.layout));
        self.beside_renewals(blocking(move || {
            let wanted = Wanted { asks, sharing, merged: &prepared.merged };
            let of_tree = |parts| OfTree::new(parts, &prepared, &latents, &wanted);
            let of_tree = prepared.tree.as_ref().map(of_tree).transpose()?;
            Ok((latents, of_tree.unwrap_or_default()))
        }))
        .await
    }

    fn release_conditions(
        &mut self,
        prepared: &Prepared,
        surgeries: &[JointSurgery],
        columns: Vec<ReleasedColumns>,
        latents: &[Latent],
    ) -> Result<BTreeMap<ConditionKey, ReleasedCondition>> {
        let (task, asked, least) = (self.record.id, self.record.task.embeddings, self.record.task.min_cells);
        let gate = &mut self.site.gate;
        let mut conditions = BTreeMap::new();
        for (((group, surgery), columns), latent) in prepared.groups.iter().zip(surgeries).zip(columns).zip(latents) {
            let mut metrics = mapping::metrics(&prepared.base.card, group, surgery, prepared.gene_coverage);
            let cells = group.cells_of_keys(&prepared.layout);
            for (key, columns) in columns {
                // What a cell is like is told once, with its condition, and not again with each of its names.
                let Some(metrics) = metrics.remove(&key) else {
                    conditions.insert(key, ReleasedCondition { columns, embeddings: None, metrics: None });
                    continue;
                };
                let (latent, of_key) = (latent.select(&cells[&key]), group.annotations.select(&cells[&key]));
                let (labels, donors) = (of_key.labels(), of_key.donors());
                let is_identifying = of_key.identify_people();
                let set = cell_set(gate, &prepared.data, group, &cells[&key]);
                let mapped =
                    MappedCells { task, key: &key, cells: set, latent: &latent, labels, donors, is_identifying };
                let embeddings = gate.release_embeddings(asked, &mapped)?;
                let metrics = gate.release_metrics(task, &key, metrics, least)?;
                conditions.insert(key, ReleasedCondition { columns, embeddings, metrics });
            }
        }
        Ok(conditions)
    }

    /// What may leave of what the cells contribute to the parts that the task asks for.
    fn release_parts(&mut self, prepared: &Prepared, surgeries: &[JointSurgery], of_tree: &OfTree) -> Result<Parts> {
        let mut parts = Parts::default();
        let asks = self.record.task.asks;
        for (place, (group, surgery)) in prepared.groups.iter().zip(surgeries).enumerate() {
            let of_group = surgery.contributions.iter().flat_map(|(key, all)| all.iter().map(move |one| (key, one)));
            let of_model =
                of_group.map(|(condition, one)| (condition.clone().in_section(Section::Part(one.part.clone())), one));
            let cells_of_keys = group.cells_of_keys(&prepared.layout);
            let of_group: Vec<usize> = (0..group.cells.len()).collect();
            let of_tree = of_tree.contributions.get(place).into_iter().flatten().map(|(key, one)| (key.clone(), one));
            for (key, contribution) in of_model.chain(of_tree).filter(|(key, _)| asks.is_for(key.section())) {
                let (task, donors, layout) = (self.record.id, group.annotations.donors(), &prepared.layout);
                // Counts by one tree of many have a name of their own, and are of all cells of the group.
                let of_condition = cells_of_keys.get(&key.clone().in_section(Section::Condition));
                let of_condition = of_condition.unwrap_or(&of_group);
                let cells = cell_set(&self.site.gate, &prepared.data, group, of_condition);
                let cells = ContributingCells { task, key: &key, cells, contribution, donors, layout };
                let ReleasedPart { member, withheld } = self.site.gate.release_part(&cells)?;
                if let Some(reason) = withheld {
                    tracing::warn!(%key, reason, "something of a part is left out");
                    parts.withheld.insert(key.clone(), reason);
                }
                if let Some(member) = member {
                    parts.members.insert(key, member);
                }
            }
        }
        Ok(parts)
    }

    /// Refuses to hand in nothing: no parts where nothing else is asked for or to be had.
    fn require_something(
        &self,
        prepared: &Prepared,
        conditions: &BTreeMap<ConditionKey, ReleasedCondition>,
        parts: &BTreeMap<ConditionKey, Released<Member>>,
        withheld: &BTreeMap<ConditionKey, String>,
    ) -> Result<()> {
        let trains = prepared.layout.growth == Growth::Surgery;
        if !parts.is_empty() || (!conditions.is_empty() && trains) {
            return Ok(());
        }
        let (key, reason) = match withheld.first_key_value() {
            Some((key, reason)) => (key.clone(), reason.clone()),
            None => (prepared.groups[0].conditions.keys()[0].clone(), "its cells contribute to no part".to_owned()),
        };
        Err(Error::Withheld { key: Box::new(key), reason })
    }

    async fn keep_cells(&mut self, prepared: Arc<Prepared>, latents: Vec<Latent>, of_tree: OfTree) -> Result<()> {
        let path = self.out_dir()?.join("mapped.h5ad");
        let write = move || {
            let positions = [(OBSM_KEY, latents)];
            let found =
                mapping::Found { positions: &positions, placed: of_tree.placed.as_deref(), names: &prepared.names };
            let by = (Rules::Exact, &prepared.base_digest);
            mapping::write_mapped(&path, &prepared.data, &prepared.groups, &found, by)
        };
        self.beside_renewals(blocking(write)).await
    }

    async fn submit(
        &mut self,
        conditions: &BTreeMap<ConditionKey, ReleasedCondition>,
        parts: &BTreeMap<ConditionKey, Released<Member>>,
    ) -> Result<Option<VersionId>> {
        let version = self.record.task.version;
        loop {
            // Before the bytes: what left is in the site's log, and nobody can cut that off unseen.
            self.site.anchor().await?;
            let submitted = self.site.uplink.submit(self.lease, version, conditions, parts);
            match in_contact(&self.site.metrics, submitted).await {
                // The lease lapsed while the coordinators were away. A task that is over refuses the claim as well.
                Err(Error::Client(ClientError::Refused(Refusal::Stale { .. }))) => {
                    self.lease = self.site.uplink.claim(self.record.id).await?;
                }
                answer => return answer,
            }
        }
    }

    fn keep_summary(
        &self,
        prepared: &Prepared,
        surgeries: &[JointSurgery],
        of_parts: BTreeMap<ConditionKey, String>,
    ) -> Result<()> {
        let mapped = || prepared.groups.iter().zip(surgeries);
        let metrics = |(group, surgery)| mapping::metrics(&prepared.base.card, group, surgery, prepared.gene_coverage);
        let left = AuditTrail::read(&self.site.config.audit_path())?.bytes_of_task(self.record.id);
        let dir = self.out_dir()?;
        // What stays here has the names.
        let at_home = |key: &ConditionKey| prepared.names.or_key(key);
        let history = mapped().map(|(group, surgery)| (group.name_at_home(&prepared.names), surgery.history.clone()));
        results::write_history(&dir, &history.collect())?;
        let summary = TaskSummary {
            task: self.record.id,
            reference: self.record.task.reference.clone(),
            parent: self.record.task.version,
            accepted: false,
            version: None,
            conditions: mapped().flat_map(metrics).map(|(key, metrics)| (at_home(&key), metrics)).collect(),
            withheld: prepared.withheld.iter().chain(&of_parts).map(|(key, why)| (at_home(key), why.clone())).collect(),
            n_genes_found: prepared.n_genes_found,
            n_genes_panel: prepared.base.card.genes.len(),
            bytes_out: left.into_iter().map(|(kind, bytes)| (kind.to_owned(), bytes)).collect(),
            bytes_kept: prepared.data.file_bytes()?,
            seconds: self.started.elapsed().as_secs_f64(),
        };
        summary.write(&dir)
    }

    fn out_dir(&self) -> Result<PathBuf> {
        let dir = TaskSummary::dir(&self.site.config.out_dir, self.record.id);
        fs::create_dir(&dir)?;
        Ok(dir)
    }
}

impl Drop for SurgeryTask<'_> {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Prepared {
    fn surgeon(&self) -> Surgeon<'_> {
        Surgeon {
            base: &self.base,
            base_digest: self.base_digest,
            extension: &self.extension,
            train: &self.train,
            compute: self.device.into(),
            checkpoints: Some(&self.checkpoints),
            parts: &self.parts,
            start: self.starts.as_ref().map_or(Start::Asked, Start::At),
        }
    }
}

/// The released columns of the keys of one group.
type ReleasedColumns = BTreeMap<ConditionKey, Released<Columns>>;

/// Some cells of a group as the ledger knows them.
fn cell_set(gate: &Gate, data: &SiteData, group: &QueryGroup, cells: &[usize]) -> CellSet {
    gate.cell_set(data.names_of(cells.iter().map(|&cell| group.cells[cell])))
}

/// What the site keeps for itself of a group, by condition.
fn local_of(group: &QueryGroup, surgery: &JointSurgery) -> Vec<(ConditionKey, StateDict)> {
    group.conditions.keys().iter().map(|key| (key.clone(), surgery.local.clone())).collect()
}

fn open(
    path: &Path,
    blob: BlobRef,
    data: DataSpec,
    handling: Handling,
    bounds: &TaskBounds,
) -> Result<(Base, SiteData)> {
    let failed = |source| Error::Reference { path: path.into(), source };
    let bytes = fs::read_bounded(path, limits::BLOB_BYTES).map_err(failed)?;
    blob.verify("the reference", &bytes).map_err(failed)?;
    let base = Base::from_bytes(&bytes).map_err(failed)?;
    drop(bytes);
    bounds::check_reference(bounds, &base)?;
    let data = SiteData::open(data.seen_through(&base.card)?)?.handled(handling);
    data.check_writable()?;
    Ok((base, data))
}

fn count_epoch(metrics: &Metrics, n_cells: u64, report: &EpochReport) {
    metrics.epochs.inc();
    metrics.trained_cells.inc_by(n_cells);
    if report.elapsed_ms > 0 {
        let cells = n_cells as f64 * f64::from(report.epoch);
        metrics.cells_per_second.set(cells * 1000.0 / report.elapsed_ms as f64);
    }
}

/// Runs work that computes or reads files on a thread where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The panic has been printed. It is this task's: a reference may be made so that the next worker meets it as well.
        Err(error) => Err(Error::Panicked { detail: faults::panic_text(error) }),
    }
}
