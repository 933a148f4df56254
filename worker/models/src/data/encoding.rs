//! What a reference remembers of a field, so that a query's values become the same numbers.

use std::collections::BTreeMap;

use archipelago_anndata::Csr;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{
    Categorical, Encoded, Field, FieldKind, FieldValues, GeneSets, Need, Range, ReceptorForm, Values,
    cells::{check_length, check_values},
};
use crate::error::{Error, Result};

/// How a field of the reference's cells was encoded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Columns in the order of a panel.
    Matrix(Panel),
    /// A code for each name.
    Category(Vec<String>),
    /// Nothing: keys say what cells are on an axis, and the card's layout has the axis.
    Axis,
    /// A code for each name of each column.
    Categories(Categories),
    /// A code for each label.
    Labels(LabelNames),
    /// A number as it is.
    Number(Range),
    /// Columns in this order.
    Numbers(Vec<String>),
    /// So many numbers as they are.
    Coordinates(usize),
    /// A code for each amino acid.
    Receptor(ReceptorForm),
    /// The sets themselves.
    GeneSets(GeneSets),
}

/// Names of each column's categories. Name order is the order of the columns.
pub type Categories = BTreeMap<String, Vec<String>>;

/// The features of a matrix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Panel {
    /// Names of the features, in order.
    pub names: Vec<String>,
    /// What their values are.
    pub values: Values,
    /// Whether a query may lack all of them; they are zeros then.
    pub may_lack: bool,
}

/// The labels of a reference.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelNames {
    /// Names by code.
    pub names: Vec<String>,
    /// The category that stands for cells without a label, for a model that takes such cells. It is not one of the labels; its
    /// code is their number.
    pub unlabelled: Option<String>,
}

impl Encoding {
    /// How these values of a field are encoded.
    ///
    /// # Errors  [`Error::FieldKind`] for values of another kind
    pub(super) fn of(field: &Field, values: &FieldValues) -> Result<Self> {
        Ok(match (&field.kind, values) {
            (FieldKind::Axis(_), FieldValues::Category(_)) => Self::Axis,
            (FieldKind::Matrix(kind), FieldValues::Matrix(features)) => {
                let may_lack = field.need == Need::ToTrain;
                Self::Matrix(Panel { names: features.names().to_vec(), values: *kind, may_lack })
            }
            (FieldKind::Category, FieldValues::Category(column)) => Self::Category(column.names().to_vec()),
            (FieldKind::Categories, FieldValues::Categories(columns)) => {
                Self::Categories(columns.iter().map(|(name, column)| (name.clone(), column.names().to_vec())).collect())
            }
            (FieldKind::Labels { unlabelled }, FieldValues::Category(column)) => {
                Self::Labels(LabelNames::of(column, unlabelled.as_deref()))
            }
            (FieldKind::Number(range), FieldValues::Number(_)) => Self::Number(*range),
            (FieldKind::Numbers, FieldValues::Numbers(columns)) => Self::Numbers(columns.keys().cloned().collect()),
            (FieldKind::Coordinates, FieldValues::Coordinates(places)) => Self::Coordinates(places.ncols()),
            (FieldKind::Receptor { chains, length }, FieldValues::Receptor(receptors)) => {
                Self::Receptor(ReceptorForm {
                    chains: chains.clone(),
                    length: length.unwrap_or_else(|| receptors.longest()),
                })
            }
            (FieldKind::GeneSets, FieldValues::GeneSets(sets)) => Self::GeneSets(sets.clone()),
            (kind, values) => return Err(wrong_kind(&field.name, values, kind.name())),
        })
    }

    /// The values of a field as numbers; without values, what stands for them. `may_grow`: cells may be of labels that the reference does
    /// not know, or of none.
    ///
    /// # Errors  [`Error::MissingField`], [`Error::FieldKind`], and values that the reference does not know or cannot take
    pub(super) fn encode(
        &self,
        name: &str,
        values: Option<&FieldValues>,
        n_cells: usize,
        may_grow: bool,
    ) -> Result<Encoded> {
        let Some(values) = values else { return self.missing(name, n_cells, may_grow) };
        Ok(match (self, values) {
            (Self::Matrix(panel), FieldValues::Matrix(features)) => {
                features.check(name, panel.values)?;
                Encoded::Matrix(features.aligned(name, &panel.names)?)
            }
            (Self::Category(known), FieldValues::Category(column)) => {
                Encoded::Codes { codes: recode(name, column, known)?, n: known.len(), new: vec![] }
            }
            (Self::Labels(labels), FieldValues::Category(column)) => {
                let new = if may_grow { labels.new_among(column) } else { vec![] };
                labels.encode(name, column, new)?
            }
            (Self::Number(range), FieldValues::Number(numbers)) => {
                check_values(name, numbers, range.expected(), |value| range.allows(value))?;
                let column = Array2::from_shape_vec((n_cells, 1), numbers.clone());
                Encoded::Numbers(column.expect("lengths were checked"))
            }
            (Self::Numbers(names), FieldValues::Numbers(columns)) => {
                let mut all = Array2::zeros((n_cells, names.len()));
                for (name, mut column) in names.iter().zip(all.columns_mut()) {
                    let values = columns.get(name).ok_or_else(|| missing(name))?;
                    check_values(name, values, Range::Finite.expected(), |value| Range::Finite.allows(value))?;
                    column.iter_mut().zip(values).for_each(|(to, &from)| *to = from);
                }
                Encoded::Numbers(all)
            }
            (Self::Coordinates(n), FieldValues::Coordinates(places)) => {
                check_length(name, "dimensions", places.ncols(), *n)?;
                let values = places.as_standard_layout();
                check_values(name, values.as_slice().unwrap_or_default(), Range::Finite.expected(), f32::is_finite)?;
                Encoded::Numbers(values.into_owned())
            }
            (Self::Receptor(form), FieldValues::Receptor(receptors)) => Encoded::Tokens(form.encode(name, receptors)?),
            (_, values) => return Err(wrong_kind(name, values, self.kind())),
        })
    }

    /// Codes of the columns of categories, in order.
    ///
    /// # Errors  [`Error::MissingField`], [`Error::UnknownCategory`]
    pub(super) fn encode_columns(known: &Categories, values: Option<&FieldValues>) -> Result<Vec<Vec<i64>>> {
        let empty = BTreeMap::new();
        let columns = match values {
            Some(FieldValues::Categories(columns)) => columns,
            Some(other) => return Err(wrong_kind(super::CATEGORICAL, other, "categories")),
            None => &empty,
        };
        let encode = |(name, known): (&String, &Vec<String>)| {
            recode(name, columns.get(name).ok_or_else(|| missing(name))?, known)
        };
        known.iter().map(encode).collect()
    }

    /// What stands for the values of cells that have none.
    fn missing(&self, name: &str, n_cells: usize, may_grow: bool) -> Result<Encoded> {
        match self {
            Self::Matrix(panel) if panel.may_lack => Ok(Encoded::Matrix(Csr::zeros(n_cells, panel.names.len()))),
            Self::Labels(LabelNames { names, unlabelled }) if may_grow || unlabelled.is_some() => {
                Ok(Encoded::Codes { codes: vec![names.len() as i64; n_cells], n: names.len(), new: vec![] })
            }
            Self::Numbers(names) => Err(missing(names.first().map_or(name, String::as_str))),
            _ => Err(missing(name)),
        }
    }

    /// How many there are of what the field names.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Matrix(panel) => panel.names.len(),
            Self::Category(names) | Self::Numbers(names) => names.len(),
            Self::Categories(columns) => columns.len(),
            Self::Labels(labels) => labels.names.len(),
            Self::Number(_) | Self::Axis => 1,
            Self::Coordinates(n) => *n,
            Self::Receptor(form) => form.chains.len() * form.length,
            Self::GeneSets(sets) => sets.terms().len(),
        }
    }

    /// Whether a minibatch holds a tensor of it.
    pub(super) fn is_per_cell(&self) -> bool {
        !matches!(self, Self::Axis | Self::Categories(_) | Self::GeneSets(_))
    }

    /// Its kind, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Matrix(_) => "matrix",
            Self::Category(_) => "category",
            Self::Axis => "axis",
            Self::Categories(_) => "categories",
            Self::Labels(_) => "labels",
            Self::Number(_) => "number",
            Self::Numbers(_) => "numbers",
            Self::Coordinates(_) => "coordinates",
            Self::Receptor(_) => "receptor",
            Self::GeneSets(_) => "gene sets",
        }
    }
}

impl LabelNames {
    /// The labels in upstream's order: the last category takes the place of the one that stands for cells without a label.
    fn of(column: &Categorical, unlabelled: Option<&str>) -> Self {
        let mut names = column.names().to_vec();
        if let Some(position) = names.iter().position(|name| Some(name.as_str()) == unlabelled) {
            names.swap_remove(position);
        }
        Self { names, unlabelled: unlabelled.map(str::to_owned) }
    }

    /// Codes of a column's labels: those of the reference, then that of cells without one, then those of new labels.
    ///
    /// # Errors  [`Error::UnknownCategory`]
    fn encode(&self, name: &str, column: &Categorical, new: Vec<String>) -> Result<Encoded> {
        let known: Vec<String> = self.names.iter().chain(&self.unlabelled).chain(&new).cloned().collect();
        let mut codes = recode(name, column, &known)?;
        if self.unlabelled.is_none() {
            // No category stands for cells without a label, and their code is not a label's all the same.
            codes.iter_mut().filter(|code| **code >= self.names.len() as i64).for_each(|code| *code += 1);
        }
        Ok(Encoded::Codes { codes, n: self.names.len(), new })
    }

    /// The names that cells have and that are not among these, in order of the column.
    pub(super) fn new_among(&self, column: &Categorical) -> Vec<String> {
        let is_new = |name: &&String| !self.names.contains(name) && self.unlabelled.as_ref() != Some(name);
        column.names().iter().filter(is_new).cloned().collect()
    }
}

pub(super) fn missing(name: &str) -> Error {
    Error::MissingField { name: name.to_owned() }
}

fn wrong_kind(name: &str, values: &FieldValues, expected: &'static str) -> Error {
    Error::FieldKind { name: name.to_owned(), found: values.kind(), expected }
}

/// Codes of a column in the reference's list of categories.
fn recode(covariate: &str, column: &Categorical, known: &[String]) -> Result<Vec<i64>> {
    let position: BTreeMap<&str, i64> = known.iter().zip(0..).map(|(name, code)| (name.as_str(), code)).collect();
    let codes: Vec<Option<i64>> = column.names().iter().map(|name| position.get(name.as_str()).copied()).collect();
    let translate = |&code: &u32| {
        codes[code as usize].ok_or_else(|| Error::UnknownCategory {
            covariate: covariate.to_owned(),
            category: column.names()[code as usize].clone(),
            known: known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        })
    };
    column.codes().iter().map(translate).collect()
}
