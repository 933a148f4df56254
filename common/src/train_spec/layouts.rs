//! How a [`TrainSpec`] is written: by name where people read it, in one of four layouts on the wire, in the log and in
//! snapshots.
//!
//! The first layout says every value; it is from a time when a spec had no unsaid ones, and what it can say is still
//! written in it, to the same bytes. The second says what was asked and nothing else; the third and the fourth say more beside
//! it. The first byte tells them apart: it used to say whether a number of epochs follows (0 or 1). A peer, or a coordinator's log, refuses a layout
//! that it does not know.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};

use super::{ColumnInit, EarlyStopping, MissingGenes, Stopping, TrainSpec, Warmup};

/// The first layout behind its number of epochs.
#[derive(Serialize, Deserialize)]
struct AllSaid {
    minibatch: u32,
    learning_rate: f64,
    adam_eps: f64,
    weight_decay: f64,
    /// `None` is the full weight from the start.
    n_epochs_kl_warmup: Option<u32>,
    train_size: f64,
    early_stopping: Option<EarlyStopping>,
    init: ColumnInit,
    seed: u64,
}

/// The first byte of the second layout.
const ASKED: u8 = 2;
/// The first byte of the third layout.
const FURTHER: u8 = 3;
/// The first byte of the fourth layout.
const PULLED: u8 = 4;

impl TrainSpec {
    /// Whether it can be written in the first layout, which every version reads.
    pub fn is_in_first_layout(&self) -> bool {
        self.all_said().is_some()
    }

    /// Whether it can be written in the first or the second layout.
    pub fn is_in_second_layout(&self) -> bool {
        self.further() == Further::default() && self.is_in_third_layout()
    }

    /// Whether it can be written in one of the first three layouts.
    pub fn is_in_third_layout(&self) -> bool {
        self.reference_pull.is_none()
    }

    fn all_said(&self) -> Option<AllSaid> {
        if !self.is_in_second_layout() {
            return None;
        }
        Some(AllSaid {
            minibatch: self.minibatch?,
            learning_rate: self.learning_rate?,
            adam_eps: self.adam_eps?,
            weight_decay: self.weight_decay?,
            n_epochs_kl_warmup: match self.kl_warmup? {
                Warmup::Off => None,
                Warmup::Epochs(0) | Warmup::Steps(_) => return None,
                Warmup::Epochs(n) => Some(n),
            },
            train_size: self.train_size?,
            early_stopping: match self.early_stopping? {
                Stopping::Never => None,
                Stopping::After(rule) => Some(rule),
            },
            init: self.init,
            seed: self.seed,
        })
    }

    fn asked(&self) -> Asked {
        Asked {
            epochs: self.epochs,
            minibatch: self.minibatch,
            learning_rate: self.learning_rate,
            adam_eps: self.adam_eps,
            weight_decay: self.weight_decay,
            kl_warmup: self.kl_warmup,
            train_size: self.train_size,
            early_stopping: self.early_stopping,
            init: self.init,
            seed: self.seed,
        }
    }

    fn further(&self) -> Further {
        Further { max_steps: self.max_steps, max_kl_weight: self.max_kl_weight, missing_genes: self.missing_genes }
    }
}

impl AllSaid {
    fn with_epochs(self, epochs: Option<u32>) -> TrainSpec {
        TrainSpec {
            epochs,
            minibatch: Some(self.minibatch),
            learning_rate: Some(self.learning_rate),
            adam_eps: Some(self.adam_eps),
            weight_decay: Some(self.weight_decay),
            kl_warmup: Some(self.n_epochs_kl_warmup.map_or(Warmup::Off, Warmup::over_epochs)),
            train_size: Some(self.train_size),
            early_stopping: Some(self.early_stopping.map_or(Stopping::Never, Stopping::After)),
            init: self.init,
            seed: self.seed,
            ..TrainSpec::default()
        }
    }
}

/// The second layout behind its mark: what was asked, field by field.
#[derive(Serialize, Deserialize)]
struct Asked {
    epochs: Option<u32>,
    minibatch: Option<u32>,
    learning_rate: Option<f64>,
    adam_eps: Option<f64>,
    weight_decay: Option<f64>,
    kl_warmup: Option<Warmup>,
    train_size: Option<f64>,
    early_stopping: Option<Stopping>,
    init: ColumnInit,
    seed: u64,
}

/// What the third layout says behind what the second one says.
#[derive(Serialize, Deserialize, PartialEq, Default)]
struct Further {
    max_steps: Option<u64>,
    max_kl_weight: Option<f64>,
    missing_genes: MissingGenes,
}

impl Asked {
    fn with(
        self,
        Further { max_steps, max_kl_weight, missing_genes }: Further,
        reference_pull: Option<f64>,
    ) -> TrainSpec {
        TrainSpec {
            epochs: self.epochs,
            minibatch: self.minibatch,
            learning_rate: self.learning_rate,
            adam_eps: self.adam_eps,
            weight_decay: self.weight_decay,
            kl_warmup: self.kl_warmup,
            train_size: self.train_size,
            early_stopping: self.early_stopping,
            init: self.init,
            seed: self.seed,
            max_steps,
            max_kl_weight,
            missing_genes,
            reference_pull,
        }
    }
}

impl Serialize for TrainSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        match self.all_said() {
            Some(said) => (self.epochs, said).serialize(serializer),
            None if self.is_in_second_layout() => (ASKED, self.asked()).serialize(serializer),
            None if self.is_in_third_layout() => (FURTHER, (self.asked(), self.further())).serialize(serializer),
            None => (PULLED, (self.asked(), self.further(), self.reference_pull)).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TrainSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            Self::deserialize(deserializer)
        } else {
            // Mark, number of epochs where the mark says so, the rest.
            deserializer.deserialize_tuple(3, Layouts)
        }
    }
}

struct Layouts;

impl<'de> Visitor<'de> for Layouts {
    type Value = TrainSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("how to train, in a layout that is known")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<TrainSpec, A::Error> {
        let epochs = match next(&mut parts)? {
            0_u8 => None,
            1 => Some(next(&mut parts)?),
            ASKED => return next(&mut parts).map(|asked: Asked| asked.with(Further::default(), None)),
            FURTHER => return next(&mut parts).map(|(asked, further): (Asked, _)| asked.with(further, None)),
            PULLED => return next(&mut parts).map(|(asked, further, pull): (Asked, _, _)| asked.with(further, pull)),
            other => return Err(de::Error::custom(format!("layout {other} of a training is not known"))),
        };
        next(&mut parts).map(|said: AllSaid| said.with_epochs(epochs))
    }
}

/// The next part of a value whose layout its first byte says.
pub(crate) fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(parts: &mut A) -> Result<T, A::Error> {
    parts.next_element()?.ok_or_else(|| de::Error::custom("a value ends too early"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    /// The bytes that the first version wrote for its defaults: 400 epochs of warm-up, minibatches of 128.
    fn first_defaults() -> Vec<u8> {
        let numbers = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
        let mut bytes = vec![codec::FORMAT, 0, 128];
        bytes.extend(numbers(&[1e-3, 0.01, 0.0]));
        bytes.extend([1, 251, 0x90, 0x01]);
        bytes.extend(numbers(&[0.9]));
        bytes.extend([0, 1, 0]);
        bytes
    }

    fn all_said() -> TrainSpec {
        TrainSpec {
            epochs: None,
            minibatch: Some(128),
            learning_rate: Some(1e-3),
            adam_eps: Some(0.01),
            weight_decay: Some(0.0),
            kl_warmup: Some(Warmup::Epochs(400)),
            train_size: Some(0.9),
            early_stopping: Some(Stopping::Never),
            init: ColumnInit::Mean,
            seed: 0,
            ..TrainSpec::default()
        }
    }

    fn decoded(bytes: &[u8]) -> crate::Result<TrainSpec> {
        codec::decode("training", bytes, 1000)
    }

    #[test]
    fn what_the_first_version_wrote_is_read_and_written_again_byte_for_byte() {
        assert_eq!(decoded(&first_defaults()).unwrap(), all_said());
        assert_eq!(codec::encode("training", &all_said(), 1000).unwrap(), first_defaults());
    }

    #[test]
    fn what_was_asked_round_trips_in_every_form() {
        let patience = Stopping::After(EarlyStopping { patience: 9, min_delta: 0.25 });
        for spec in [
            TrainSpec::default(),
            all_said(),
            TrainSpec { epochs: Some(300), kl_warmup: Some(Warmup::Off), ..all_said() },
            TrainSpec { early_stopping: Some(patience), seed: u64::MAX, ..all_said() },
            TrainSpec { kl_warmup: Some(Warmup::Steps(1 << 40)), ..all_said() },
            TrainSpec { kl_warmup: Some(Warmup::Epochs(0)), ..all_said() },
            TrainSpec { epochs: Some(7), early_stopping: Some(patience), ..TrainSpec::default() },
            TrainSpec { max_steps: Some(200), ..all_said() },
            TrainSpec { max_kl_weight: Some(0.5), seed: 3, ..TrainSpec::default() },
            TrainSpec { missing_genes: MissingGenes::Zeros, ..TrainSpec::default() },
            TrainSpec { reference_pull: Some(2.5), ..all_said() },
        ] {
            let behind = (spec.clone(), 7_u8);
            let bytes = codec::encode("training", &behind, 1000).unwrap();
            assert_eq!(codec::decode::<(TrainSpec, u8)>("training", &bytes, 1000).unwrap(), behind);
            let text = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<TrainSpec>(&text).unwrap(), spec, "{text}");
        }
    }

    #[test]
    fn what_is_not_said_goes_without_saying_and_the_first_version_refuses_it() {
        let asked = TrainSpec { seed: 5, ..TrainSpec::default() };
        assert_eq!(serde_json::from_str::<TrainSpec>(r#"{"seed":5}"#).unwrap(), asked);
        let bytes = codec::encode("training", &asked, 1000).unwrap();
        assert_eq!(bytes[1], ASKED);
        // As the first version read it.
        type First = (Option<u32>, AllSaid);
        assert!(codec::decode::<First>("training", &bytes, 1000).is_err());
        let steps = codec::encode("training", &TrainSpec { max_steps: Some(9), ..asked }, 1000).unwrap();
        assert_eq!(steps[1], FURTHER);
        let mut unknown = bytes;
        unknown[1] = 5;
        assert!(decoded(&unknown).unwrap_err().to_string().contains("layout 5"));
    }
}
