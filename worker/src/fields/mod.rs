//! Where the fields that models take are in a file: one map from names to places, however it was spelled, and one reader for
//! each kind of field.

mod read;
mod receptor;
mod source;
mod spellings;
mod values;

use std::collections::BTreeMap;

use archipelago_models::data::RNA;
use serde::{Deserialize, Serialize};

pub(crate) use read::{Reading, names_in_uns, sets_of_files};
pub use source::Source;
pub use spellings::{FieldArgs, FieldSpellings, flag_of};
pub(crate) use values::ValueCheck;

/// Places of fields, by their names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceMap(BTreeMap<String, Places>);

/// One place, or those of a field that has several columns.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Places {
    One(Source),
    Several(Vec<Source>),
}

/// Places of one field as one word, for a reference to remember.
pub(crate) fn joined(places: &[Source]) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(BETWEEN)
}

/// The places in such a word.
pub(crate) fn separated(word: &str) -> Vec<Source> {
    word.split(BETWEEN).filter_map(|place| place.parse().ok()).collect()
}

/// What is between places: no column has it in its name.
const BETWEEN: &str = " + ";

impl SourceMap {
    /// The places of a field, where they are known.
    pub fn get(&self, field: &str) -> Option<&[Source]> {
        self.0.get(field).map(Places::all)
    }

    /// Fields and their places, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Source])> {
        self.0.iter().map(|(field, places)| (field.as_str(), places.all()))
    }

    /// The only place of a field, or its first.
    pub fn first(&self, field: &str) -> Option<&Source> {
        self.get(field)?.first()
    }

    /// Puts a field in one place.
    pub fn set(&mut self, field: impl Into<String>, place: Source) {
        self.0.insert(field.into(), Places::One(place));
    }

    /// Puts the columns of a field in as many places; no place takes the field out.
    pub fn set_all(&mut self, field: &str, places: Vec<Source>) {
        match places.is_empty() {
            true => drop(self.0.remove(field)),
            false => drop(self.0.insert(field.to_owned(), Places::Several(places))),
        }
    }

    /// Takes a field out.
    pub fn remove(&mut self, field: &str) {
        self.0.remove(field);
    }

    /// Adds a place to those of a field.
    pub fn add(&mut self, field: String, place: Source) {
        let places = match self.0.remove(&field) {
            None => Places::One(place),
            Some(Places::One(first)) => Places::Several(vec![first, place]),
            Some(Places::Several(mut places)) => {
                places.push(place);
                Places::Several(places)
            }
        };
        self.0.insert(field, places);
    }

    /// The names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The layer that holds gene expression, where one is named.
    pub fn rna_layer(&self) -> Option<&str> {
        match self.first(RNA) {
            Some(Source::Matrix { layer, .. }) => layer.as_deref(),
            _ => None,
        }
    }

    /// The modality that holds gene expression, where one is named.
    pub fn rna_modality(&self) -> Option<&str> {
        match self.first(RNA) {
            Some(Source::Matrix { modality, .. }) => modality.as_deref(),
            _ => None,
        }
    }
}

impl Places {
    fn all(&self) -> &[Source] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Several(places) => places,
        }
    }
}

impl FromIterator<(String, Source)> for SourceMap {
    fn from_iter<I: IntoIterator<Item = (String, Source)>>(places: I) -> Self {
        let mut map = Self::default();
        places.into_iter().for_each(|(field, place)| map.add(field, place));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_from_one_place_or_several() {
        let text = "labels = \"obs/cell_type\"\ncategorical = [\"obs/a\", \"obs/b\"]\nrna = \"mod/rna/layers/counts\"";
        let map: SourceMap = toml::from_str(text).unwrap();
        assert_eq!(map.first("labels"), Some(&Source::obs("cell_type")));
        assert_eq!(map.get("categorical").unwrap().len(), 2);
        assert_eq!((map.rna_modality(), map.rna_layer()), (Some("rna"), Some("counts")));
        assert_eq!(toml::from_str::<SourceMap>(&toml::to_string(&map).unwrap()).unwrap(), map);
        assert!(toml::from_str::<SourceMap>("labels = \"cell_type\"").is_err());
        let pairs = [("x", "obs/a"), ("x", "obs/b")].map(|(name, place)| (name.to_owned(), place.parse().unwrap()));
        assert_eq!(pairs.into_iter().collect::<SourceMap>().get("x").unwrap().len(), 2);
    }
}
