//! What a model takes of a cell, as a list that it declares.
//!
//! A [`Field`] has a name, a kind and a need. Whoever reads files looks at the list and at nothing else of a model: there is
//! one reader for each kind, and a field that is new to this program is a line in a model's folder.

use std::borrow::Cow;

use archipelago_common::Name;
use serde::{Deserialize, Serialize};

use super::Chain;

/// One thing that a model takes of a cell, beside its condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name: in a model's code, on the command line and in a site's configuration.
    pub name: Cow<'static, str>,
    /// What it is.
    pub kind: FieldKind,
    /// When it must be there.
    pub need: Need,
    /// What it holds, for people: a phrase without an article at its end.
    pub help: &'static str,
    /// Whether a query may bring labels that the reference does not have, or none: for a model in which no layer hears of them. The one
    /// way for labels to grow: what follows from it is said in [`Registry`](super::Registry).
    pub grows: bool,
    /// Whether single cells may lack it: zeros stand for it there. Only of a matrix.
    pub partial: bool,
    /// Names that say, in a file, that a cell has none, as no value at all does. Only of labels.
    pub none: Vec<String>,
}

/// What a field is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FieldKind {
    /// Numbers of named features, cells × features: a modality. The first matrix of a model is [`RNA`], whose features are the
    /// reference's genes; any other one keeps a panel of its own.
    Matrix(Values),
    /// One of several names, each known from the reference.
    Category,
    /// A name on an axis of its own, along which the reference grows: a condition key where a model takes several. What its names
    /// make together is a cell's condition then.
    Axis(Names),
    /// Several columns of categories, which layers take beside the condition.
    Categories,
    /// A cell type, or another name that a model learns.
    Labels {
        /// The category that stands for cells without a label, for a model that takes such cells.
        unlabelled: Option<String>,
    },
    /// A number.
    Number(Range),
    /// Several columns of numbers.
    Numbers,
    /// A place: as many numbers for each cell as the reference's cells have.
    Coordinates,
    /// The receptor of a T cell: amino acids of its chains.
    Receptor {
        /// The chains that a model takes, each of them in every cell.
        chains: Vec<Chain>,
        /// Amino acids of a chain that a model looks at; those of the reference's longest sequence if unset.
        length: Option<usize>,
    },
    /// Sets of genes: of the reference and not of a cell, so that a query brings none.
    GeneSets,
}

/// What the numbers of a matrix are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Values {
    /// Raw counts: whole numbers of at least 0.
    Counts,
    /// Counts normalised by the total of their cell, and then log1p of that.
    LogNormalised,
    /// Any finite numbers, such as centred log ratios.
    Finite,
    /// Numbers from 0 to 1, such as whether a peak is open.
    Shares,
}

/// Which numbers a column may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Range {
    /// Any finite number.
    Finite,
    /// Finite numbers above 0.
    Positive,
}

/// Whose the names on an axis are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    /// A site's own, such as those of donors: a query's are new, whatever they are called.
    Own,
    /// Everybody's, such as those of tissues: cells of a name that the reference knows share what it has learnt of it, which stays
    /// as it is. A name that it does not know is new, and its site's own.
    Common,
}

/// When a field must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// A reference needs it, and so does every query.
    Required,
    /// A reference needs it. A query may lack it: its labels are unknown then, its features missing.
    ToTrain,
    /// A reference takes it where it is given; every query then needs what the reference took.
    Optional,
    /// A reference takes it where it is given, and a query may bring it whether or not the reference did.
    Free,
}

impl Need {
    /// Whether a reference cannot be made without it.
    pub fn is_to_train(self) -> bool {
        matches!(self, Self::Required | Self::ToTrain)
    }
}

impl Field {
    /// A field of this kind.
    pub const fn new(name: &'static str, kind: FieldKind, need: Need, help: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), kind, need, help, grows: false, partial: false, none: Vec::new() }
    }

    /// The same field, of which a query may bring labels that the reference does not have, or none.
    #[must_use]
    pub const fn growing(mut self) -> Self {
        self.grows = true;
        self
    }

    /// The same field, of which these names say that a cell has none.
    #[must_use]
    pub fn without(self, none: &[String]) -> Self {
        Self { none: none.to_vec(), ..self }
    }

    /// The expression of genes, which every model takes.
    pub const fn rna(values: Values) -> Self {
        Self::new(RNA, FieldKind::Matrix(values), Need::Required, "expression of the genes")
    }

    /// Cell types that every cell has.
    pub const fn labels() -> Self {
        Self::new(LABELS, FieldKind::Labels { unlabelled: None }, Need::Required, "cell types")
    }

    /// Cell types that some cells have; `unlabelled` stands for those of the others.
    pub const fn some_labels(unlabelled: String) -> Self {
        let kind = FieldKind::Labels { unlabelled: Some(unlabelled) };
        Self::new(LABELS, kind, Need::ToTrain, "cell types of those cells that have one")
    }

    /// An axis: a covariate along which a reference grows, beside others. The axes of a model are in the order of its fields.
    pub fn axis(name: &Name, names: Names) -> Self {
        let help = match names {
            Names::Own => "names of one condition key, new at every site",
            Names::Common => "names of one condition key, which mean the same at every site",
        };
        let name = Cow::Owned(name.as_str().to_owned());
        Self { name, ..Self::new("", FieldKind::Axis(names), Need::Required, help) }
    }

    /// The gene sets that a reference is built on.
    pub const fn gene_sets() -> Self {
        let help = "gene sets, each a dimension of the latent space";
        Self::new(GENE_SETS, FieldKind::GeneSets, Need::ToTrain, help)
    }

    /// Gene sets beside those.
    pub const fn new_gene_sets() -> Self {
        Self::new(NEW_GENE_SETS, FieldKind::GeneSets, Need::Optional, "gene sets of new terms, beside those")
    }

    /// Further categorical covariates, beside the batch.
    pub const fn categorical() -> Self {
        Self::new(CATEGORICAL, FieldKind::Categories, Need::Optional, "categorical covariates beside the batch")
    }

    /// Continuous covariates.
    pub const fn continuous() -> Self {
        Self::new(CONTINUOUS, FieldKind::Numbers, Need::Optional, "continuous covariates")
    }

    /// A size factor in place of the library size.
    pub const fn size_factor() -> Self {
        let kind = FieldKind::Number(Range::Positive);
        Self::new(SIZE_FACTOR, kind, Need::Optional, "size factors, which replace the library size in the decoder")
    }
}

impl FieldKind {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Matrix(_) => "matrix",
            Self::Category => "category",
            Self::Axis(_) => "axis",
            Self::Categories => "categories",
            Self::Labels { .. } => "labels",
            Self::Number(_) => "number",
            Self::Numbers => "numbers",
            Self::Coordinates => "coordinates",
            Self::Receptor { .. } => "receptor",
            Self::GeneSets => "gene sets",
        }
    }

    /// Whether it tells people apart as a name does: what places of single cells are made of such a field stay at a site.
    pub fn identifies_people(&self) -> bool {
        matches!(self, Self::Receptor { .. })
    }

    /// Whether the reference has it, and no cell.
    pub fn is_of_the_reference(&self) -> bool {
        matches!(self, Self::GeneSets)
    }
}

impl Values {
    /// What they are, for errors.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Counts => "raw counts, whole numbers of at least 0",
            Self::LogNormalised => "values that are normalised and log-transformed",
            Self::Finite => "finite numbers",
            Self::Shares => "numbers from 0 to 1",
        }
    }

    /// Whether a single value can be one of them. That none of many is a fraction, which tells counts from logarithms, is
    /// for whoever sees them all.
    pub fn allow(self, value: f32) -> bool {
        let is_number = value.is_finite() && value >= 0.0;
        match self {
            Self::Counts => is_number && value.fract() == 0.0,
            Self::LogNormalised => is_number && value <= LARGEST_LOG,
            Self::Finite => value.is_finite(),
            Self::Shares => is_number && value <= 1.0,
        }
    }
}

impl Range {
    /// What is allowed, for errors.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Finite => "finite numbers",
            Self::Positive => "finite numbers above 0",
        }
    }

    /// Whether it allows a value.
    pub fn allows(self, value: f32) -> bool {
        value.is_finite() && (self == Self::Finite || value > 0.0)
    }
}

/// The field of gene expression.
pub const RNA: &str = "rna";
/// The field of cell types.
pub const LABELS: &str = "labels";
/// The field of further categorical covariates.
pub const CATEGORICAL: &str = "categorical";
/// The field of continuous covariates.
pub const CONTINUOUS: &str = "continuous";
/// The field of size factors.
pub const SIZE_FACTOR: &str = "size_factor";
/// The field of gene sets.
pub const GENE_SETS: &str = "gene_sets";
/// The field of gene sets beside those.
pub const NEW_GENE_SETS: &str = "new_gene_sets";
/// What a source that is a column of obs begins with.
pub const OBS: &str = "obs/";
/// What a source that is a table of obsm begins with.
pub const OBSM: &str = "obsm/";
/// No logarithm of a count is larger: e to this power is more than all the molecules of a cell.
const LARGEST_LOG: f32 = 30.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_what_it_can_be() {
        for (value, is_count, is_log) in
            [(0.0, true, true), (3.0, true, true), (0.5, false, true), (-1.0, false, false), (100.5, false, false)]
        {
            assert_eq!(
                (Values::Counts.allow(value), Values::LogNormalised.allow(value)),
                (is_count, is_log),
                "{value}"
            );
        }
        assert!(Values::Finite.allow(-2.5) && !Values::Finite.allow(f32::NAN));
        assert!(Values::Shares.allow(0.5) && !Values::Shares.allow(1.5) && !Values::Shares.allow(-0.5));
        assert!(!Values::Counts.allow(f32::NAN) && !Values::LogNormalised.allow(f32::INFINITY));
        assert!(Range::Finite.allows(-1.0) && !Range::Positive.allows(0.0) && !Range::Finite.allows(f32::NAN));
    }
}
