//! How well a model fits cells, as the reference's card lists its figures.

use std::{collections::BTreeMap, fmt};

use archipelago_common::{BaseCard, Figure};
use archipelago_models::Evaluation;
use serde::Serialize;

/// Figures by name, and how people read them.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Fit {
    values: BTreeMap<String, f64>,
    #[serde(skip)]
    listed: Vec<Figure>,
}

impl Fit {
    /// Those figures of an evaluation that the card lists.
    pub fn new(card: &BaseCard, evaluation: &Evaluation) -> Self {
        let listed = card.layout.figures.clone();
        let value = |figure: &Figure| Some((figure.name.clone().into_owned(), evaluation.figure(&figure.name)?));
        Self { values: listed.iter().filter_map(value).collect(), listed }
    }

    /// The figures by name.
    pub fn into_values(self) -> BTreeMap<String, f64> {
        self.values
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.listed.iter().filter_map(|figure| Some((figure, self.values.get(figure.name.as_ref())?)));
        for (at, (Figure { title, unit, .. }, value)) in lines.enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{title:<11} {value:.3} {unit}")?;
        }
        Ok(())
    }
}

/// Figures of a condition in one line, as the card lists them.
pub fn line(listed: &[Figure], values: &BTreeMap<String, f64>) -> String {
    let known = listed.iter().filter_map(|figure| Some((figure, values.get(figure.name.as_ref())?)));
    known.map(|(figure, value)| format!("{} {value:.3}", figure.title)).collect::<Vec<_>>().join(", ")
}
