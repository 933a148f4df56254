//! The one door out. Every byte that leaves a site was released here, under the site's own policy.
//!
//! [`Gate`] turns an [`Outbound`] value into a [`Released`] one: it checks the policy, clips and adds noise, and writes the
//! audit record to disk. [`Uplink`] holds the connection and takes released values only, so nothing can reach the network
//! around the gate: `Released` has no other constructor, and `Outbound` is sealed. A site that is not in yet has a line of its own,
//! [`enrolment::Invited`], which takes a signing request and nothing else.

pub mod enrolment;
pub mod outbound;
pub mod uplink;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use archipelago_common::{
    blob::BlobRef,
    check,
    condition::{Columns, ConditionKey},
    hash::Digest,
    id::{Name, SiteId, TaskId},
    layout::{Axis, Layout, TensorKind},
    part::{Contribution, Member},
    policy::{Budget, EmbeddingRelease, PartRelease, SitePolicy},
    record::Progress,
    state_dict::{DType, StateDict, Tensor},
    task::{Asks, ConditionMetrics},
    tree,
};

pub use self::{
    outbound::{Embeddings, LabelMean, Latent, Outbound},
    uplink::{Lease, ReleasedCondition, Uplink},
};

use crate::{
    audit::{AuditLog, Kind, Release},
    bounds::{self, Bound},
    error::{Error, Result},
    ledger::{self, CellSet, Ledger, Spending},
    ops::Metrics,
    privacy::Loss,
    secret::SiteSecret,
};

/// A value that the gate let out. Its audit record is on disk.
#[derive(Debug)]
pub struct Released<T> {
    value: T,
    bytes: Vec<u8>,
    blob: BlobRef,
}

impl<T> Released<T> {
    /// The value as it leaves: after clipping and noise.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Digest and size of its bytes.
    pub fn blob(&self) -> BlobRef {
        self.blob
    }
}

/// A condition that was trained, before it is known whether it may leave.
#[derive(Debug)]
pub struct TrainedCondition<'a> {
    /// The task it was trained for.
    pub task: TaskId,
    /// Its key.
    pub key: &'a ConditionKey,
    /// Its columns.
    pub columns: &'a Columns,
    /// What the reference's keys own: what is clipped, noised and left alone.
    pub layout: &'a Layout,
    /// Cells it was trained on.
    pub cells: CellSet,
    /// Donors of these cells, where the data names them.
    pub n_donors: Option<u64>,
    /// Digest of the frozen part before training.
    pub frozen_before: Digest,
    /// Digest of the frozen part after training.
    pub frozen_after: Digest,
}

/// The cells of a condition in the latent space, with what the policy asks about them.
#[derive(Debug)]
pub struct MappedCells<'a> {
    /// The task they were mapped for.
    pub task: TaskId,
    /// Their condition.
    pub key: &'a ConditionKey,
    /// Who they are.
    pub cells: CellSet,
    /// Their positions.
    pub latent: &'a Latent,
    /// Label of each cell, where the data has labels.
    pub labels: Option<&'a [Option<String>]>,
    /// Donor of each cell, where the data names donors.
    pub donors: Option<&'a [Option<String>]>,
    /// Whether the places are made of something that tells people apart as a name does, such as receptors: cells of one clone lie
    /// together, so that no single place leaves, whatever the policy says of embeddings.
    pub is_identifying: bool,
}

/// What cells contribute to a part, with what the policy asks about them.
#[derive(Clone, Copy, Debug)]
pub struct ContributingCells<'a> {
    /// The task it is for.
    pub task: TaskId,
    /// The key under which it will stand: that of the cells' condition, in the part's section.
    pub key: &'a ConditionKey,
    /// Who the condition's cells are.
    pub cells: CellSet,
    /// The contribution.
    pub contribution: &'a Contribution,
    /// Donor of each cell, where the data names donors.
    pub donors: Option<&'a [Option<String>]>,
    /// What the reference takes.
    pub layout: &'a Layout,
}

/// What of a contribution to a part leaves.
#[derive(Debug)]
pub struct ReleasedPart {
    /// What leaves, if something does.
    pub member: Option<Released<Member>>,
    /// What stays at home, and why.
    pub withheld: Option<String>,
}

/// What may leave of each of a site's data sets.
#[derive(Clone, Debug)]
pub struct Policies {
    of_site: SitePolicy,
    of_data: BTreeMap<Name, SitePolicy>,
}

impl Policies {
    /// The policies of data sets, and the site's own for what is of none of them.
    pub fn new(of_site: SitePolicy, of_data: BTreeMap<Name, SitePolicy>) -> Self {
        Self { of_site, of_data }
    }

    fn of(&self, dataset: &Name) -> &SitePolicy {
        self.of_data.get(dataset).unwrap_or(&self.of_site)
    }
}

impl From<SitePolicy> for Policies {
    fn from(of_site: SitePolicy) -> Self {
        Self { of_site, of_data: BTreeMap::new() }
    }
}

/// Applies a site's policies and writes its audit log.
#[derive(Debug)]
pub struct Gate {
    site: SiteId,
    policies: Policies,
    secret: SiteSecret,
    audit: AuditLog,
    ledger: Ledger,
    metrics: Arc<Metrics>,
}

impl Gate {
    /// A gate for one site. `secret` keys the noise that the policy may ask for.
    pub fn new(
        site: SiteId,
        policies: impl Into<Policies>,
        secret: SiteSecret,
        (audit, ledger): (AuditLog, Ledger),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { site, policies: policies.into(), secret, audit, ledger, metrics }
    }

    /// A set of cells as the ledger knows it.
    pub fn cell_set<'a>(&self, names: impl Iterator<Item = &'a str>) -> CellSet {
        self.secret.cell_set(names)
    }

    /// The policy that holds for a key's cells: its data set's.
    fn policy_of(&self, key: &ConditionKey) -> &SitePolicy {
        self.policies.of(key.dataset())
    }

    /// Where a key's columns begin whose policy hides it: moved from these by noise that the site's secret keys.
    pub fn hidden_start(&self, key: &ConditionKey, from: &Columns) -> Columns {
        let mut noise = self.secret.normal(key, from, self.policy_of(key).tasks.start_std);
        let moved = |(name, tensor): (&str, &Tensor)| match tensor.dtype() {
            DType::F32 => {
                let values: Vec<f32> = tensor.numbers().map(|value| (value + noise.next()) as f32).collect();
                (name.to_owned(), Tensor::from_f32(tensor.shape(), &values))
            }
            _ => (name.to_owned(), tensor.clone()),
        };
        Columns(from.0.iter().map(moved).collect())
    }

    /// Lets the columns of a condition out, clipped and with noise as the policy says; facts as they are, or not at all.
    ///
    /// # Errors  [`Error::Withheld`] where the policy keeps them, [`Error::FrozenMoved`] where training changed more than
    /// columns, [`Error::File`] where the audit record cannot be written
    pub fn release_columns(&mut self, trained: &TrainedCondition<'_>) -> Result<Released<Columns>> {
        let (before, after) = (trained.frozen_before, trained.frozen_after);
        if before != after {
            let change = format!("was {before} and is {after}");
            return Err(Error::FrozenMoved { key: Box::new(trained.key.clone()), change });
        }
        self.check_condition(trained)?;
        let columns = self.protected(trained)?;
        let loss = Loss::of(self.policy_of(trained.key), axis_of(trained)?);
        self.release_counted((trained.task, trained.key), trained.cells, columns, loss)
    }

    /// Lets embeddings out, the lesser of what the task asks and the policy allows; `None` where that is nothing, or more than the
    /// budget has left. Of cells whose places identify people, means of enough cells at most.
    ///
    /// # Errors  [`Error::File`] where the audit record cannot be written
    pub fn release_embeddings(
        &mut self,
        asked: EmbeddingRelease,
        cells: &MappedCells<'_>,
    ) -> Result<Option<Released<Embeddings>>> {
        let policy = self.policy_of(cells.key);
        let allowed = match cells.is_identifying {
            // Means of as many cells and donors as a condition needs to leave at all.
            true => policy
                .embeddings
                .at_most(EmbeddingRelease::LabelMeans { min_cells: policy.min_cells, min_donors: policy.min_donors }),
            false => policy.embeddings,
        };
        let embeddings = match asked.at_most(allowed) {
            EmbeddingRelease::None => return Ok(None),
            EmbeddingRelease::Full if cells.latent.n_latent as u64 > policy.tasks.max_embedding_dims => {
                let (found, most) = (cells.latent.n_latent, policy.tasks.max_embedding_dims);
                tracing::warn!(key = %cells.key, found, most, "embeddings have more dimensions than the policy lets out");
                return Ok(None);
            }
            EmbeddingRelease::Full => Embeddings::Cells(cells.latent.sorted()),
            EmbeddingRelease::LabelMeans { min_cells, min_donors } => {
                let Some(labels) = cells.labels else { return Ok(None) };
                let means = LabelMean::of_labels(cells.latent, labels, cells.donors, min_cells, min_donors);
                if means.is_empty() {
                    return Ok(None);
                }
                Embeddings::LabelMeans(means)
            }
        };
        match self.release_counted((cells.task, cells.key), cells.cells, embeddings, None) {
            Err(Error::Declined { detail, .. }) => {
                tracing::warn!(key = %cells.key, detail, "embeddings stay at home");
                Ok(None)
            }
            released => released.map(Some),
        }
    }

    /// Lets what a condition's cells contribute to a part out. Entries made of too few cells or donors are left out. The rest
    /// leaves as it is: a sum with noise is another sum, so a site that cannot have that keeps its parts.
    ///
    /// # Errors  [`Error::Withheld`] for what the reference does not take; [`Error::File`] where the audit record cannot be written
    pub fn release_part(&mut self, cells: &ContributingCells<'_>) -> Result<ReleasedPart> {
        let policy = self.policy_of(cells.key);
        let Some(PartRelease { min_cells, min_donors }) = policy.parts else {
            return Ok(ReleasedPart { member: None, withheld: Some(NO_PARTS.to_owned()) });
        };
        let ContributingCells { task, key, cells, contribution, donors, layout } = *cells;
        if contribution.part.as_str() == tree::POINTS && policy.embeddings != EmbeddingRelease::Full {
            return Ok(ReleasedPart { member: None, withheld: Some(NO_POSITIONS.to_owned()) });
        }
        let mut left_out = Vec::new();
        let mut is_enough = |entry: &str| {
            let of_entry = contribution.cells.get(entry).map(Vec::as_slice).unwrap_or_default();
            let of_cells = |donors: &[Option<String>]| {
                of_entry.iter().filter_map(|&cell| donors[cell].as_deref()).collect::<BTreeSet<_>>().len() as u64
            };
            let enough = enough("cells", Some(of_entry.len() as u64), min_cells)
                .and_then(|()| enough("donors", donors.map(of_cells), min_donors));
            let Err(reason) = enough else { return true };
            left_out.push(if entry.is_empty() { reason } else { format!("`{entry}`: {reason}") });
            false
        };
        let member = match contribution.value.clone() {
            Member::Tensors(tensors) => is_enough("")
                .then(|| {
                    // A tensor that some of the cells made stays or leaves by itself.
                    let is_of_some = |name: &str| !name.is_empty() && contribution.cells.contains_key(name);
                    let n_before = tensors.iter().filter(|(name, _)| is_of_some(name)).count();
                    let kept = tensors.iter().filter(|(name, _)| !is_of_some(name) || is_enough(name));
                    let kept: StateDict = kept.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
                    let n_left = kept.iter().filter(|(name, _)| is_of_some(name)).count();
                    (n_before == 0 || n_left > 0).then_some(Member::Tensors(kept))
                })
                .flatten(),
            Member::Sums(pool) => {
                let kept = pool.retain(&mut is_enough);
                let is_empty = kept.entries().len() == 0;
                (!is_empty).then_some(Member::Sums(kept))
            }
        };
        let withheld = (!left_out.is_empty()).then(|| left_out.join("; "));
        let Some(member) = member else { return Ok(ReleasedPart { member: None, withheld }) };
        check::part(key, &member.to_bytes(), layout)
            .map_err(|error| Error::Withheld { key: Box::new(key.clone()), reason: error.to_string() })?;
        Ok(ReleasedPart { member: Some(self.release_counted((task, key), cells, member, None)?), withheld })
    }

    /// Lets aggregate figures of a condition out, rounded; `None` where the policy keeps them. `least` is the number of cells that the
    /// task asks for.
    ///
    /// # Errors  [`Error::File`] where the audit record cannot be written
    pub fn release_metrics(
        &mut self,
        task: TaskId,
        key: &ConditionKey,
        metrics: ConditionMetrics,
        least: u64,
    ) -> Result<Option<Released<ConditionMetrics>>> {
        if !self.policy_of(key).metrics {
            return Ok(None);
        }
        self.release(task, Some(key), metrics.rounded(least)).map(Some)
    }

    /// Lets progress out: epochs, and never a loss, which step by step tells more of cells than the figures at the end.
    ///
    /// # Errors  [`Error::File`] where the audit record cannot be written
    pub fn release_progress(&mut self, task: TaskId, progress: Progress) -> Result<Released<Progress>> {
        self.release(task, None, Progress { loss: None, ..progress })
    }

    /// Notes what a person said of a task, before it is acted on: which offer, and the word that goes to the coordinators.
    ///
    /// # Errors  [`Error::File`]: then nothing may be sent
    pub fn note_decision(&mut self, task: TaskId, offer: Digest, word: &str) -> Result<()> {
        self.audit.append(Release {
            kind: Kind::Decision,
            site: self.site.clone(),
            task,
            condition: None,
            digest: offer,
            size: word.len() as u64,
            policy: digest_of(&self.policies.of_site),
        })
    }

    /// Whether something of a condition of this size could leave at all. Asked before training, so that none is trained in vain.
    ///
    /// # Errors  [`Error::Withheld`]
    pub fn check_size(&self, key: &ConditionKey, asks: Asks, n_cells: u64, n_donors: Option<u64>) -> Result<()> {
        let policy = self.policy_of(key);
        let enough = match obstacle(policy, asks) {
            Some(reason) => Err(reason.to_owned()),
            None => enough("cells", Some(n_cells), policy.min_cells)
                .and_then(|()| enough("donors", n_donors, policy.min_donors)),
        };
        enough.map_err(|reason| Error::Withheld { key: Box::new(key.clone()), reason })
    }

    /// Whether the columns of a key of an axis may leave, by the numbers that the policy allows for its cells in this task and in all.
    /// Asked before training, as [`Self::check_size`] is.
    ///
    /// # Errors  [`Error::Declined`]
    pub fn check_numbers(&self, task: TaskId, key: &ConditionKey, axis: &Axis, cells: CellSet) -> Result<()> {
        bounds::check_numbers(&self.policy_of(key).tasks, axis, cells.n_cells)?;
        // What has left once for this task is the same bytes again.
        if self.ledger.spent().has(Kind::Columns, task, key) {
            return Ok(());
        }
        self.check_budget(&self.spending(task, (key, axis), cells))
    }

    /// Whether the columns of these keys may leave together, by the differential privacy that the policy has left for the data set.
    /// Asked before training.
    ///
    /// # Errors  [`Error::Declined`]
    pub fn check_epsilon<'a>(
        &self,
        task: TaskId,
        keys: impl Iterator<Item = (&'a ConditionKey, &'a Axis, CellSet)>,
    ) -> Result<()> {
        let is_new = |(key, ..): &(&ConditionKey, _, _)| !self.ledger.spent().has(Kind::Columns, task, key);
        let next: Vec<_> =
            keys.filter(is_new).map(|(key, axis, cells)| self.spending(task, (key, axis), cells)).collect();
        self.check_composed(&next)
    }

    /// Columns that are not there yet, as the ledger will know them.
    fn spending(&self, task: TaskId, (key, axis): (&ConditionKey, &Axis), cells: CellSet) -> Spending {
        Spending {
            kind: Kind::Columns,
            task,
            condition: key.clone(),
            cells: cells.digest,
            n_cells: cells.n_cells,
            numbers: bounds::numbers(axis),
            digest: Digest::of(b""),
            loss: Loss::of(self.policy_of(key), axis),
        }
    }

    fn check_budget(&self, spending: &Spending) -> Result<()> {
        let budget = &self.policy_of(&spending.condition).budget;
        let Some(most) = ledger::allowed(budget, spending.kind) else { return Ok(()) };
        let (found, most) = (self.ledger.spent().with(spending), most * spending.n_cells as f64);
        if found as f64 <= most {
            return Ok(());
        }
        let (key, kind) = (&spending.condition, spending.kind.name());
        let detail = format!("with this, {found} numbers of {kind} would have left of the cells of `{key}`, of {most}");
        Err(Error::Declined { bound: Bound::Budget, detail })
    }

    fn check_composed(&self, next: &[Spending]) -> Result<()> {
        let Some(first) = next.first() else { return Ok(()) };
        let Budget { epsilon: most, delta, .. } = self.policy_of(&first.condition).budget;
        if most.is_infinite() {
            return Ok(());
        }
        let (dataset, spent) = (first.condition.dataset(), self.ledger.spent());
        let found = spent.composed(dataset, next).epsilon(delta);
        if found.is_some_and(|found| found <= most) {
            return Ok(());
        }
        let detail = match (found, spent.without_noise(dataset)) {
            (Some(found), _) => format!(
                "with this, the columns of `{dataset}` would have left with an epsilon of {found:.3} (delta {delta}), of {most}"
            ),
            (None, Some(Spending { condition, task, .. })) => format!(
                "columns of `{condition}` left without noise for task {task}: no epsilon is kept for `{dataset}` any more"
            ),
            (None, None) => {
                format!("cells of `{dataset}` left without noise under another name: no epsilon is kept for them")
            }
        };
        Err(Error::Declined { bound: Bound::Budget, detail })
    }

    fn check_condition(&self, trained: &TrainedCondition<'_>) -> Result<()> {
        self.check_size(trained.key, Asks::Columns, trained.cells.n_cells, trained.n_donors)?;
        let axis = axis_of(trained)?;
        if let Some(fact) = axis.of_kind(TensorKind::Fact).next().filter(|_| !self.policy_of(trained.key).facts) {
            let reason = format!("`{fact}` is a fact about its cells, and the policy lets no facts out");
            return Err(Error::Withheld { key: Box::new(trained.key.clone()), reason });
        }
        if let Some(fact) = check::not_a_fact(trained.columns, axis) {
            let reason = format!("`{fact}` is neither 0 nor 1, and is no fact");
            return Err(Error::Withheld { key: Box::new(trained.key.clone()), reason });
        }
        let policy = self.policy_of(trained.key);
        for kind in [TensorKind::Trained, TensorKind::Statistic] {
            let (norm, most) = (check::norm(trained.columns, axis, kind), policy.tasks.max_column_norm);
            if !norm.is_finite() {
                return Err(Error::Diverged { key: trained.key.clone() });
            }
            if norm > most && policy.clip_norm.is_none() {
                let detail = format!("columns of `{}` have a norm of {norm:.3}, the policy allows {most}", trained.key);
                return Err(Error::Declined { bound: Bound::Norm, detail });
            }
        }
        Ok(())
    }

    // Clipping first: it bounds what one cell can change, and the noise is sized for that bound. What is trained and what
    // is computed from cells are clipped each by its own norm, so that neither shrinks for the other's size.
    fn protected(&self, trained: &TrainedCondition<'_>) -> Result<Columns> {
        let (axis, policy) = (axis_of(trained)?, self.policy_of(trained.key));
        let scale_of = |kind| {
            let norm = check::norm(trained.columns, axis, kind);
            match policy.clip_norm {
                Some(bound) if norm > bound => bound / norm,
                _ => 1.0,
            }
        };
        let (for_trained, for_statistic) = (scale_of(TensorKind::Trained), scale_of(TensorKind::Statistic));
        if for_trained == 1.0 && for_statistic == 1.0 && policy.noise_std == 0.0 {
            return Ok(trained.columns.clone());
        }
        let mut noise = self.secret.normal(trained.key, trained.columns, policy.noise_std);
        let mut protected = StateDict::new();
        for (name, tensor) in trained.columns.0.iter() {
            let scale = match axis.kind(name) {
                TensorKind::Trained => for_trained,
                TensorKind::Statistic => for_statistic,
                // A fact that is moved by ever so little is another fact.
                TensorKind::Fact => {
                    protected.insert(name, tensor.clone());
                    continue;
                }
            };
            let values = tensor.numbers().map(|value| value * scale + noise.next());
            let moved = match tensor.dtype() {
                DType::F32 => Tensor::from_f32(tensor.shape(), &values.map(|value| value as f32).collect::<Vec<_>>()),
                DType::F64 => {
                    let bytes = values.flat_map(f64::to_le_bytes).collect();
                    Tensor::new(name, DType::F64, tensor.shape().to_vec(), bytes)?
                }
                DType::I64 | DType::I32 | DType::U8 | DType::Bool => {
                    let reason = format!("`{name}` holds whole numbers, which can be neither clipped nor given noise");
                    return Err(Error::Withheld { key: Box::new(trained.key.clone()), reason });
                }
            };
            protected.insert(name, moved);
        }
        Ok(Columns(protected))
    }

    // What is told of cells is in the ledger before it is in the audit log.
    fn release_counted<T: Outbound>(
        &mut self,
        (task, key): (TaskId, &ConditionKey),
        cells: CellSet,
        value: T,
        loss: Option<Loss>,
    ) -> Result<Released<T>> {
        let spending = Spending {
            kind: value.kind(),
            task,
            condition: key.clone(),
            cells: cells.digest,
            n_cells: cells.n_cells,
            numbers: value.numbers(),
            digest: Digest::of(&value.to_wire()),
            loss,
        };
        self.check_budget(&spending)?;
        if spending.kind == Kind::Columns {
            self.check_composed(std::slice::from_ref(&spending))?;
        }
        self.ledger.note(spending)?;
        self.release(task, Some(key), value)
    }

    // The record is on disk before the released value exists.
    fn release<T: Outbound>(&mut self, task: TaskId, key: Option<&ConditionKey>, value: T) -> Result<Released<T>> {
        let bytes = value.to_wire();
        let blob = BlobRef::of(&bytes);
        self.audit.append(Release {
            kind: value.kind(),
            site: self.site.clone(),
            task,
            condition: key.cloned(),
            digest: blob.digest,
            size: blob.size,
            policy: digest_of(key.map_or(&self.policies.of_site, |key| self.policy_of(key))),
        })?;
        self.metrics.count_released(value.kind(), blob.size);
        Ok(Released { value, bytes, blob })
    }
}

/// Whether a policy keeps all that a task asks for, whatever its cells are.
pub fn obstacle(policy: &SitePolicy, asks: Asks) -> Option<&'static str> {
    match asks {
        Asks::Both | Asks::Columns if !policy.columns => Some("the policy lets no columns out"),
        Asks::Parts | Asks::Annotations if policy.parts.is_none() => Some(NO_PARTS),
        _ => None,
    }
}

fn digest_of(policy: &SitePolicy) -> Digest {
    Digest::of(&serde_json::to_vec(policy).expect("a policy is JSON"))
}

/// Refuses what is made of too few cells or donors, with the reason.
fn enough(what: &str, found: Option<u64>, least: u64) -> Result<(), String> {
    match found {
        _ if least == 0 => Ok(()),
        Some(found) if found >= least => Ok(()),
        Some(found) => Err(format!("it has {found} {what}, the policy asks for {least}")),
        None => Err(format!("its {what} are not known, the policy asks for {least}")),
    }
}

/// Why a site without a word on parts in its policy hands in none.
const NO_PARTS: &str = "the policy lets no parts out";
/// Why a site whose policy keeps embeddings hands in no cells for a tree.
const NO_POSITIONS: &str = "the policy lets no positions of cells out (`embeddings = \"full\"`)";

/// What the keys of a condition's axis own.
fn axis_of<'a>(trained: &TrainedCondition<'a>) -> Result<&'a Axis> {
    let section = trained.key.section();
    trained.layout.axis(section).ok_or_else(|| {
        let reason = format!("the reference does not grow along {section}");
        Error::Withheld { key: Box::new(trained.key.clone()), reason }
    })
}

#[cfg(test)]
mod tests;
