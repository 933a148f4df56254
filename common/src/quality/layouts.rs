//! How metrics and gates are written on the wire, in the log and in snapshots: what the first version could say in its
//! layout, to the same bytes, and everything else in a second one.
//!
//! The first version knew two figures, ELBO and reconstruction. Where it wrote whether a value follows (0 or 1), a 2 says
//! that the second layout does. A peer or a log that knows the first layout only refuses it.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};

use super::{Bound, ConditionMetrics, QualityGates};
use crate::{figure::Figure, train_spec::layouts::next};

/// Where the first layouts say whether a value follows: what follows is in the second layout.
const SECOND: u8 = 2;

const ELBO: &str = "elbo";
const RECONSTRUCTION: &str = "reconstruction";

/// Metrics in the first layout.
#[derive(Serialize, Deserialize)]
struct FirstMetrics {
    n_cells: u64,
    epochs: u32,
    gene_coverage: f64,
    elbo: f64,
    reconstruction: f64,
    training_ms: u64,
    deterministic: bool,
}

/// Metrics in the second layout.
#[derive(Serialize, Deserialize)]
struct SecondMetrics {
    n_cells: u64,
    epochs: u32,
    gene_coverage: f64,
    figures: BTreeMap<String, f64>,
    training_ms: u64,
    deterministic: bool,
}

impl ConditionMetrics {
    /// Whether they can be written in the first layout, which every version reads.
    pub fn are_in_first_layout(&self) -> bool {
        self.first().is_some()
    }

    fn first(&self) -> Option<FirstMetrics> {
        let usual = Figure::USUAL.iter().all(|figure| self.figures.contains_key(figure.name.as_ref()));
        let Self { n_cells, epochs, gene_coverage, figures, training_ms, deterministic } = self;
        (usual && figures.len() == Figure::USUAL.len()).then(|| FirstMetrics {
            n_cells: *n_cells,
            epochs: *epochs,
            gene_coverage: *gene_coverage,
            elbo: figures[ELBO],
            reconstruction: figures[RECONSTRUCTION],
            training_ms: *training_ms,
            deterministic: *deterministic,
        })
    }
}

impl From<FirstMetrics> for ConditionMetrics {
    fn from(first: FirstMetrics) -> Self {
        let FirstMetrics { n_cells, epochs, gene_coverage, elbo, reconstruction, training_ms, deterministic } = first;
        let figures = [(ELBO, elbo), (RECONSTRUCTION, reconstruction)].map(|(name, value)| (name.to_owned(), value));
        Self { n_cells, epochs, gene_coverage, figures: figures.into(), training_ms, deterministic }
    }
}

impl From<SecondMetrics> for ConditionMetrics {
    fn from(second: SecondMetrics) -> Self {
        let SecondMetrics { n_cells, epochs, gene_coverage, figures, training_ms, deterministic } = second;
        Self { n_cells, epochs, gene_coverage, figures, training_ms, deterministic }
    }
}

/// Metrics that may be kept: for `#[serde(with)]`.
pub(crate) mod metrics {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(metrics: &Option<ConditionMetrics>, to: S) -> Result<S::Ok, S::Error> {
        let Some(given) = metrics.as_ref().filter(|_| !to.is_human_readable()) else { return metrics.serialize(to) };
        match given.first() {
            Some(first) => Some(first).serialize(to),
            None => {
                let ConditionMetrics { n_cells, epochs, gene_coverage, figures, training_ms, deterministic } =
                    given.clone();
                let second = SecondMetrics { n_cells, epochs, gene_coverage, figures, training_ms, deterministic };
                (SECOND, second).serialize(to)
            }
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ConditionMetrics>, D::Error> {
        if from.is_human_readable() {
            return Option::deserialize(from);
        }
        from.deserialize_tuple(2, Layouts)
    }

    struct Layouts;

    impl<'de> Visitor<'de> for Layouts {
        type Value = Option<ConditionMetrics>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("metrics, in a layout that is known")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
            match next(&mut parts)? {
                0_u8 => Ok(None),
                1 => next(&mut parts).map(|first: FirstMetrics| Some(first.into())),
                SECOND => next(&mut parts).map(|second: SecondMetrics| Some(second.into())),
                other => Err(de::Error::custom(format!("layout {other} of metrics is not known"))),
            }
        }
    }
}

impl QualityGates {
    /// Whether they can be written in the first layout, which every version from 2 on reads.
    pub fn are_in_first_layout(&self) -> bool {
        self.first().is_some()
    }

    /// The least ELBO and the largest reconstruction loss, if that is all.
    fn first(&self) -> Option<(Option<f64>, Option<f64>)> {
        let (mut elbo, mut reconstruction) = (None, None);
        for (name, bound) in &self.bounds {
            match (name.as_str(), *bound) {
                (ELBO, Bound::AtLeast(least)) => elbo = Some(least),
                (RECONSTRUCTION, Bound::AtMost(most)) => reconstruction = Some(most),
                _ => return None,
            }
        }
        Some((elbo, reconstruction))
    }
}

impl Serialize for QualityGates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        match self.first() {
            Some((elbo, reconstruction)) => (self.min_gene_coverage, elbo, reconstruction).serialize(serializer),
            None => (self.min_gene_coverage, SECOND, &self.bounds).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for QualityGates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            Self::deserialize(deserializer)
        } else {
            // Gene coverage, mark, ELBO where the mark says so, the rest.
            deserializer.deserialize_tuple(4, GateLayouts)
        }
    }
}

struct GateLayouts;

impl<'de> Visitor<'de> for GateLayouts {
    type Value = QualityGates;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("quality gates, in a layout that is known")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<QualityGates, A::Error> {
        let min_gene_coverage = next(&mut parts)?;
        let elbo: Option<f64> = match next(&mut parts)? {
            0_u8 => None,
            1 => Some(next(&mut parts)?),
            SECOND => return Ok(QualityGates { min_gene_coverage, bounds: next(&mut parts)? }),
            other => return Err(de::Error::custom(format!("layout {other} of quality gates is not known"))),
        };
        let reconstruction: Option<f64> = next(&mut parts)?;
        let elbo = elbo.map(|least| (ELBO.to_owned(), Bound::AtLeast(least)));
        let reconstruction = reconstruction.map(|most| (RECONSTRUCTION.to_owned(), Bound::AtMost(most)));
        Ok(QualityGates { min_gene_coverage, bounds: elbo.into_iter().chain(reconstruction).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Given {
        #[serde(with = "metrics")]
        metrics: Option<ConditionMetrics>,
        behind: u8,
    }

    fn given(figures: &[(&str, f64)]) -> Given {
        let metrics = ConditionMetrics {
            n_cells: 3_000,
            epochs: 50,
            gene_coverage: 0.5,
            figures: figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            training_ms: 7,
            deterministic: true,
        };
        Given { metrics: Some(metrics), behind: 9 }
    }

    fn bounded(bounds: &[(&str, Bound)]) -> QualityGates {
        let bounds = bounds.iter().map(|(name, bound)| ((*name).to_owned(), *bound)).collect();
        QualityGates { min_gene_coverage: 0.25, bounds }
    }

    #[test]
    fn the_two_figures_of_the_first_version_have_the_bytes_they_always_had() {
        let first = FirstMetrics {
            n_cells: 3_000,
            epochs: 50,
            gene_coverage: 0.5,
            elbo: -1.5,
            reconstruction: 1.25,
            training_ms: 7,
            deterministic: true,
        };
        let expected = codec::encode("metrics", &(Some(first), 9_u8), 1000).unwrap();
        let usual = given(&[(ELBO, -1.5), (RECONSTRUCTION, 1.25)]);
        assert_eq!(codec::encode("metrics", &usual, 1000).unwrap(), expected);
        let gates = bounded(&[(ELBO, Bound::AtLeast(-2.0))]);
        let expected = codec::encode("gates", &(0.25, Some(-2.0), None::<f64>), 1000).unwrap();
        assert_eq!(codec::encode("gates", &gates, 1000).unwrap(), expected);
        assert!(gates.are_in_first_layout() && usual.metrics.unwrap().are_in_first_layout());
    }

    #[test]
    fn every_list_of_figures_round_trips_in_every_form() {
        let lists: [&[(&str, f64)]; 4] =
            [&[(ELBO, -1.5), (RECONSTRUCTION, 1.25)], &[(ELBO, -1.5)], &[], &[("accuracy", 0.5), (ELBO, -1.0)]];
        for value in lists.map(given).into_iter().chain([Given { metrics: None, behind: 9 }]) {
            let bytes = codec::encode("metrics", &value, 1000).unwrap();
            assert_eq!(codec::decode::<Given>("metrics", &bytes, 1000).unwrap(), value);
            let text = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Given>(&text).unwrap(), value, "{text}");
        }
        for gates in [
            bounded(&[]),
            bounded(&[(ELBO, Bound::AtLeast(-2.0)), (RECONSTRUCTION, Bound::AtMost(3.0))]),
            bounded(&[(ELBO, Bound::AtMost(3.0))]),
            bounded(&[("accuracy", Bound::AtLeast(0.5))]),
        ] {
            let bytes = codec::encode("gates", &(gates.clone(), 9_u8), 1000).unwrap();
            assert_eq!(codec::decode::<(QualityGates, u8)>("gates", &bytes, 1000).unwrap(), (gates.clone(), 9));
            let text = serde_json::to_string(&gates).unwrap();
            assert_eq!(serde_json::from_str::<QualityGates>(&text).unwrap(), gates, "{text}");
        }
    }

    #[test]
    fn people_read_figures_beside_the_other_numbers_as_they_always_did() {
        let text = serde_json::to_value(given(&[(ELBO, -1.5), (RECONSTRUCTION, 1.25)])).unwrap();
        assert_eq!((&text["metrics"]["elbo"], &text["metrics"]["n_cells"]), (&(-1.5).into(), &3_000.into()));
    }
}
