//! One surgery task from claim to acceptance: fetch, load, train, gate, keep, hand in.
//!
//! Heavy work runs on a blocking thread; beside it the lease is renewed with every word of progress. A lease that lapsed
//! meanwhile is claimed again: the columns do not depend on the epoch under which they were trained.

mod checks;
mod of_tree;
mod prepare;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use archipelago_client::ClientError;
use archipelago_common::{
    Section, StateDict,
    condition::{Columns, ConditionKey},
    fs,
    id::VersionId,
    layout::Growth,
    part::Member,
    progress::{Continue, EpochReport},
    record::{Progress, TaskHead},
};
use archipelago_models::surgery::JointSurgery;
use archipelago_protocol::message::Refusal;
use tokio::{sync::watch, time::Instant};

use self::{of_tree::OfTree, prepare::Prepared};
use crate::{
    audit::AuditTrail,
    consent::Decision,
    data::SiteData,
    egress::{
        ContributingCells, Gate, Latent, Lease, MappedCells, Released, ReleasedCondition, ReleasedPart,
        TrainedCondition,
    },
    error::{Error, Result},
    faults,
    holding::Holding,
    lease,
    ledger::CellSet,
    local,
    mapping::{self, OBSM_KEY, QueryGroup, Rules},
    ops::Metrics,
    results,
    session::{Site, in_contact},
    shared_tree::Wanted,
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

/// What came of a data set.
struct Mapped {
    prepared: Arc<Prepared>,
    surgeries: Vec<JointSurgery>,
    latents: Vec<Latent>,
    of_tree: OfTree,
    /// Parts of it that stay, and why.
    withheld: BTreeMap<ConditionKey, String>,
}

/// What is handed in of all data sets, together and once.
#[derive(Default)]
struct HandedIn {
    conditions: BTreeMap<ConditionKey, ReleasedCondition>,
    parts: BTreeMap<ConditionKey, Released<Member>>,
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
        let all = self.prepare().await?;
        let trained = self.train(&all).await?;
        let (mut handed_in, mut mapped) = (HandedIn::default(), Vec::new());
        for (prepared, surgeries) in all.into_iter().zip(trained) {
            mapped.push(self.release(prepared, surgeries, &mut handed_in).await?);
        }
        require_something(&handed_in, &mapped)?;
        for of_data in &mut mapped {
            self.keep(of_data).await?;
        }
        let version = self.submit(&handed_in).await?;
        for Mapped { prepared, .. } in &mapped {
            TaskSummary::mark_accepted(&self.out_dir(&prepared.holding)?, version)?;
        }
        Ok(version)
    }

    /// Trains on each data set in turn.
    async fn train(&mut self, all: &[Arc<Prepared>]) -> Result<Vec<Vec<JointSurgery>>> {
        let mut planned = 0;
        for prepared in all {
            for group in &prepared.groups {
                planned += u64::from(prepared.surgeon().n_epochs(group.cells.len())?);
            }
        }
        self.progress.send_modify(|progress| progress.epochs_planned = planned);
        let mut trained = Vec::with_capacity(all.len());
        for prepared in all.iter().cloned() {
            let (progress, cancelled) = (self.progress.clone(), self.cancelled.clone());
            let metrics = self.site.metrics.clone();
            let task = self.record.id;
            let surgeries = self.beside_renewals(blocking(move || {
                prepared.surgeon().map_all(&prepared.groups, &|group, report| {
                    count_epoch(&metrics, group.n_cells(), report);
                    progress.send_modify(|progress| progress.epochs_done += 1);
                    tracing::debug!(%task, conditions = group.name(), epoch = report.epoch, loss = report.loss, "epoch");
                    if cancelled.load(Ordering::Relaxed) { Continue::No } else { Continue::Yes }
                })
            }));
            trained.push(surgeries.await?);
        }
        Ok(trained)
    }

    /// Lets out what may leave of a data set, and keeps the rest for the site.
    async fn release(
        &mut self,
        prepared: Arc<Prepared>,
        surgeries: Vec<JointSurgery>,
        handed_in: &mut HandedIn,
    ) -> Result<Mapped> {
        let columns = match self.record.task.asks.for_columns() {
            true => self.release_columns(&prepared, &surgeries)?,
            false => Vec::new(),
        };
        let latents = self.embed(prepared.clone(), &columns, &surgeries).await?;
        let (latents, of_tree) = self.ask_tree(prepared.clone(), latents).await?;
        handed_in.conditions.extend(self.release_conditions(&prepared, &surgeries, columns, &latents)?);
        let Parts { members, withheld } = self.release_parts(&prepared, &surgeries, &of_tree)?;
        handed_in.parts.extend(members);
        Ok(Mapped { prepared, surgeries, latents, of_tree, withheld })
    }

    /// Writes what stays at the site.
    async fn keep(&mut self, mapped: &mut Mapped) -> Result<()> {
        let dir = self.out_dir(&mapped.prepared.holding)?;
        self.keep_cells(&dir, mapped).await?;
        let of_group = |(group, surgery): (_, &'_ JointSurgery)| local_of(group, surgery);
        let kept: Vec<_> = mapped.prepared.groups.iter().zip(&mapped.surgeries).flat_map(of_group).collect();
        local::write(&dir, kept.iter().map(|(key, local)| (key, local)))?;
        self.keep_summary(&dir, mapped)
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
            for (key, cells) in group.cells_of_keys(&prepared.onto.layout) {
                let set = cell_set(&self.site.gate, &prepared.data, group, &cells);
                let columns = self.site.gate.release_columns(&TrainedCondition {
                    task: self.record.id,
                    key: &key,
                    columns: &surgery.columns[&key],
                    layout: &prepared.onto.layout,
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
        let asks = self.record.task.asks;
        self.beside_renewals(blocking(move || {
            let wanted = Wanted { asks, sharing: prepared.sharing(), merged: &prepared.onto.merged };
            let of_tree = |parts| OfTree::new(parts, &prepared, &latents, &wanted);
            let of_tree = prepared.onto.tree.as_ref().map(of_tree).transpose()?;
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
            let mut metrics = mapping::metrics(&prepared.onto.base.card, group, surgery, prepared.gene_coverage);
            let cells = group.cells_of_keys(&prepared.onto.layout);
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
            let cells_of_keys = group.cells_of_keys(&prepared.onto.layout);
            let of_group: Vec<usize> = (0..group.cells.len()).collect();
            let of_tree = of_tree.contributions.get(place).into_iter().flatten().map(|(key, one)| (key.clone(), one));
            for (key, contribution) in of_model.chain(of_tree).filter(|(key, _)| asks.is_for(key.section())) {
                let (task, donors, layout) = (self.record.id, group.annotations.donors(), &prepared.onto.layout);
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

    async fn keep_cells(&mut self, dir: &Path, mapped: &mut Mapped) -> Result<()> {
        let path = dir.join("mapped.h5ad");
        let (prepared, latents) = (mapped.prepared.clone(), std::mem::take(&mut mapped.latents));
        let placed = mapped.of_tree.placed.take();
        let write = move || {
            let positions = [(OBSM_KEY, latents)];
            let found = mapping::Found { positions: &positions, placed: placed.as_deref(), names: &prepared.names };
            let by = (Rules::Exact, &prepared.onto.base_digest);
            mapping::write_mapped(&path, &prepared.data, &prepared.groups, &found, by)
        };
        self.beside_renewals(blocking(write)).await
    }

    async fn submit(&mut self, HandedIn { conditions, parts }: &HandedIn) -> Result<Option<VersionId>> {
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

    fn keep_summary(&self, dir: &Path, mapped: &Mapped) -> Result<()> {
        let Mapped { prepared, surgeries, withheld: of_parts, .. } = mapped;
        let each = || prepared.groups.iter().zip(surgeries);
        let card = &prepared.onto.base.card;
        let metrics = |(group, surgery)| mapping::metrics(card, group, surgery, prepared.gene_coverage);
        let trail = AuditTrail::read(&self.site.config.audit_path())?;
        let left = trail.bytes_of_task(self.record.id, &prepared.holding.dataset);
        // What stays here has the names.
        let at_home = |key: &ConditionKey| prepared.names.or_key(key);
        let history = each().map(|(group, surgery)| (group.name_at_home(&prepared.names), surgery.history.clone()));
        results::write_history(dir, &history.collect())?;
        let summary = TaskSummary {
            task: self.record.id,
            reference: self.record.task.reference.clone(),
            parent: self.record.task.version,
            accepted: false,
            version: None,
            conditions: each().flat_map(metrics).map(|(key, metrics)| (at_home(&key), metrics)).collect(),
            withheld: prepared.withheld.iter().chain(of_parts).map(|(key, why)| (at_home(key), why.clone())).collect(),
            n_genes_found: prepared.n_genes_found,
            n_genes_panel: card.genes.len(),
            bytes_out: left.into_iter().map(|(kind, bytes)| (kind.to_owned(), bytes)).collect(),
            bytes_kept: prepared.data.file_bytes()?,
            seconds: self.started.elapsed().as_secs_f64(),
        };
        summary.write(dir)
    }

    fn out_dir(&self, holding: &Holding) -> Result<PathBuf> {
        let dir = self.site.config.results_dir(self.record.id, &holding.dataset);
        fs::create_dir(&dir)?;
        Ok(dir)
    }
}

impl Drop for SurgeryTask<'_> {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Refuses to hand in nothing: no parts where nothing else is asked for or to be had.
fn require_something(handed_in: &HandedIn, mapped: &[Mapped]) -> Result<()> {
    let trains = mapped.iter().any(|one| one.prepared.onto.layout.growth == Growth::Surgery);
    if !handed_in.parts.is_empty() || (!handed_in.conditions.is_empty() && trains) {
        return Ok(());
    }
    let (key, reason) = match mapped.iter().find_map(|one| one.withheld.first_key_value()) {
        Some((key, reason)) => (key.clone(), reason.clone()),
        None => {
            let key = mapped[0].prepared.groups[0].conditions.keys()[0].clone();
            (key, "its cells contribute to no part".to_owned())
        }
    };
    Err(Error::Withheld { key: Box::new(key), reason })
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
