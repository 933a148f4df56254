//! Typed handles of fields: asked for once, when a module is built.
//!
//! A name that no field has, and a field that is of another kind, are errors while the module is built. What a slot fetches
//! from a minibatch is there.

use std::marker::PhantomData;

use super::{
    GeneSets as Sets, LabelNames, Panel, Range, ReceptorForm,
    encoding::{Categories as CategoryNames, Encoding},
};

/// A field of kind `K` that the registry has.
#[derive(Debug)]
pub struct Slot<K> {
    /// Its place among the fields that have a value for each cell.
    pub(super) index: usize,
    width: usize,
    kind: PhantomData<K>,
}

impl<K> Slot<K> {
    pub(super) fn new(index: usize, width: usize) -> Self {
        Self { index, width, kind: PhantomData }
    }

    /// How many there are of what the field names: features of a matrix, categories, labels, numbers of a cell, amino acids
    /// of a receptor.
    pub fn width(&self) -> usize {
        self.width
    }
}

impl<K> Clone for Slot<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Slot<K> {}

impl<K> PartialEq for Slot<K> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.width) == (other.index, other.width)
    }
}

/// A kind of field, as a type.
pub trait SlotKind {
    /// What the registry remembers of such a field.
    type Encoding;
    /// Its name in errors.
    const NAME: &'static str;

    /// What the registry remembers, if it is of this kind.
    fn of(encoding: &Encoding) -> Option<&Self::Encoding>;
}

/// A kind of field of which a minibatch holds a tensor.
pub trait PerCell: SlotKind {}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $encoding:ty, $name:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $kind;

        impl SlotKind for $kind {
            type Encoding = $encoding;
            const NAME: &'static str = $name;

            fn of(encoding: &Encoding) -> Option<&$encoding> {
                match encoding {
                    Encoding::$kind(remembered) => Some(remembered),
                    _ => None,
                }
            }
        }
    )*};
}

kinds! {
    /// Values of named features: `[n, n_features]`.
    Matrix, Panel, "matrix";
    /// Codes of categories: `[n]`.
    Category, Vec<String>, "category";
    /// Codes of several columns, which are part of [`Covariates`](super::Covariates).
    Categories, CategoryNames, "categories";
    /// Codes of labels: `[n]`. A cell without a label has their number as its code.
    Labels, LabelNames, "labels";
    /// A number: `[n, 1]`.
    Number, Range, "number";
    /// Several numbers: `[n, n_columns]`.
    Numbers, Vec<String>, "numbers";
    /// A place: `[n, n_dimensions]`.
    Coordinates, usize, "coordinates";
    /// Codes of amino acids, chain behind chain, 0 behind the last one of each: `[n, n_chains * length]`.
    Receptor, ReceptorForm, "receptor";
    /// Which genes belong to which terms; the registry has it, and no minibatch.
    GeneSets, Sets, "gene sets";
}

impl PerCell for Matrix {}
impl PerCell for Category {}
impl PerCell for Labels {}
impl PerCell for Number {}
impl PerCell for Numbers {}
impl PerCell for Coordinates {}
impl PerCell for Receptor {}
