//! How large the state may become. Whatever makes it grow is counted when it is accepted, and refused in words long
//! before a snapshot would be too large; what ends something or takes it back is never refused for it.

use archipelago_common::{codec, limits};
use serde::Serialize;

use crate::{Cluster, Edition, Refusal};

impl Cluster {
    /// Bytes that the state was said to take when it grew, and the limit.
    pub fn size(&self) -> (u64, u64) {
        (self.n_bytes, limits::STATE_BYTES)
    }

    /// Refuses what would let the state grow beyond its limit.
    pub(crate) fn require_growth(&self, n_bytes: u64) -> Result<(), Refusal> {
        if self.edition < Edition::Second || self.n_bytes.saturating_add(n_bytes) <= limits::STATE_BYTES {
            return Ok(());
        }
        let (found, limit) = (self.n_bytes >> 20, limits::STATE_BYTES >> 20);
        Err(Refusal::conflict(format!(
            "the coordinators remember {found} MiB of at most {limit} MiB; nothing more is taken that makes it grow"
        )))
    }

    /// Notes that the state has grown. The first edition does not count: what there is, is counted when it ends.
    pub(crate) fn grew(&mut self, n_bytes: u64) {
        if self.edition >= Edition::Second {
            self.n_bytes = self.n_bytes.saturating_add(n_bytes);
        }
    }
}

/// Bytes of a value in the state, with room for its place.
pub(crate) fn bytes_of<T: Serialize>(value: &T) -> u64 {
    codec::size(value).saturating_add(PLACE)
}

/// Bytes of the key, the numbers and the lengths around a value.
pub(crate) const PLACE: u64 = 128;

#[cfg(test)]
mod tests {
    use archipelago_common::{
        BlobRef, TaskId, Version,
        record::{BaseSummary, Submission, SubmittedCondition},
        task::{SurgeryTask, TrainSpec},
    };

    use super::*;
    use crate::{Body, Command, Outcome, Selection, invariants};

    /// A cluster with a task that a site has claimed, and so many bytes left.
    fn nearly_full(n_left: u64) -> Cluster {
        let mut cluster = Cluster::founded();
        let columns = [(
            "w".to_owned(),
            archipelago_common::state_dict::TensorSpec { dtype: archipelago_common::DType::F32, shape: vec![1] },
        )];
        let summary =
            BaseSummary { model: "scvi".to_owned(), n_genes: 1, columns: columns.into(), moves_embedding: true };
        let version = Version { base: BlobRef::of(b"base"), columns: Default::default() };
        let (name, id) = ("atlas".parse().unwrap(), version.id());
        for (who, body) in [
            ("operator/anna", Body::AddSite { site: "a".parse().unwrap() }),
            ("operator/anna", Body::AddSite { site: "b".parse().unwrap() }),
            ("operator/anna", Body::PublishReference { name, version, summary: Box::new(summary) }),
            ("operator/anna", Body::PublishTask(Box::new(task(id)))),
            ("site/a", Body::Claim { task: TaskId(1) }),
            ("site/b", Body::Claim { task: TaskId(1) }),
        ] {
            ask(&mut cluster, who, body).unwrap();
        }
        cluster.n_bytes = limits::STATE_BYTES - n_left;
        cluster
    }

    fn task(version: archipelago_common::VersionId) -> SurgeryTask {
        SurgeryTask::new("atlas".parse().unwrap(), version, TrainSpec::default())
    }

    fn ask(cluster: &mut Cluster, who: &str, body: Body) -> Result<Outcome, Refusal> {
        let key: [u8; 16] = body.digest().unwrap().as_bytes()[..16].try_into().unwrap();
        let outcome = cluster.apply(&Command { key, principal: who.parse().unwrap(), now_ms: 1_000, body }).outcome;
        invariants::check(cluster).unwrap();
        outcome
    }

    fn submission(cluster: &Cluster) -> Body {
        let version = cluster.reference(&"atlas".parse().unwrap()).unwrap().current();
        let condition = SubmittedCondition { columns: BlobRef::of(b"x"), embeddings: None, metrics: None };
        let conditions = [("a/d/x".parse().unwrap(), condition)].into();
        Body::Submit(Submission { task: TaskId(1), epoch: 1, version, conditions })
    }

    #[test]
    fn what_would_grow_a_full_state_is_refused_in_words() {
        let mut cluster = nearly_full(10);
        let current = cluster.reference(&"atlas".parse().unwrap()).unwrap().current();
        for (who, body) in [
            ("operator/anna", Body::AddSite { site: "c".parse().unwrap() }),
            ("operator/anna", Body::PublishTask(Box::new(SurgeryTask { min_cells: 2, ..task(current) }))),
            ("site/a", submission(&cluster)),
        ] {
            let refusal = ask(&mut cluster, who, body).unwrap_err();
            assert!(matches!(&refusal, Refusal::Conflict { reason } if reason.contains("nothing more")), "{refusal}");
        }
    }

    #[test]
    fn what_ends_or_takes_back_is_never_refused_for_it() {
        let mut cluster = nearly_full(10_000);
        let given = submission(&cluster);
        ask(&mut cluster, "site/a", given).unwrap();
        cluster.n_bytes = limits::STATE_BYTES;
        let reference = "atlas".parse().unwrap();
        let reason = "the words are left out".to_owned();
        for (who, body) in [
            ("site/b", Body::GiveUp { task: TaskId(1), epoch: 1, reason }),
            ("site/a", Body::Withdraw { reference, selection: Selection::Site("a".parse().unwrap()) }),
            ("operator/anna", Body::RevokeSite { site: "b".parse().unwrap() }),
            ("operator/anna", Body::CloseTask { task: TaskId(1) }),
        ] {
            ask(&mut cluster, who, body).unwrap();
        }
        assert_eq!(Cluster::restore(&cluster.snapshot().unwrap()).unwrap(), cluster);
    }

    #[test]
    fn twice_what_the_state_may_take_still_fits_into_a_snapshot() {
        // Withdrawals, which are not refused, repeat at most what merges have taken.
        assert!(2 * limits::STATE_BYTES + (64 << 20) < limits::SNAPSHOT_BYTES as u64);
    }
}
