//! Submissions: what is accepted, and what is refused without a trace.

use std::collections::BTreeMap;

use archipelago_common::{
    BlobRef, ConditionKey, Figure, Name, Principal, SiteId, VersionId, limits,
    policy::EmbeddingRelease,
    record::{AssignmentRecord, AssignmentState, Submission, SubmittedCondition, TaskRecord},
    task::{ConditionMetrics, PublishMode, SurgeryTask},
};

use crate::{
    Cluster, Edition, Outcome, Refusal, growth,
    mutation::{self, Rule},
    reference, site, task,
};

impl Cluster {
    /// Accepts a submission, or says why not. Everything is checked before anything changes.
    pub(crate) fn submit(&mut self, principal: &Principal, submission: &Submission) -> Result<Outcome, Refusal> {
        let site = self.require_site(principal)?;
        let record = self.require_task(submission.task)?;
        // Before any look at the task's state: an answer that was lost is given again after the close, too.
        if let Some(version) = accepted_before(record.assignments.get(site), submission) {
            return Ok(Outcome::Accepted { version });
        }
        let record = self.require_open(submission.task, site)?;
        let held = task::require_held(submission.task, site, record.assignments.get(site), submission.epoch)?.clone();
        if submission.version != record.task.version {
            return Err(Refusal::stale(format!(
                "version `{}` was trained against, but task {} maps onto `{}`",
                submission.version.0.short(),
                submission.task,
                record.task.version.0.short()
            )));
        }
        self.require_live(&record.task.reference, record.task.version)?;
        let layout = self.require_layout(&record.task.reference)?;
        reference::require_known(&layout, submission.conditions.keys())?;
        require_conditions(site, &record.task, submission)?;
        self.require_quality(&record.task.reference, submission)?;
        let columns: BTreeMap<_, _> = submission.conditions.iter().map(|(key, c)| (key.clone(), c.columns)).collect();
        self.require_mergeable(record, &columns)?;
        // The submission, and what it will change.
        let n_bytes = growth::bytes_of(submission) + growth::bytes_of(&columns);
        self.require_growth(n_bytes)?;
        let accepted = self.accept(site.clone(), held, submission.clone(), &columns)?;
        self.grew(n_bytes);
        Ok(accepted)
    }

    fn accept(
        &mut self,
        site: SiteId,
        held: AssignmentRecord,
        submission: Submission,
        columns: &BTreeMap<ConditionKey, BlobRef>,
    ) -> Result<Outcome, Refusal> {
        let id = submission.task;
        let (publish, reference) = {
            let task = &self.require_task(id)?.task;
            (task.publish, task.reference.clone())
        };
        let version = match publish {
            PublishMode::Each => Some(self.merge(&reference, id, columns)?),
            PublishMode::AtClose => None,
        };
        let state = AssignmentState::Accepted { submission, at_ms: self.now_ms, version };
        self.assign(id, &site, AssignmentRecord { state, ..held });
        Ok(Outcome::Accepted { version })
    }

    fn require_quality(&self, reference: &Name, submission: &Submission) -> Result<(), Refusal> {
        let (gates, layout) = (self.gates(submission.task), self.require_layout(reference)?);
        let figures = &layout.figures;
        for (key, condition) in &submission.conditions {
            condition.metrics.as_ref().map_or(Ok(()), |metrics| require_figures(key, figures, metrics))?;
        }
        let breach = |(key, c): (&ConditionKey, &SubmittedCondition)| {
            Some((key.clone(), gates.breach(c.metrics.as_ref(), figures)?))
        };
        // A gate looks at how well a condition was trained; a part was not trained.
        match submission.conditions.iter().filter(|(key, _)| !key.is_part()).find_map(breach) {
            None => Ok(()),
            Some((key, reason)) => Err(Refusal::invalid(format!("condition `{key}` is refused: {reason}"))),
        }
    }

    /// Refuses columns that could not be merged, now or when every task closes that has something waiting.
    fn require_mergeable(&self, task: &TaskRecord, new: &BTreeMap<ConditionKey, BlobRef>) -> Result<(), Refusal> {
        if mutation::is_broken(Rule::NoCollision) {
            return Ok(());
        }
        let name = &task.task.reference;
        let record = self.require_reference(name)?;
        for (key, submitted) in new {
            if record.waits(key).is_some_and(|columns| columns != *submitted) {
                return Err(collision(key, "waits to be merged"));
            }
            if record.columns().get(key).is_some_and(|columns| columns != submitted) {
                return Err(collision(key, "is present"));
            }
        }
        let n_conditions = record.columns().len() + record.waiting().len() + new.len();
        if n_conditions > limits::CONDITIONS {
            let limit = limits::CONDITIONS;
            let reason =
                format!("reference `{name}` would have {n_conditions} conditions, more than the limit of {limit}");
            return Err(Refusal::conflict(reason));
        }
        let n_merged = record.n_merged() + record.waiting().len() + new.len();
        if self.edition >= Edition::Second && n_merged > limits::MERGED_CONDITIONS {
            let limit = limits::MERGED_CONDITIONS;
            let reason = format!(
                "reference `{name}` has had {n_merged} conditions, withdrawn ones included, which is beyond {limit}"
            );
            return Err(Refusal::conflict(reason));
        }
        site::require_room("versions of the reference", record.changes().len(), limits::LINEAGE)
    }
}

/// The answer that the same submission got before, if it was accepted.
fn accepted_before(assignment: Option<&AssignmentRecord>, again: &Submission) -> Option<Option<VersionId>> {
    match &assignment?.state {
        AssignmentState::Accepted { submission, version, .. } if has_same_content(submission, again) => Some(*version),
        _ => None,
    }
}

/// Same epoch, version and digests. Metrics are not compared: training times differ between repetitions.
fn has_same_content(one: &Submission, other: &Submission) -> bool {
    let blobs = |c: &SubmittedCondition| (c.columns, c.embeddings);
    one.epoch == other.epoch
        && one.version == other.version
        && one.conditions.len() == other.conditions.len()
        && one.conditions.iter().zip(&other.conditions).all(|(a, b)| a.0 == b.0 && blobs(a.1) == blobs(b.1))
}

fn require_conditions(site: &SiteId, task: &SurgeryTask, submission: &Submission) -> Result<(), Refusal> {
    let (found, limit) = (submission.conditions.len(), limits::SUBMITTED_CONDITIONS);
    if found == 0 || found > limit {
        return Err(Refusal::invalid(format!("the submission has {found} conditions, expected 1 to {limit}")));
    }
    for (key, condition) in &submission.conditions {
        if key.owner() != site {
            let reason = format!("condition `{key}` is not in the namespace of site `{site}`");
            return Err(Refusal::forbidden(reason));
        }
        if !task.asks.is_for(key.section()) {
            let reason = format!("`{key}` belongs to {}, and the task asks for {} only", key.section(), task.asks);
            return Err(Refusal::invalid(reason));
        }
        require_blobs(key, task, condition)?;
        if let Some(metrics) = &condition.metrics {
            require_metrics(key, task, metrics)?;
        }
    }
    Ok(())
}

fn require_blobs(key: &ConditionKey, task: &SurgeryTask, condition: &SubmittedCondition) -> Result<(), Refusal> {
    let (found, limit) = (condition.columns.size, reference::size_limit(key));
    if found > limit {
        return Err(Refusal::invalid(format!("columns of `{key}` have {found} bytes, more than the limit of {limit}")));
    }
    if key.is_part() && (condition.embeddings.is_some() || condition.metrics.is_some()) {
        return Err(Refusal::invalid(format!("`{key}` is a part, and comes with embeddings or metrics")));
    }
    let Some(embeddings) = condition.embeddings else { return Ok(()) };
    if task.embeddings == EmbeddingRelease::None {
        return Err(Refusal::invalid(format!("condition `{key}` has embeddings, which the task does not ask for")));
    }
    if embeddings.size > limits::BLOB_BYTES {
        let (found, limit) = (embeddings.size, limits::BLOB_BYTES);
        return Err(Refusal::invalid(format!("embeddings of `{key}` have {found} bytes, more than {limit}")));
    }
    Ok(())
}

/// Metrics are a site's to give; where it gives them, they must make sense and meet the task's minimum of cells.
/// Where it keeps them, its worker has held to the minimum.
fn require_metrics(key: &ConditionKey, task: &SurgeryTask, metrics: &ConditionMetrics) -> Result<(), Refusal> {
    if metrics.n_cells < task.min_cells {
        let (found, least) = (metrics.n_cells, task.min_cells);
        return Err(Refusal::invalid(format!("condition `{key}` has {found} cells, expected at least {least}")));
    }
    if !(0.0..=1.0).contains(&metrics.gene_coverage) {
        let found = metrics.gene_coverage;
        return Err(Refusal::invalid(format!("gene coverage of `{key}` is {found}, expected a share of 0 to 1")));
    }
    if !metrics.figures.values().all(|value| value.is_finite()) {
        return Err(Refusal::invalid(format!("a metric of condition `{key}` is NaN or infinite")));
    }
    Ok(())
}

/// A figure that the reference does not list could carry anything.
fn require_figures(key: &ConditionKey, known: &[Figure], metrics: &ConditionMetrics) -> Result<(), Refusal> {
    match metrics.figures.keys().find(|name| !known.iter().any(|figure| figure.name == **name)) {
        None => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(64).collect();
            Err(Refusal::invalid(format!(
                "condition `{key}` comes with `{name}`, which the reference's model does not report"
            )))
        }
    }
}

fn collision(key: &ConditionKey, how: &str) -> Refusal {
    Refusal::conflict(format!("condition `{key}` {how} with other columns; withdraw it first"))
}
