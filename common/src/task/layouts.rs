//! How a [`SurgeryTask`] is written: by name where people read it, in one of two layouts on the wire, in the log and in
//! snapshots.
//!
//! The first layout is from a time when every task asked for all that a model contributes; such a task is still written in it,
//! to the same bytes. It begins with the reference's name. The second begins where a name without letters would stand, which no
//! reference has: a peer, or a coordinator's log, that knows the first layout only refuses it.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};

use super::{Asks, PublishMode, SurgeryTask, TrainSpec};
use crate::{
    id::{Name, SiteId, VersionId},
    policy::EmbeddingRelease,
    train_spec::layouts::next,
};

/// What both layouts say behind the reference's name.
#[derive(Serialize, Deserialize)]
struct Rest {
    version: VersionId,
    train: TrainSpec,
    embeddings: EmbeddingRelease,
    publish: PublishMode,
    allow: Option<BTreeSet<SiteId>>,
    deadline_ms: Option<u64>,
    lease_ms: u64,
    min_cells: u64,
    max_column_norm: f64,
}

/// Behind the name without letters: the second layout.
const SECOND: u8 = 2;

impl SurgeryTask {
    /// Whether it can be written in the first layouts, which every version reads.
    pub fn is_in_first_layout(&self) -> bool {
        self.asks.is_usual() && self.train.is_in_first_layout()
    }

    fn rest(&self) -> Rest {
        Rest {
            version: self.version,
            train: self.train.clone(),
            embeddings: self.embeddings,
            publish: self.publish,
            allow: self.allow.clone(),
            deadline_ms: self.deadline_ms,
            lease_ms: self.lease_ms,
            min_cells: self.min_cells,
            max_column_norm: self.max_column_norm,
        }
    }
}

impl Rest {
    fn into_task(self, reference: Name, asks: Asks) -> SurgeryTask {
        SurgeryTask {
            reference,
            version: self.version,
            train: self.train,
            asks,
            embeddings: self.embeddings,
            publish: self.publish,
            allow: self.allow,
            deadline_ms: self.deadline_ms,
            lease_ms: self.lease_ms,
            min_cells: self.min_cells,
            max_column_norm: self.max_column_norm,
        }
    }
}

impl Serialize for SurgeryTask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            Self::serialize(self, serializer)
        } else if self.asks.is_usual() {
            (&self.reference, self.rest()).serialize(serializer)
        } else {
            ("", SECOND, (self.asks, &self.reference, self.rest())).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for SurgeryTask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            Self::deserialize(deserializer)
        } else {
            // A name and the rest; or no name, the mark, and all of it.
            deserializer.deserialize_tuple(3, Layouts)
        }
    }
}

struct Layouts;

impl<'de> Visitor<'de> for Layouts {
    type Value = SurgeryTask;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task, in a layout that is known")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<SurgeryTask, A::Error> {
        let name: String = next(&mut parts)?;
        if !name.is_empty() {
            let reference = name.parse().map_err(de::Error::custom)?;
            return next(&mut parts).map(|rest: Rest| rest.into_task(reference, Asks::default()));
        }
        match next(&mut parts)? {
            SECOND => next(&mut parts).map(|(asks, reference, rest): (_, _, Rest)| rest.into_task(reference, asks)),
            other => Err(de::Error::custom(format!("layout {other} of a task is not known"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec, hash::Digest};

    fn task(asks: Asks) -> SurgeryTask {
        let version = VersionId(Digest::of(b"version"));
        SurgeryTask { asks, ..SurgeryTask::new("lung".parse().unwrap(), version, TrainSpec::default()) }
    }

    fn bytes(task: &SurgeryTask) -> Vec<u8> {
        codec::encode("task", task, 1000).unwrap()
    }

    #[test]
    fn a_task_for_everything_is_written_as_the_first_version_wrote_it() {
        let usual = task(Asks::Both);
        assert_eq!(bytes(&usual), codec::encode("task", &(&usual.reference, usual.rest()), 1000).unwrap());
        assert!(!serde_json::to_string(&usual).unwrap().contains("asks"));
    }

    #[test]
    fn every_task_is_read_back_and_the_first_version_refuses_what_it_cannot_say() {
        for asks in [Asks::Both, Asks::Columns, Asks::Parts, Asks::Annotations] {
            let behind = (task(asks), 7_u8);
            let bytes = codec::encode("task", &behind, 1000).unwrap();
            assert_eq!(codec::decode::<(SurgeryTask, u8)>("task", &bytes, 1000).unwrap(), behind);
            let text = serde_json::to_string(&behind.0).unwrap();
            assert_eq!(serde_json::from_str::<SurgeryTask>(&text).unwrap(), behind.0, "{text}");
            assert_eq!(asks.to_string().parse::<Asks>().unwrap(), asks);
        }
        let second = bytes(&task(Asks::Parts));
        assert!(codec::decode::<(Name, Rest)>("task", &second, 1000).is_err());
        let mut unknown = second;
        unknown[2] = 3;
        let refused = codec::decode::<SurgeryTask>("task", &unknown, 1000).unwrap_err().to_string();
        assert!(refused.contains("layout 3"), "{refused}");
        assert!("all".parse::<Asks>().unwrap_err().to_string().contains("`both`, `columns`, `parts` or `annotations`"));
    }
}
