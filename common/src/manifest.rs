//! What a reference is: a frozen base and, per condition, its columns.
//!
//! The base travels as one safetensors file whose metadata is the [`BaseCard`]; its digest is the digest of that
//! file. A [`Version`] is a base and a map from key to columns, or to the member of a part. Its [`VersionId`] hashes the base digest and the
//! columns sorted by key, so every order of merging gives the same id.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    blob::BlobRef,
    condition::{self, ConditionKey, Section},
    error::{Error, Result},
    hash::FieldHasher,
    id::{Name, VersionId},
    layout::{self, Layout},
    limits,
    state_dict::{self, StateDict},
};

/// Everything about a base except its tensors.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseCard {
    /// Format of this card: [`Layout::card_format`] of its layout.
    pub format: u32,
    /// Name of the model in the zoo.
    pub model: String,
    /// The model's own options, with every default written out. Sorted by name, so that equal options are equal bytes.
    pub config: BTreeMap<String, serde_json::Value>,
    /// The gene panel, in order.
    pub genes: Vec<String>,
    /// The obs column that held the batch when the reference was trained.
    pub batch_key: String,
    /// The obs column that held the labels, where the model uses labels.
    pub labels_key: Option<String>,
    /// Label names by code, where the model uses labels.
    pub labels: Vec<String>,
    /// What versions over this base hold. A plain layout is written as cards of format 1 have it: the tensors that each
    /// condition owns, by name, with the batch dimension taken out.
    #[serde(rename = "columns", with = "layout::on_card")]
    pub layout: Layout,
    /// Whether surgery can move a query's embedding: the encoder takes the batch.
    pub moves_embedding: bool,
    /// How the base came to be, for people: cells, epochs, seed, final loss. No names of cells, no paths.
    pub training: BTreeMap<String, serde_json::Value>,
    /// How the cells were prepared, so that every site prepares its own the same way; a `Recipe` of the worker. Cards
    /// without one read and hash as they did before there were recipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<serde_json::Value>,
}

impl BaseCard {
    /// The latest card format that this build reads; it writes the earliest that holds the card's layout.
    pub const FORMAT: u32 = 2;
    /// The format of a card with a plain layout.
    pub const PLAIN_FORMAT: u32 = 1;

    /// What `training` says of a base that approximate surgery made: it stands alone and is never published.
    pub const APPROXIMATE: (&str, &str) = ("surgery", "approximate: upstream's rules");

    /// Whether approximate surgery made this base.
    pub fn is_approximate(&self) -> bool {
        let (fact, value) = Self::APPROXIMATE;
        self.training.get(fact).is_some_and(|found| found == value)
    }

    /// Reads the card from the start of a base file, without its tensors.
    ///
    /// # Errors  [`Error::Decode`], [`Error::UnknownVersion`], [`Error::TooLarge`]
    pub fn read(file: &mut impl std::io::Read) -> Result<Self> {
        state_dict::read_metadata(BASE, file).and_then(require_card)
    }
}

/// The frozen part of a reference.
#[derive(Clone, PartialEq, Debug)]
pub struct Base {
    /// What it is.
    pub card: BaseCard,
    /// Its tensors; none of them depends on a condition.
    pub tensors: StateDict,
}

impl Base {
    /// The file that travels and is stored; the same bytes for the same base.
    ///
    /// # Errors  [`Error::Decode`] if the card has a number JSON cannot hold
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let card = serde_json::to_string(&self.card)
            .map_err(|e| Error::Decode { what: "reference card", detail: e.to_string() })?;
        Ok(self.tensors.to_safetensors(Some(&card)))
    }

    /// Reads what [`Self::to_bytes`] wrote. Verify the digest first, with [`BlobRef::verify`].
    ///
    /// # Errors  [`Error::Decode`], [`Error::UnknownVersion`], [`Error::TooLarge`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (tensors, card) = StateDict::from_safetensors(BASE, bytes)?;
        Ok(Self { card: require_card(card)?, tensors })
    }
}

/// What a base file is called in errors.
const BASE: &str = "reference";

fn require_card(text: Option<String>) -> Result<BaseCard> {
    parse_card(&text.ok_or_else(|| Error::Decode {
        what: BASE,
        detail: "the file has no metadata `archipelago`, so it is not one of our references".to_owned(),
    })?)
}

fn parse_card(text: &str) -> Result<BaseCard> {
    const WHAT: &str = "reference card";
    let decode = |e: serde_json::Error| Error::Decode { what: WHAT, detail: e.to_string() };
    // The format is looked at first, so that a later card says "version 2" and not "unknown field".
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_str(text).map_err(decode)?;
    if !(BaseCard::PLAIN_FORMAT..=BaseCard::FORMAT).contains(&format) {
        return Err(Error::UnknownVersion { what: WHAT, found: format, expected: BaseCard::FORMAT });
    }
    let card: BaseCard = serde_json::from_str(text).map_err(decode)?;
    card.layout.check()?;
    // Else one layout could stand in two cards, and one reference have two digests.
    let expected = card.layout.card_format();
    if format != expected {
        let detail = format!("its layout belongs into format {expected}, but the card says {format}");
        return Err(Error::Decode { what: WHAT, detail });
    }
    if card.genes.len() > limits::GENES {
        let (found, limit) = (card.genes.len() as u64, limits::GENES as u64);
        return Err(Error::TooLarge { what: WHAT.to_owned(), found, limit, unit: "genes" });
    }
    Ok(card)
}

/// A base, the conditions mapped onto it, and the parts that sites contributed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The base file.
    pub base: BlobRef,
    /// The file of each key: columns, or the member of a part. A part needs no map of its own, because what holds of one
    /// (an owner's namespace, merging, withdrawal, the id) holds of the other word for word.
    pub columns: BTreeMap<ConditionKey, BlobRef>,
}

impl Version {
    /// Hash of the base digest and the columns sorted by key.
    pub fn id(&self) -> VersionId {
        Self::id_of(self.base, &self.columns)
    }

    /// The id of a version whose parts are kept apart.
    pub fn id_of(base: BlobRef, columns: &BTreeMap<ConditionKey, BlobRef>) -> VersionId {
        let mut hasher = FieldHasher::new("archipelago/version/1");
        hasher.field(base.digest.as_bytes());
        for (key, columns) in columns {
            hasher.field_of(&key.pieces()).field(columns.digest.as_bytes());
        }
        VersionId(hasher.finish())
    }

    /// This version with more conditions.
    ///
    /// # Errors  [`Error::KeyCollision`], [`Error::TooLarge`]
    pub fn merged(&self, new: &BTreeMap<ConditionKey, BlobRef>) -> Result<Self> {
        let columns = condition::merge(&self.columns, new)?;
        if columns.len() > limits::CONDITIONS {
            let (found, limit) = (columns.len() as u64, limits::CONDITIONS as u64);
            return Err(Error::TooLarge { what: "version".to_owned(), found, limit, unit: "conditions" });
        }
        Ok(Self { base: self.base, columns })
    }

    /// This version without some conditions.
    ///
    /// # Errors  [`Error::UnknownKey`]
    pub fn without<'a>(&self, keys: impl IntoIterator<Item = &'a ConditionKey>) -> Result<Self> {
        Ok(Self { base: self.base, columns: condition::withdraw(&self.columns, keys)? })
    }

    /// The members of one part with their files, in order of their keys.
    pub fn members_of<'a>(&'a self, part: &'a Name) -> impl Iterator<Item = (&'a ConditionKey, BlobRef)> {
        let is_member = move |key: &ConditionKey| matches!(key.section(), Section::Part(name) if name == part);
        self.columns.iter().filter(move |(key, _)| is_member(key)).map(|(key, blob)| (key, *blob))
    }

    /// All blobs that make up the version, base first.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        std::iter::once(self.base).chain(self.columns.values().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        layout::{Axis, Owned, TensorKind},
        state_dict::{DType, Tensor, TensorSpec},
    };

    fn spec() -> TensorSpec {
        TensorSpec { dtype: DType::F32, shape: vec![4] }
    }

    fn base() -> Base {
        Base {
            card: BaseCard {
                format: BaseCard::PLAIN_FORMAT,
                model: "scvi".to_owned(),
                config: BTreeMap::from([("n_latent".to_owned(), 10.into()), ("dropout".to_owned(), 0.1.into())]),
                genes: vec!["CD3D".to_owned(), "LYZ".to_owned()],
                batch_key: "batch".to_owned(),
                labels_key: None,
                labels: vec![],
                layout: Layout::plain(BTreeMap::from([("w".to_owned(), spec())])),
                moves_embedding: true,
                training: BTreeMap::new(),
                recipe: None,
            },
            tensors: StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[1], &[1.0]))]),
        }
    }

    fn version(keys: &[&str]) -> Version {
        let columns = keys.iter().map(|k| (k.parse().unwrap(), BlobRef::of(k.as_bytes()))).collect();
        Version { base: BlobRef::of(b"base"), columns }
    }

    #[test]
    fn a_base_round_trips_and_is_always_the_same_bytes() {
        let bytes = base().to_bytes().unwrap();
        assert_eq!(bytes, base().to_bytes().unwrap());
        assert_eq!(Base::from_bytes(&bytes).unwrap(), base());
        assert_eq!(BaseCard::read(&mut &bytes[..bytes.len() - 4]).unwrap(), base().card);
    }

    #[test]
    fn a_base_of_approximate_surgery_says_so() {
        let mut made = base();
        assert!(!made.card.is_approximate());
        let (fact, value) = BaseCard::APPROXIMATE;
        made.card.training.insert(fact.to_owned(), value.into());
        assert!(Base::from_bytes(&made.to_bytes().unwrap()).unwrap().card.is_approximate());
    }

    #[test]
    fn a_later_format_is_named_as_such() {
        let mut later = base();
        later.card.format = 3;
        let error = Base::from_bytes(&later.to_bytes().unwrap()).unwrap_err();
        assert!(matches!(error, Error::UnknownVersion { found: 3, .. }), "{error}");
    }

    #[test]
    fn a_plain_layout_is_written_as_it_was_before_there_were_kinds() {
        let card = serde_json::to_string(&base().card).unwrap();
        assert!(card.contains(r#""columns":{"w":{"dtype":"F32","shape":[4]}},"moves_embedding""#), "{card}");
    }

    #[test]
    fn a_card_with_kinds_axes_and_parts_round_trips_in_its_own_format_and_in_no_other() {
        let owned = |kind| Owned { spec: spec(), kind };
        let tensors =
            BTreeMap::from([("w".to_owned(), owned(TensorKind::Trained)), ("m".to_owned(), owned(TensorKind::Fact))]);
        let mut base = base();
        base.card.layout = Layout::of_axes(vec![Axis::new(Section::Condition, tensors)]);
        base.card.layout.parts.insert("models".parse().unwrap(), layout::Rule::Union);
        assert!(matches!(Base::from_bytes(&base.to_bytes().unwrap()), Err(Error::Decode { .. })));
        base.card.format = base.card.layout.card_format();
        assert_eq!(base.card.format, 2);
        assert_eq!(Base::from_bytes(&base.to_bytes().unwrap()).unwrap(), base);
    }

    #[test]
    fn members_of_a_part_are_merged_hashed_and_withdrawn_like_columns() {
        let start = version(&["ref/d/r"]);
        let parts = version(&["a/d+models/m", "a/d+terms/t", "b/d+models/m"]).columns;
        let with = start.merged(&parts).unwrap();
        assert_ne!(with.id(), start.id());
        let members = |version: &Version| version.members_of(&"models".parse().unwrap()).count();
        assert_eq!(members(&with), 2);
        let rest = with.without([&"b/d+models/m".parse().unwrap()]).unwrap();
        assert_eq!(members(&rest), 1);
        assert_eq!(with.without(parts.keys()).unwrap().id(), start.id());
    }

    #[test]
    fn every_order_of_merging_gives_one_id_and_withdrawing_restores_the_earlier() {
        let start = version(&["ref/d/r"]);
        let (a, b) = (version(&["a/d/x"]).columns, version(&["b/d/y", "b/d/z"]).columns);
        let ab = start.merged(&a).unwrap().merged(&b).unwrap();
        let ba = start.merged(&b).unwrap().merged(&a).unwrap();
        assert_eq!(ab.id(), ba.id());
        assert_eq!(ab.without(b.keys()).unwrap().id(), start.merged(&a).unwrap().id());
        assert_ne!(ab.id(), start.id());
    }

    #[test]
    fn the_id_sees_base_keys_and_columns() {
        let one = version(&["a/d/x"]);
        assert_ne!(one.id(), version(&["a/d/y"]).id());
        assert_ne!(one.id(), Version { base: BlobRef::of(b"other"), ..one.clone() }.id());
        let mut other = one.clone();
        *other.columns.values_mut().next().unwrap() = BlobRef::of(b"other");
        assert_ne!(one.id(), other.id());
    }
}
