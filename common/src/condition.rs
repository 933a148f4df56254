//! Conditions and the columns they own: the value that surgery trains and a site sends.
//!
//! Columns of different conditions are disjoint tensors, so merging is a union of maps: commutative, associative,
//! idempotent and revocable, without a single floating-point operation. [`merge`] and [`withdraw`] are that algebra. It knows
//! keys and not what they stand for, so everything that a version holds beside its base goes through it alike: the keys
//! of every axis, and the members of every part. The [`Section`] of a key says which of these it is.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    error::{Error, Result},
    id::{Name, SiteId, shorten},
    limits,
    state_dict::StateDict,
};

/// Where in a reference a key belongs. The reference's [`crate::layout::Layout`] says what it owns there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// The first axis of every reference that grows: its batch, study or donor.
    #[default]
    Condition,
    /// A further axis, for a model that has a covariate more.
    Axis(Name),
    /// A part: no weights, but something else that a site contributes.
    Part(Name),
}

impl Section {
    // Neither sign can stand in a data set's name, so a program that knows conditions only refuses such a key.
    const AXIS: char = '@';
    const PART: char = '+';

    /// The data set and the section that a key names before its last `/`.
    fn split(text: &str) -> Result<(Name, Self)> {
        let dataset = |text| Name::parse("data set name", text);
        if let Some((before, axis)) = text.split_once(Self::AXIS) {
            return Ok((dataset(before)?, Self::Axis(Name::parse("axis", axis)?)));
        }
        match text.split_once(Self::PART) {
            Some((before, part)) => Ok((dataset(before)?, Self::Part(Name::parse("part", part)?))),
            None => Ok((dataset(text)?, Self::Condition)),
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Condition => f.write_str("the conditions"),
            Self::Axis(name) => write!(f, "axis `{name}`"),
            Self::Part(name) => write!(f, "part `{name}`"),
        }
    }
}

/// The name of one batch, study or donor, unique in a consortium: `owner/dataset/batch`. A key of a further axis is
/// `owner/dataset@axis/name`, a member of a part `owner/dataset+part/name`.
///
/// The owner is the authenticated site (or the operator that published the reference), so keys of different sites
/// cannot collide.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct ConditionKey {
    owner: SiteId,
    dataset: Name,
    section: Section,
    batch: String,
}

impl ConditionKey {
    /// The key of `batch` in `dataset` at `owner`, a condition. A batch name is any text of up to 128 bytes without control
    /// characters, as it stands in the data.
    ///
    /// # Errors  [`Error::InvalidName`]
    pub fn new(owner: SiteId, dataset: Name, batch: impl Into<String>) -> Result<Self> {
        let batch = batch.into();
        if batch.is_empty() || batch.len() > limits::BATCH_NAME_BYTES || batch.chars().any(char::is_control) {
            return Err(Error::InvalidName {
                what: "batch name",
                found: shorten(&batch),
                expected: "1 to 128 bytes without control characters",
            });
        }
        Ok(Self { owner, dataset, section: Section::Condition, batch })
    }

    /// The same name in another section.
    #[must_use]
    pub fn in_section(self, section: Section) -> Self {
        Self { section, ..self }
    }

    /// The site or operator whose namespace the key is in.
    pub fn owner(&self) -> &SiteId {
        &self.owner
    }

    /// The data set, named by its owner.
    pub fn dataset(&self) -> &Name {
        &self.dataset
    }

    /// Where in the reference it belongs.
    pub fn section(&self) -> &Section {
        &self.section
    }

    /// Whether it names a member of a part, and no columns.
    pub fn is_part(&self) -> bool {
        matches!(self.section, Section::Part(_))
    }

    /// The batch as it is called in the data; the category of a further axis, or the member of a part.
    pub fn batch(&self) -> &str {
        &self.batch
    }

    /// The pieces of its text, to be put one after the other.
    pub(crate) fn pieces(&self) -> [&[u8]; 7] {
        let (sign, section): (&[u8], &str) = match &self.section {
            Section::Condition => (b"", ""),
            Section::Axis(axis) => (b"@", axis.as_str()),
            Section::Part(part) => (b"+", part.as_str()),
        };
        let (owner, dataset) = (self.owner.as_str().as_bytes(), self.dataset.as_str().as_bytes());
        [owner, b"/", dataset, sign, section.as_bytes(), b"/", self.batch.as_bytes()]
    }
}

impl fmt::Display for ConditionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.dataset)?;
        match &self.section {
            Section::Condition => {}
            Section::Axis(axis) => write!(f, "{}{axis}", Section::AXIS)?,
            Section::Part(part) => write!(f, "{}{part}", Section::PART)?,
        }
        write!(f, "/{}", self.batch)
    }
}

impl fmt::Debug for ConditionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl FromStr for ConditionKey {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, '/');
        let (Some(owner), Some(dataset), Some(batch)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Error::InvalidName {
                what: "condition key",
                found: shorten(text),
                expected: "`owner/dataset/batch`",
            });
        };
        let (dataset, section) = Section::split(dataset)?;
        Ok(Self::new(owner.parse()?, dataset, batch)?.in_section(section))
    }
}

impl From<ConditionKey> for String {
    fn from(key: ConditionKey) -> Self {
        key.to_string()
    }
}

impl<'de> Deserialize<'de> for ConditionKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The tensors that exist once per condition: one covariate column of each layer that takes the batch, an embedding
/// row, a dispersion column. Small: two columns of 128 numbers for the usual model.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Columns(pub StateDict);

impl Columns {
    /// The file that travels and is stored: safetensors, the same bytes for the same columns.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_safetensors(None)
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors  [`Error::Decode`], [`Error::TooLarge`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > limits::COLUMNS_BYTES {
            let (found, limit) = (bytes.len() as u64, limits::COLUMNS_BYTES);
            return Err(Error::TooLarge { what: "columns".to_owned(), found, limit, unit: "bytes" });
        }
        StateDict::from_safetensors("columns", bytes).map(|(tensors, _)| Self(tensors))
    }
}

/// The union of two sets of conditions. Equal columns under one key are one; different ones are a collision.
///
/// # Errors  [`Error::KeyCollision`]
pub fn merge<C: Clone + PartialEq>(
    left: &BTreeMap<ConditionKey, C>,
    right: &BTreeMap<ConditionKey, C>,
) -> Result<BTreeMap<ConditionKey, C>> {
    let mut union = left.clone();
    for (key, columns) in right {
        match union.get(key) {
            None => drop(union.insert(key.clone(), columns.clone())),
            Some(present) if present == columns => {}
            Some(_) => return Err(Error::KeyCollision { key: Box::new(key.clone()) }),
        }
    }
    Ok(union)
}

/// The conditions without some keys.
///
/// # Errors  [`Error::UnknownKey`] if a key is not there
pub fn withdraw<'a, C: Clone>(
    conditions: &BTreeMap<ConditionKey, C>,
    keys: impl IntoIterator<Item = &'a ConditionKey>,
) -> Result<BTreeMap<ConditionKey, C>> {
    let mut rest = conditions.clone();
    for key in keys {
        rest.remove(key).ok_or_else(|| Error::UnknownKey { key: Box::new(key.clone()) })?;
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state_dict::Tensor;

    fn key(text: &str) -> ConditionKey {
        text.parse().unwrap()
    }

    const SECTIONS: [&str; 4] = ["", "@donor", "+prototypes", "+models"];

    fn conditions() -> impl Strategy<Value = BTreeMap<ConditionKey, u8>> {
        // The value is a function of the key, as columns are of a condition, so that overlaps agree.
        proptest::collection::btree_set(0_u8..20, 0..10).prop_map(|keys| {
            let key_of = |k: u8| key(&format!("s{}/d{}/b{k}", k % 3, SECTIONS[usize::from(k) % SECTIONS.len()]));
            keys.into_iter().map(|k| (key_of(k), k)).collect()
        })
    }

    proptest! {
        #[test]
        fn merge_is_commutative_associative_and_idempotent(a in conditions(), b in conditions(), c in conditions()) {
            let ab = merge(&a, &b).unwrap();
            prop_assert_eq!(&ab, &merge(&b, &a).unwrap());
            prop_assert_eq!(merge(&ab, &c).unwrap(), merge(&a, &merge(&b, &c).unwrap()).unwrap());
            prop_assert_eq!(&merge(&ab, &ab).unwrap(), &ab);
        }

        #[test]
        fn withdraw_undoes_merge(a in conditions(), b in conditions()) {
            let new: BTreeMap<_, _> = b.into_iter().filter(|(key, _)| !a.contains_key(key)).collect();
            let merged = merge(&a, &new).unwrap();
            prop_assert_eq!(withdraw(&merged, new.keys()).unwrap(), a);
        }
    }

    #[test]
    fn different_columns_under_one_key_collide() {
        let a = BTreeMap::from([(key("s/d/b"), 1)]);
        let b = BTreeMap::from([(key("s/d/b"), 2)]);
        assert!(matches!(merge(&a, &b), Err(Error::KeyCollision { .. })));
    }

    #[test]
    fn unknown_keys_cannot_be_withdrawn() {
        let a = BTreeMap::from([(key("s/d/b"), 1)]);
        assert!(matches!(withdraw(&a, [&key("s/d/c")]), Err(Error::UnknownKey { .. })));
    }

    #[test]
    fn keys_round_trip_as_text_even_with_odd_batch_names() {
        let odd = key("site-a/lung/10x 5' v2/lane 1");
        assert_eq!(odd.batch(), "10x 5' v2/lane 1");
        assert_eq!(odd.to_string().parse::<ConditionKey>().unwrap(), odd);
        for bad in
            ["", "a/b", "A/b/c", "a/b/", "a/b/c\n", "a/../c", "a/b@/c", "a/b+/c", "a/@x/c", "a/b@x+y/c", "a/b+X/c"]
        {
            assert!(bad.parse::<ConditionKey>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_says_where_it_belongs_and_keys_of_conditions_are_what_they_were() {
        let named = |name: &str| name.parse::<Name>().unwrap();
        assert_eq!(key("s/lung@donor/D 1").section(), &Section::Axis(named("donor")));
        assert_eq!(key("s/lung+prototypes/T@cell+x/y").section(), &Section::Part(named("prototypes")));
        assert_eq!(key("s/lung/10x@v3+y").section(), &Section::Condition);
        for text in ["s/lung@donor/D 1", "s/lung+prototypes/T@cell+x/y", "s/lung/10x@v3+y"] {
            assert_eq!(key(text).to_string(), text);
            assert_eq!(key(text).dataset(), &named("lung"));
        }
        // Within a data set the conditions stand first, in the order of their names as ever.
        assert!(key("s/d/b") < key("s/d/c") && key("s/d/z") < key("s/d@a/a") && key("s/d@z/a") < key("s/d+a/a"));
    }

    #[test]
    fn columns_round_trip() {
        let columns = Columns(StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[2], &[1.0, 2.0]))]));
        assert_eq!(Columns::from_bytes(&columns.to_bytes()).unwrap(), columns);
        assert!(Columns::from_bytes(&vec![0; limits::COLUMNS_BYTES as usize + 1]).is_err());
    }
}
