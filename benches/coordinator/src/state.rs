//! The largest state that the limits allow: one reference of 16,384 changes and 65,533 conditions, by 1,000 sites. Making it takes
//! minutes where restoring it takes seconds: the id of every version is a digest of all that is in it.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Result, anyhow, ensure};
use archipelago_cluster::{Body, Cluster, Command, Outcome};
use archipelago_common::{
    BlobRef, ConditionKey, DType, TaskId, Version, VersionId, limits,
    record::{BaseSummary, Submission, SubmittedCondition},
    state_dict::TensorSpec,
    task::{SurgeryTask, TrainSpec},
};

use crate::{
    Setting,
    table::{Goal, Table, say},
};

const PART: &str = "state";

pub(crate) fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let n_versions = limits::LINEAGE / usize::try_from(setting.scale_down)?;
    say(&format!("state: one reference of {n_versions} versions"));
    measure_of(n_versions, table)
}

fn measure_of(n_versions: usize, table: &mut Table) -> Result<()> {
    let begun = Instant::now();
    let scene = Scene::of(n_versions)?;
    let built_s = begun.elapsed().as_secs_f64();
    let reference = scene.cluster.reference(&NAME.parse()?).ok_or_else(|| anyhow!("no reference"))?;
    ensure!(reference.changes().len() == n_versions, "{} versions", reference.changes().len());
    ensure!(reference.columns().len() == 1 + CONDITIONS_EACH * (n_versions - 1), "{}", reference.columns().len());
    let begun = Instant::now();
    let snapshot = scene.cluster.snapshot()?;
    let written_s = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let restored = Cluster::restore(&snapshot)?;
    let read_s = begun.elapsed().as_secs_f64();
    ensure!(restored == scene.cluster, "the restored state is another");
    let begun = Instant::now();
    let middle = reference.version(reference.changes()[n_versions / 2].version);
    let found_s = begun.elapsed().as_secs_f64();
    ensure!(middle.is_some_and(|version| version.columns.len() > CONDITIONS_EACH), "the middle version is empty");
    let what = format!("{} conditions in {n_versions} versions of {SITES} sites", reference.columns().len());
    table.row(PART, what, scene.n_asked as f64 / built_s, "commands/s", Goal::None);
    table.row(PART, "its snapshot", snapshot.len() as f64 / 1e6, "MB", Goal::AtMost(64.0));
    table.row(PART, "snapshot written", written_s, "s", Goal::None);
    table.row(PART, "state restored", read_s, "s", Goal::AtMost(10.0));
    table.row(PART, "a version from the middle found", found_s * 1e3, "ms", Goal::None);
    Ok(())
}

/// A state under construction.
struct Scene {
    cluster: Cluster,
    n_asked: u64,
}

impl Scene {
    fn of(n_versions: usize) -> Result<Self> {
        let mut scene = Self { cluster: Cluster::founded(), n_asked: 0 };
        let columns = BTreeMap::from([("w".to_owned(), TensorSpec { dtype: DType::F32, shape: vec![8] })]);
        let summary = BaseSummary { model: "scvi".to_owned(), n_genes: 2_000, columns, moves_embedding: true };
        let first = ("anna/d/x".parse()?, BlobRef::of(b"r"));
        let version = Version { base: BlobRef::of(b"base"), columns: [first].into() };
        let publish = Body::PublishReference { name: NAME.parse()?, version, summary: Box::new(summary) };
        scene.ask("operator/anna", publish)?;
        for site in 0..SITES {
            scene.ask("operator/anna", Body::AddSite { site: format!("s{site}").parse()? })?;
        }
        let mut n_made = 1;
        while n_made < n_versions {
            let task = scene.publish_task()?;
            for site in 0..SITES.min(n_versions - n_made) {
                scene.hand_in(task, site)?;
                n_made += 1;
            }
        }
        Ok(scene)
    }

    fn ask(&mut self, who: &str, body: Body) -> Result<Outcome> {
        self.n_asked += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.n_asked.to_le_bytes());
        let command = Command { key, principal: who.parse()?, now_ms: 1_000, body };
        Ok(self.cluster.apply(&command).outcome?)
    }

    fn current(&self) -> Result<VersionId> {
        let reference = self.cluster.reference(&NAME.parse()?);
        reference.map(|reference| reference.current()).ok_or_else(|| anyhow!("no reference"))
    }

    fn publish_task(&mut self) -> Result<TaskId> {
        let task = SurgeryTask::new(NAME.parse()?, self.current()?, TrainSpec::default());
        match self.ask("operator/anna", Body::PublishTask(Box::new(task)))? {
            Outcome::Task(id) => Ok(id),
            other => Err(anyhow!("{other:?}")),
        }
    }

    fn hand_in(&mut self, task: TaskId, site: usize) -> Result<()> {
        let who = format!("site/s{site}");
        self.ask(&who, Body::Claim { task })?;
        let condition = |batch: usize| -> Result<_> {
            let key: ConditionKey = format!("s{site}/pbmc/{task}-{batch}").parse()?;
            let columns = BlobRef::of(format!("{key}").as_bytes());
            Ok((key, SubmittedCondition { columns, embeddings: None, metrics: None }))
        };
        let record = self.cluster.task(task).ok_or_else(|| anyhow!("no task {task}"))?;
        let version = record.task.version;
        let conditions = (0..CONDITIONS_EACH).map(condition).collect::<Result<_>>()?;
        self.ask(&who, Body::Submit(Submission { task, epoch: 1, version, conditions }))?;
        Ok(())
    }
}

const NAME: &str = "atlas";
const SITES: usize = 1_000;
const CONDITIONS_EACH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_state_is_restored_as_it_was() {
        measure_of(limits::LINEAGE / 16, &mut Table::new(16)).unwrap();
    }
}
