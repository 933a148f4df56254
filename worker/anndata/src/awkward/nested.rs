//! The values of awkward arrays: a value for each row, which may be a list or a record of others.

use std::collections::BTreeMap;

use hdf5::Group;
use serde_json::Value as Json;

use super::{Buffers, class, contents, form, n_rows, size};
use crate::{Result, h5};

/// A value of a row.
#[derive(Clone, PartialEq, Debug)]
pub enum Nested {
    /// There is none.
    None,
    /// A number, or a truth value as 0 or 1.
    Number(f64),
    /// A text.
    Text(String),
    /// As many values as there are.
    List(Vec<Nested>),
    /// Values by name, of those names that were asked for.
    Record(BTreeMap<String, Nested>),
}

impl Nested {
    /// The values of a list; none of anything else.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The value of a name in a record, if there is one.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Record(values) => values.get(name).filter(|value| **value != Self::None),
            _ => None,
        }
    }

    /// The text it is.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number it is.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// The value of each row of the array in a group; of records, those of `names`.
pub(crate) fn read(group: &Group, names: &[&str]) -> Result<Vec<Nested>> {
    let (Some(form), Some(n)) = (form(group)?, n_rows(group)?) else {
        return Err(h5::unsupported(group, "an awkward array of a layout that is not known"));
    };
    Values { buffers: Buffers(group), names }.of(&form, &(0..n).collect::<Vec<_>>())
}

struct Values<'a> {
    buffers: Buffers<'a>,
    names: &'a [&'a str],
}

impl Values<'_> {
    /// The values of a node at these positions.
    fn of(&self, form: &Json, at: &[usize]) -> Result<Vec<Nested>> {
        // An index may name one long list again and again: a small file must not fill the memory.
        if at.len() > MOST_VALUES {
            return Err(h5::malformed(self.buffers.0, format!("more than {MOST_VALUES} values on one level")));
        }
        match class(form) {
            "EmptyArray" => Ok(vec![Nested::None; at.len()]),
            "NumpyArray" => {
                let numbers = self.buffers.dataset(form, "data").and_then(|data| h5::dataset::read_container(&data))?;
                let numbers = numbers.values().to_f64();
                let number = |&at: &usize| numbers.as_ref()?.get(at).copied().map(Nested::Number);
                let found: Option<Vec<Nested>> = at.iter().map(number).collect();
                found.ok_or_else(|| h5::malformed(self.buffers.0, "a node without a number for each entry"))
            }
            "RegularArray" => {
                let n = usize::try_from(size(form)).unwrap_or(usize::MAX);
                let list = |&at: &usize| at.checked_mul(n).and_then(|start| Some((start, start.checked_add(n)?)));
                let lists: Option<Vec<(usize, usize)>> = at.iter().map(list).collect();
                let beyond = || h5::malformed(self.buffers.0, "a list beyond the end of its content");
                self.lists(form, &lists.ok_or_else(beyond)?)
            }
            "ListOffsetArray" => self.lists(form, &self.buffers.lists(form, at)?),
            "RecordArray" => self.records(form, at),
            "UnmaskedArray" => contents(form).first().map_or(Ok(vec![]), |content| self.of(content, at)),
            "IndexedArray" | "IndexedOptionArray" => {
                let index = self.buffers.at(at, &self.buffers.numbers(form, "index")?)?;
                self.some(form, &index)
            }
            "ByteMaskedArray" => {
                let mask = self.buffers.at(at, &self.buffers.numbers(form, "mask")?)?;
                let valid = i64::from(form["valid_when"].as_bool().unwrap_or(false));
                let index = at.iter().zip(mask).map(|(&at, mask)| if mask == valid { at as i64 } else { -1 });
                self.some(form, &index.collect::<Vec<_>>())
            }
            other => Err(h5::unsupported(self.buffers.0, format!("values of the awkward layout `{other}`"))),
        }
    }

    /// The values of a node's content at some positions, and none where a position is negative.
    fn some(&self, form: &Json, index: &[i64]) -> Result<Vec<Nested>> {
        let there: Vec<usize> = index.iter().filter_map(|&at| usize::try_from(at).ok()).collect();
        let mut values = self.of(&form["content"], &there)?.into_iter();
        Ok(index.iter().map(|&at| if at < 0 { None } else { values.next() }.unwrap_or(Nested::None)).collect())
    }

    fn lists(&self, form: &Json, lists: &[(usize, usize)]) -> Result<Vec<Nested>> {
        let content = &form["content"];
        let (is_text, n) = (form["parameters"]["__array__"] == "string", self.buffers.length(content)?);
        if lists.iter().any(|(_, stop)| *stop > n) {
            return Err(h5::malformed(self.buffers.0, "a list beyond the end of its content"));
        }
        if is_text {
            let letters = self.buffers.numbers(content, "data")?;
            let bytes = |&(start, stop): &(usize, usize)| letters[start..stop].iter().map(|&letter| letter as u8);
            let text = |list| String::from_utf8(bytes(list).collect()).ok().map(Nested::Text);
            let texts: Option<Vec<Nested>> = lists.iter().map(text).collect();
            return texts.ok_or_else(|| h5::malformed(self.buffers.0, "a text that is no UTF-8"));
        }
        let at: Vec<usize> = lists.iter().flat_map(|&(start, stop)| start..stop).collect();
        let mut values = self.of(content, &at)?.into_iter();
        Ok(lists.iter().map(|(start, stop)| Nested::List(values.by_ref().take(stop - start).collect())).collect())
    }

    fn records(&self, form: &Json, at: &[usize]) -> Result<Vec<Nested>> {
        let mut records = vec![BTreeMap::new(); at.len()];
        let fields = form["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
        for name in self.names {
            let content = match &form["contents"] {
                Json::Array(contents) => {
                    fields.iter().position(|field| field == name).and_then(|position| contents.get(position))
                }
                by_name => by_name.get(name),
            };
            let Some(content) = content else { continue };
            for (record, value) in records.iter_mut().zip(self.of(content, at)?) {
                record.insert((*name).to_owned(), value);
            }
        }
        Ok(records.into_iter().map(Nested::Record).collect())
    }
}

/// Values of one level of an array: records of all chains of more cells than any file has.
const MOST_VALUES: usize = 1 << 26;
