//! What a version is made of beside its base: the layout that a base's card declares.
//!
//! A reference grows along *axes*: the batch, study or donor of a cell is one, and a model with several covariates has one
//! for each. What a new key of an axis owns are tensors, each of a [`TensorKind`], and the kind decides how a tensor is
//! checked, bounded and protected. A version can also hold *parts*: contributions that are no weights, each under a [`Rule`].
//! Nothing generic infers any of this from a model's name or from what happens to be there: it asks the layout.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    condition::{ConditionKey, Section},
    error::{Error, Result},
    figure::Figure,
    id::Name,
    limits,
    pool::{self, TableSpecs},
    state_dict::TensorSpec,
};

/// What a tensor that a key owns is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TensorKind {
    /// Moved by surgery. Its norm is bounded, it is clipped and gets noise where a site's policy says so.
    Trained,
    /// Computed from the cells and never trained, such as the prior of the library size. Protected as what is trained is,
    /// but apart from it: its size has nothing to do with how far training went.
    Statistic,
    /// 0 or 1, such as whether a feature was measured. Checked to be that, and never clipped, noised or counted in a norm:
    /// a fact with noise is another fact.
    Fact,
}

/// A tensor that every key of an axis owns.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Owned {
    /// Type and shape, without the dimension of the keys.
    pub spec: TensorSpec,
    /// What it is.
    pub kind: TensorKind,
}

/// A way in which a reference grows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Axis {
    /// [`Section::Condition`], or [`Section::Axis`] with its name.
    pub section: Section,
    /// What each of its keys owns, by name; may be nothing.
    pub tensors: BTreeMap<String, Owned>,
    /// Keys of the base whose names mean the same everywhere, such as those of tissues: cells of a query that have one of these
    /// names share its tensors, which the base keeps and surgery leaves as they are. Every other name is new, and its site's own.
    pub shared: Vec<ConditionKey>,
}

/// An axis as a card has it, where fields are named.
#[derive(Serialize, Deserialize)]
struct OnCard {
    section: Section,
    tensors: BTreeMap<String, Owned>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shared: Vec<ConditionKey>,
}

/// In the coordinators' log and state, which name no fields, an axis stands without what is shared: that is a matter of the
/// card and of the sites that read it, and what earlier versions wrote is read.
impl Serialize for Axis {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return (&self.section, &self.tensors).serialize(serializer);
        }
        let Self { section, tensors, shared } = self.clone();
        OnCard { section, tensors, shared }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Axis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            let (section, tensors) = Deserialize::deserialize(deserializer)?;
            return Ok(Self::new(section, tensors));
        }
        let OnCard { section, tensors, shared } = OnCard::deserialize(deserializer)?;
        Ok(Self { section, tensors, shared })
    }
}

impl Axis {
    /// An axis whose keys own these tensors, each of them its site's own.
    pub fn new(section: Section, tensors: BTreeMap<String, Owned>) -> Self {
        Self { section, tensors, shared: Vec::new() }
    }

    /// The key of the base that cells of this name share, if there is one.
    pub fn shared(&self, name: &str) -> Option<&ConditionKey> {
        self.shared.iter().find(|key| key.batch() == name)
    }

    /// What a tensor of this axis is; [`TensorKind::Trained`] for one that it does not own.
    pub fn kind(&self, tensor: &str) -> TensorKind {
        self.tensors.get(tensor).map_or(TensorKind::Trained, |owned| owned.kind)
    }

    /// The tensors of one kind.
    pub fn of_kind(&self, kind: TensorKind) -> impl Iterator<Item = &str> {
        self.tensors.iter().filter(move |(_, owned)| owned.kind == kind).map(|(name, _)| name.as_str())
    }
}

/// How a reference takes new conditions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    /// Surgery trains what they own.
    Surgery,
    /// They own nothing that could be trained. Such a reference can be published and may take parts.
    NoSurgery {
        /// Why, for people.
        reason: String,
    },
}

/// What members of one part are, and how they are put together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Members stand side by side, by name: models, terms. Each is a file of tensors.
    Union,
    /// Members are added up, entry by entry: counts, sums, sums of products. See [`crate::pool::Pool`].
    Pool {
        /// The tables of every entry, by name.
        tables: TableSpecs,
    },
}

/// A value that everybody who has a version can compute alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Derivation {
    /// Name and number of the function, such as `hpl-1`. Another algorithm is another name.
    pub function: Name,
    /// The part whose members it takes, in order of their keys.
    pub part: Name,
}

/// The layout of every version over one base.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// The axes, in the model's order. A key of an axis that is not among them is refused.
    pub axes: Vec<Axis>,
    /// How new conditions come in.
    pub growth: Growth,
    /// The parts, by name.
    pub parts: BTreeMap<Name, Rule>,
    /// The values that are derived, by name.
    pub derived: BTreeMap<Name, Derivation>,
    /// The figures that a condition comes with, where its site lets them out.
    #[serde(default = "usual_figures")]
    pub figures: Vec<Figure>,
}

fn usual_figures() -> Vec<Figure> {
    Figure::USUAL.to_vec()
}

impl Layout {
    /// The layout of references before there were kinds and axes: conditions own tensors, all of them trained.
    pub fn plain(columns: BTreeMap<String, TensorSpec>) -> Self {
        let growth = if columns.is_empty() {
            Growth::NoSurgery { reason: "its conditions own no tensors".to_owned() }
        } else {
            Growth::Surgery
        };
        let trained = |(name, spec)| (name, Owned { spec, kind: TensorKind::Trained });
        let axis = Axis::new(Section::Condition, columns.into_iter().map(trained).collect());
        Self { growth, ..Self::of_axes(vec![axis]) }
    }

    /// A layout with these axes whose conditions are trained by surgery, without parts.
    pub fn of_axes(axes: Vec<Axis>) -> Self {
        let (parts, derived) = (BTreeMap::new(), BTreeMap::new());
        Self { axes, growth: Growth::Surgery, parts, derived, figures: usual_figures() }
    }

    /// Whether [`Self::plain`] says it all.
    pub fn is_plain(&self) -> bool {
        *self == Self::plain(self.columns())
    }

    /// Format of a card with this layout. What an earlier program can read it is given in the earlier format, byte for byte.
    pub fn card_format(&self) -> u32 {
        if self.is_plain() { 1 } else { 2 }
    }

    /// Type and shape of what a condition owns.
    pub fn columns(&self) -> BTreeMap<String, TensorSpec> {
        let owned = self.axis(&Section::Condition).into_iter().flat_map(|axis| &axis.tensors);
        owned.map(|(name, owned)| (name.clone(), owned.spec.clone())).collect()
    }

    /// The axis of a key, if there is such a one.
    pub fn axis(&self, section: &Section) -> Option<&Axis> {
        self.axes.iter().find(|axis| axis.section == *section)
    }

    /// The rule of a part, if there is such a one.
    pub fn rule(&self, section: &Section) -> Option<&Rule> {
        match section {
            Section::Part(part) => self.parts.get(part),
            Section::Condition | Section::Axis(_) => None,
        }
    }

    /// Whether a version may hold members of this section.
    pub fn knows(&self, section: &Section) -> bool {
        self.axis(section).is_some() || self.rule(section).is_some()
    }

    /// Why nobody can hand anything in, if so.
    pub fn refuses_all(&self) -> Option<&str> {
        match &self.growth {
            Growth::NoSurgery { reason } if self.parts.is_empty() => Some(reason),
            _ => None,
        }
    }

    /// Checks what types do not say: axes and tensors are named once, and every derivation has its part.
    ///
    /// # Errors  [`Error::Decode`], [`Error::TooLarge`]
    pub fn check(&self) -> Result<()> {
        let refuse = |detail: String| Err(Error::Decode { what: "layout of a reference", detail });
        let mut owners: BTreeMap<&str, &Section> = BTreeMap::new();
        for (position, axis) in self.axes.iter().enumerate() {
            if matches!(axis.section, Section::Part(_))
                || self.axes[..position].iter().any(|a| a.section == axis.section)
            {
                return refuse(format!("{} is no axis, or stands there twice", axis.section));
            }
            if let Some((tensor, _)) =
                axis.tensors.keys().map(|t| (t, owners.insert(t, &axis.section))).find(|o| o.1.is_some())
            {
                return refuse(format!("tensor `{tensor}` belongs to two axes"));
            }
            let mut names = BTreeSet::new();
            let is_wrong =
                |key: &&ConditionKey| *key.section() != axis.section || !names.insert(key.batch().to_owned());
            if let Some(key) = axis.shared.iter().find(is_wrong) {
                return refuse(format!("`{key}` is no key of {}, or its name stands there twice", axis.section));
            }
        }
        if let Some((name, missing)) = self.derived.iter().find(|(_, d)| !self.parts.contains_key(&d.part)) {
            return refuse(format!("`{name}` is derived from part `{}`, which is not declared", missing.part));
        }
        for rule in self.parts.values() {
            if let Rule::Pool { tables } = rule {
                pool::check(tables)?;
            }
        }
        let n_tables = |rule: &Rule| match rule {
            Rule::Union => 0,
            Rule::Pool { tables } => tables.len(),
        };
        let n_sections = self.axes.len() + self.parts.len() + self.derived.len();
        let n_tensors = self.axes.iter().map(|axis| axis.tensors.len()).chain(self.parts.values().map(n_tables)).sum();
        let bounded = [
            ("sections", n_sections, limits::SECTIONS),
            ("tensors", n_tensors, limits::TENSORS),
            ("shared keys", self.axes.iter().map(|axis| axis.shared.len()).sum(), limits::CONDITIONS),
            ("figures", self.figures.len(), limits::FIGURES),
        ];
        for (unit, found, limit) in bounded {
            if found > limit {
                let (what, found, limit) = ("layout of a reference".to_owned(), found as u64, limit as u64);
                return Err(Error::TooLarge { what, found, limit, unit });
            }
        }
        Ok(())
    }
}

/// How a card writes its layout: a plain one as the map of tensors that cards of format 1 have.
pub(crate) mod on_card {
    use super::{BTreeMap, Deserialize, Deserializer, Layout, Serialize, Serializer, TensorSpec};

    pub(crate) fn serialize<S: Serializer>(layout: &Layout, serializer: S) -> Result<S::Ok, S::Error> {
        if layout.is_plain() { layout.columns().serialize(serializer) } else { layout.serialize(serializer) }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Layout, D::Error> {
        // A list of axes is no tensor, so neither form can be taken for the other.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Plain(BTreeMap<String, TensorSpec>),
            Whole(Layout),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Plain(columns) => Layout::plain(columns),
            Written::Whole(layout) => layout,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec, state_dict::DType};

    fn owned(kind: TensorKind) -> Owned {
        Owned { spec: TensorSpec { dtype: DType::F32, shape: vec![2] }, kind }
    }

    fn axis(section: Section, tensors: &[(&str, TensorKind)]) -> Axis {
        Axis::new(section, tensors.iter().map(|(n, kind)| ((*n).to_owned(), owned(*kind))).collect())
    }

    #[test]
    fn a_layout_goes_through_log_and_state_as_it_always_did_and_a_card_keeps_what_is_shared() {
        let plain = axis(donor(), &[("w", TensorKind::Trained)]);
        let shared = Axis { shared: vec!["r/atlas@donor/a".parse().unwrap()], ..plain.clone() };
        let layout = |axis: &Axis| Layout::of_axes(vec![axis.clone()]);
        let bytes = |layout: &Layout| codec::encode("layout", layout, 1 << 20).unwrap();
        let read = |bytes: &[u8]| codec::decode::<Layout>("layout", bytes, 1 << 20).unwrap();
        for given in [&plain, &shared] {
            assert_eq!(read(&bytes(&layout(given))), layout(&plain));
            let on_card = serde_json::to_string(&layout(given)).unwrap();
            assert_eq!(serde_json::from_str::<Layout>(&on_card).unwrap(), layout(given));
        }
        // What an axis was before anything could be shared: two fields in a row.
        let before = codec::encode("axis", &(&plain.section, &plain.tensors), 1 << 20).unwrap();
        assert_eq!(codec::encode("axis", &shared, 1 << 20).unwrap(), before);
    }

    fn donor() -> Section {
        Section::Axis("donor".parse().unwrap())
    }

    #[test]
    fn only_what_an_earlier_program_would_misread_is_written_in_the_later_format() {
        let trained = axis(Section::Condition, &[("w", TensorKind::Trained)]);
        assert_eq!(Layout::of_axes(vec![trained.clone()]).card_format(), 1);
        let with_fact = axis(Section::Condition, &[("w", TensorKind::Trained), ("seen", TensorKind::Fact)]);
        assert_eq!(Layout::of_axes(vec![with_fact]).card_format(), 2);
        let two = vec![trained.clone(), axis(donor(), &[("v", TensorKind::Trained)])];
        assert_eq!(Layout::of_axes(two).card_format(), 2);
        let growth = Growth::NoSurgery { reason: "cells are moved by arithmetic".to_owned() };
        assert_eq!(Layout { growth, ..Layout::of_axes(vec![axis(Section::Condition, &[])]) }.card_format(), 2);
        let figures = vec![Figure::RECONSTRUCTION];
        assert_eq!(Layout { figures, ..Layout::of_axes(vec![trained]) }.card_format(), 2);
    }

    #[test]
    fn a_reference_that_cannot_be_trained_onto_may_still_take_parts() {
        let growth = Growth::NoSurgery { reason: "it has no encoder".to_owned() };
        let mut layout = Layout { growth, ..Layout::of_axes(vec![axis(Section::Condition, &[])]) };
        assert_eq!(layout.refuses_all(), Some("it has no encoder"));
        layout.parts.insert("models".parse().unwrap(), Rule::Union);
        assert_eq!(layout.refuses_all(), None);
        assert!(layout.knows(&Section::Part("models".parse().unwrap())));
        assert!(!layout.knows(&Section::Part("terms".parse().unwrap())));
    }

    #[test]
    fn a_contradiction_is_refused() {
        let w = |section| axis(section, &[("w", TensorKind::Trained)]);
        assert!(Layout::of_axes(vec![w(Section::Condition), w(donor())]).check().is_err());
        assert!(Layout::of_axes(vec![axis(donor(), &[]), axis(donor(), &[])]).check().is_err());
        assert!(Layout::of_axes(vec![axis(Section::Part("p".parse().unwrap()), &[])]).check().is_err());
        let shared = |keys: &[&str]| {
            let shared = keys.iter().map(|key| key.parse().unwrap()).collect();
            Layout::of_axes(vec![axis(Section::Condition, &[]), Axis { shared, ..w(donor()) }]).check()
        };
        shared(&["r/atlas@donor/a", "r/atlas@donor/b"]).unwrap();
        assert!(shared(&["r/atlas/a"]).is_err() && shared(&["r/atlas@tissue/a"]).is_err());
        assert!(shared(&["r/atlas@donor/a", "r/other@donor/a"]).is_err());
        let mut layout = Layout::of_axes(vec![w(Section::Condition)]);
        layout.check().unwrap();
        let (function, part) = ("hpl-1".parse().unwrap(), "prototypes".parse().unwrap());
        layout.derived.insert("tree".parse().unwrap(), Derivation { function, part });
        assert!(layout.check().is_err());
    }
}
