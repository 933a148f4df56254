//! Pickled options as JSON.

use serde_json::{Map, Value as Json};

use super::{NdArray, Value};

impl Value<'_> {
    /// The object as JSON: containers become arrays and objects, anything without a JSON form `{"class": name}`. Keys
    /// that are not text become text. Nothing if the tree is deeper or larger than options are.
    pub fn to_json(self) -> Option<Json> {
        let mut budget = OBJECTS;
        to_json(self, DEPTH, &mut budget)
    }
}

fn to_json(value: Value<'_>, depth: usize, budget: &mut usize) -> Option<Json> {
    let depth = depth.checked_sub(1)?;
    *budget = budget.checked_sub(1)?;
    if value.is_none() {
        return Some(Json::Null);
    }
    if let Some(scalar) = value.scalar() {
        return Some((&scalar).into());
    }
    if let Some(entries) = value.entries() {
        let mut object = Map::new();
        for (key, value) in entries {
            let key = key.scalar().map_or_else(|| key.kind().to_owned(), |key| key.to_string());
            object.insert(key, to_json(value, depth, budget)?);
        }
        return Some(Json::Object(object));
    }
    if let Some(items) = value.items() {
        return items.into_iter().map(|item| to_json(item, depth, budget)).collect::<Option<_>>().map(Json::Array);
    }
    if let Some(scalars) = NdArray::of(value).and_then(|array| array.scalars()) {
        *budget = budget.checked_sub(scalars.len())?;
        return Some(scalars.iter().map(Json::from).collect());
    }
    let class = Json::String(value.kind().to_owned());
    Some(Json::Object(Map::from_iter([(CLASS.to_owned(), class)])))
}

/// What JSON calls an object of which nothing is known but its class.
pub const CLASS: &str = "class";
/// What JSON calls a tensor, as lists of lists.
pub const TENSOR: &str = "tensor";
/// Nesting of options; real ones have four levels.
const DEPTH: usize = 32;
/// Objects in the options of one model: a shared list may be walked many times, so the walk is bounded as well.
const OBJECTS: usize = 1 << 20;
