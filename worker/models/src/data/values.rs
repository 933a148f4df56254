//! The values of one field over all cells.

use std::collections::BTreeMap;

use ndarray::{Array2, Axis};

use super::{Categorical, Features, GeneSets, Receptors, cells::check_length};
use crate::error::Result;

/// The values of a field, in the order of the cells.
#[derive(Clone, PartialEq, Debug)]
pub enum FieldValues {
    /// Values of named features.
    Matrix(Features),
    /// A name for each cell: a category or a label.
    Category(Categorical),
    /// Columns of names.
    Categories(BTreeMap<String, Categorical>),
    /// A number for each cell.
    Number(Vec<f32>),
    /// Columns of numbers.
    Numbers(BTreeMap<String, Vec<f32>>),
    /// A place for each cell, `[n_cells, n_dimensions]`.
    Coordinates(Array2<f32>),
    /// The receptor of each cell.
    Receptor(Receptors),
    /// Sets of the panel's genes.
    GeneSets(GeneSets),
}

impl FieldValues {
    /// What kind of values they are, as [`FieldKind::name`](super::FieldKind::name) calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Matrix(_) => "matrix",
            Self::Category(_) => "category",
            Self::Categories(_) => "categories",
            Self::Number(_) => "number",
            Self::Numbers(_) => "numbers",
            Self::Coordinates(_) => "coordinates",
            Self::Receptor(_) => "receptor",
            Self::GeneSets(_) => "gene sets",
        }
    }

    /// The values of some cells, in the order asked for. Panics for a cell that is not there.
    #[must_use]
    pub fn select_cells(&self, cells: &[usize]) -> Self {
        fn of<T: Clone>(values: &[T], cells: &[usize]) -> Vec<T> {
            cells.iter().map(|&cell| values[cell].clone()).collect()
        }
        match self {
            Self::Matrix(features) => Self::Matrix(features.select_cells(cells)),
            Self::Category(column) => Self::Category(column.select_cells(cells)),
            Self::Categories(columns) => {
                let select = |(name, column): (&String, &Categorical)| (name.clone(), column.select_cells(cells));
                Self::Categories(columns.iter().map(select).collect())
            }
            Self::Number(values) => Self::Number(of(values, cells)),
            Self::Numbers(columns) => {
                Self::Numbers(columns.iter().map(|(name, values)| (name.clone(), of(values, cells))).collect())
            }
            Self::Coordinates(places) => Self::Coordinates(places.select(Axis(0), cells)),
            Self::Receptor(receptors) => Self::Receptor(receptors.select_cells(cells)),
            Self::GeneSets(sets) => Self::GeneSets(sets.clone()),
        }
    }

    /// Checks that there is a value for each cell; `name` is the field's, for the error.
    pub(super) fn check_length(&self, name: &str, n_cells: usize) -> Result<()> {
        let check = |name: &str, found| check_length(name, "cells", found, n_cells);
        match self {
            Self::Matrix(features) => check(name, features.n_cells()),
            Self::Category(column) => check(name, column.n_cells()),
            Self::Categories(columns) => {
                columns.iter().try_for_each(|(column, values)| check(column, values.n_cells()))
            }
            Self::Number(values) => check(name, values.len()),
            Self::Numbers(columns) => columns.iter().try_for_each(|(column, values)| check(column, values.len())),
            Self::Coordinates(places) => check(name, places.nrows()),
            Self::Receptor(receptors) => receptors.check_length(name, n_cells),
            Self::GeneSets(_) => Ok(()),
        }
    }
}

macro_rules! made_from {
    ($($variant:ident: $values:ty,)*) => {$(
        impl From<$values> for FieldValues {
            fn from(values: $values) -> Self {
                Self::$variant(values)
            }
        }
    )*};
}

made_from! {
    Matrix: Features,
    Category: Categorical,
    Categories: BTreeMap<String, Categorical>,
    Number: Vec<f32>,
    Numbers: BTreeMap<String, Vec<f32>>,
    Coordinates: Array2<f32>,
    Receptor: Receptors,
    GeneSets: GeneSets,
}
