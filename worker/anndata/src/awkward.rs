//! Rows of awkward arrays: lists of unequal length, records and options, as scirpy keeps the receptors of each cell.
//!
//! anndata (`awkward-array` 0.1.0) writes a tree of layouts, the *form*, as JSON, and the buffers of its nodes as one-dimensional
//! datasets named `<node>-<buffer>`. Taking rows changes no form: each node's buffers are cut down to what the rows need, from
//! the root to the leaves. Values in leaves are moved without being looked at.

mod nested;

use hdf5::{Dataset, Group};
use serde_json::Value as Json;

pub use nested::Nested;
pub(crate) use nested::read;

use crate::{Array, Compression, Result, Values, h5};

/// The encoding's name.
pub(crate) const ENCODING: &str = "awkward-array";

/// Length of the array in a group; `None` where its form holds a layout that is not known here.
pub(crate) fn n_rows(group: &Group) -> Result<Option<usize>> {
    let Some(form) = form(group)? else { return Ok(None) };
    let length = h5::attribute::read(group, "length")?.and_then(|length| length.values().to_i64());
    let length = length.and_then(|length| usize::try_from(*length.first()?).ok());
    Ok(length.filter(|_| is_known(&form)))
}

/// Writes the rows at `rows` of the array in `from` to the group `to`, which has its attributes but for the length.
pub(crate) fn copy_rows(from: &Group, rows: &[usize], to: &Group) -> Result<()> {
    let form = form(from)?.ok_or_else(|| h5::malformed(from, "an awkward array without a form"))?;
    h5::attribute::write(to, "length", &Array::int(rows.len() as i64))?;
    Cut { from: Buffers(from), to }.node(&form, rows)
}

fn form(group: &Group) -> Result<Option<Json>> {
    Ok(h5::attribute::text(group, "form")?.and_then(|text| serde_json::from_str(&text).ok()))
}

fn class(form: &Json) -> &str {
    form["class"].as_str().unwrap_or_default()
}

/// The forms below a form.
fn contents(form: &Json) -> Vec<&Json> {
    let many = match &form["contents"] {
        Json::Array(contents) => contents.iter().collect(),
        Json::Object(contents) => contents.values().collect(),
        _ => Vec::new(),
    };
    many.into_iter().chain(form.get("content")).collect()
}

fn is_known(form: &Json) -> bool {
    const KNOWN: [&str; 10] = [
        "NumpyArray",
        "EmptyArray",
        "RegularArray",
        "ListOffsetArray",
        "RecordArray",
        "IndexedArray",
        "IndexedOptionArray",
        "ByteMaskedArray",
        "UnmaskedArray",
        "UnionArray",
    ];
    KNOWN.contains(&class(form)) && contents(form).into_iter().all(is_known)
}

/// The buffers of an array's nodes.
#[derive(Clone, Copy)]
struct Buffers<'a>(&'a Group);

/// An array that is cut down to some of its rows.
struct Cut<'a> {
    from: Buffers<'a>,
    to: &'a Group,
}

impl Cut<'_> {
    /// Writes the buffers of a node, and of those below it, for these positions.
    fn node(&self, form: &Json, at: &[usize]) -> Result<()> {
        match class(form) {
            "EmptyArray" => Ok(()),
            "NumpyArray" => {
                let inner = form["inner_shape"].as_array().into_iter().flatten().filter_map(Json::as_u64);
                let width = inner.fold(1_u64, u64::saturating_mul);
                let data = self.from.dataset(form, "data")?;
                let n = h5::dataset::shape(&data)?.iter().product();
                let at = self.from.wide(at, width, n)?;
                h5::raw::copy_rows(&data, &at, self.to, &name(form, "data"))
            }
            "RegularArray" => {
                let content = &form["content"];
                self.node(content, &self.from.wide(at, size(form), self.from.length(content)?)?)
            }
            "ListOffsetArray" => {
                let lists = self.from.lists(form, at)?;
                let ends = lists.iter().scan(0, |end, (start, stop)| {
                    *end += stop - start;
                    Some(*end as i64)
                });
                let ends: Vec<i64> = std::iter::once(0).chain(ends).collect();
                self.put(form, "offsets", &ends)?;
                self.node(&form["content"], &expanded(lists, 1, usize::MAX).unwrap_or_default())
            }
            "RecordArray" | "UnmaskedArray" => {
                contents(form).into_iter().try_for_each(|content| self.node(content, at))
            }
            "IndexedArray" | "IndexedOptionArray" => self.indexed(form, at),
            "ByteMaskedArray" => {
                let mask = self.from.at(at, &self.from.numbers(form, "mask")?)?;
                self.put(form, "mask", &mask)?;
                self.node(&form["content"], at)
            }
            "UnionArray" => self.union(form, at),
            other => Err(h5::unsupported(self.from.0, format!("awkward layout `{other}`"))),
        }
    }

    /// Positions in a content, or none: categories stay whole, anything else is taken as it is asked for.
    fn indexed(&self, form: &Json, at: &[usize]) -> Result<()> {
        let index = self.from.at(at, &self.from.numbers(form, "index")?)?;
        let content = &form["content"];
        if form["parameters"]["__array__"] == "categorical" {
            self.put(form, "index", &index)?;
            let n = self.from.length(content)?;
            return self.node(content, &(0..n).collect::<Vec<_>>());
        }
        let (mut taken, mut new) = (Vec::new(), Vec::with_capacity(index.len()));
        for position in index {
            match usize::try_from(position) {
                Ok(position) => {
                    new.push(taken.len() as i64);
                    taken.push(position);
                }
                Err(_) => new.push(-1),
            }
        }
        self.put(form, "index", &new)?;
        self.node(content, &taken)
    }

    fn union(&self, form: &Json, at: &[usize]) -> Result<()> {
        let (tags, index) = (
            self.from.at(at, &self.from.numbers(form, "tags")?)?,
            self.from.at(at, &self.from.numbers(form, "index")?)?,
        );
        let contents = contents(form);
        let mut taken = vec![Vec::new(); contents.len()];
        let mut new = Vec::with_capacity(index.len());
        for (tag, position) in tags.iter().zip(&index) {
            let of_tag = usize::try_from(*tag).ok().and_then(|tag| taken.get_mut(tag));
            let (Some(of_tag), Ok(position)) = (of_tag, usize::try_from(*position)) else {
                return Err(h5::malformed(self.from.0, format!("tag {tag} of {} layouts", contents.len())));
            };
            new.push(of_tag.len() as i64);
            of_tag.push(position);
        }
        self.put(form, "tags", &tags)?;
        self.put(form, "index", &new)?;
        contents.into_iter().zip(&taken).try_for_each(|(content, at)| self.node(content, at))
    }

    /// Writes numbers in the type that they were read in, as the form says it.
    fn put(&self, form: &Json, buffer: &str, numbers: &[i64]) -> Result<()> {
        let (name, old) = (name(form, buffer), self.from.dataset(form, buffer)?);
        let values = like(&h5::dataset::no_values(&old)?, numbers);
        let new = h5::dataset::write_values(self.to, &name, &[numbers.len()], &values, Compression::Gzip(GZIP_LEVEL))?;
        h5::raw::copy_attributes(&old, &new, &[])
    }
}

impl Buffers<'_> {
    /// How many entries a node has, as its buffers tell.
    fn length(&self, form: &Json) -> Result<usize> {
        let of = |buffer: &str| {
            let dataset = self.dataset(form, buffer)?;
            Ok(h5::dataset::shape(&dataset)?.first().copied().unwrap_or(0))
        };
        match class(form) {
            "EmptyArray" => Ok(0),
            "NumpyArray" => of("data"),
            "RegularArray" => Ok(self.length(&form["content"])? / (size(form) as usize).max(1)),
            "ListOffsetArray" => Ok(of("offsets")?.saturating_sub(1)),
            "ByteMaskedArray" => of("mask"),
            "UnionArray" => of("tags"),
            "IndexedArray" | "IndexedOptionArray" => of("index"),
            _ => contents(form).first().map_or(Ok(0), |content| self.length(content)),
        }
    }

    /// Where each list begins and ends.
    fn lists(&self, form: &Json, at: &[usize]) -> Result<Vec<(usize, usize)>> {
        let offsets = self.numbers(form, "offsets")?;
        let end = offsets.last().and_then(|&end| usize::try_from(end).ok());
        let fits = end.is_some_and(|end| self.length(&form["content"]).is_ok_and(|length| end <= length));
        if !fits || offsets[0] < 0 || !offsets.is_sorted() {
            return Err(h5::malformed(self.0, "offsets of lists that do not ascend to the end of their content"));
        }
        let (starts, stops) = (self.at(at, &offsets)?, self.at(at, &offsets[1..])?);
        Ok(starts.into_iter().zip(stops).map(|(start, stop)| (start as usize, stop as usize)).collect())
    }

    /// Positions of the `width` values of each entry, among `n`.
    fn wide(&self, at: &[usize], width: u64, n: usize) -> Result<Vec<usize>> {
        let width = usize::try_from(width).unwrap_or(usize::MAX);
        expanded(at.iter().map(|&at| (at, at + 1)), width, n)
            .ok_or_else(|| h5::malformed(self.0, "a position beyond the end of a buffer"))
    }

    fn at(&self, at: &[usize], numbers: &[i64]) -> Result<Vec<i64>> {
        let found: Option<Vec<i64>> = at.iter().map(|&at| numbers.get(at).copied()).collect();
        found.ok_or_else(|| h5::malformed(self.0, "a position beyond the end of a buffer"))
    }

    fn numbers(&self, form: &Json, buffer: &str) -> Result<Vec<i64>> {
        let dataset = self.dataset(form, buffer)?;
        let numbers = h5::dataset::read_container(&dataset)?.values().to_i64();
        numbers.ok_or_else(|| h5::malformed(&dataset, "does not hold integers"))
    }

    fn dataset(&self, form: &Json, buffer: &str) -> Result<Dataset> {
        h5::dataset::open(self.0, &name(form, buffer))
    }
}

fn name(form: &Json, buffer: &str) -> String {
    format!("{}-{buffer}", form["form_key"].as_str().unwrap_or_default())
}

fn size(form: &Json) -> u64 {
    form["size"].as_u64().unwrap_or(0)
}

/// Positions of `width` values for each position in some ranges; `None` if one is not below `n`.
fn expanded(ranges: impl IntoIterator<Item = (usize, usize)>, width: usize, n: usize) -> Option<Vec<usize>> {
    let mut positions = Vec::new();
    for (start, stop) in ranges {
        let (start, stop) = (start.checked_mul(width)?, stop.checked_mul(width)?);
        if stop > n {
            return None;
        }
        positions.extend(start..stop);
    }
    Some(positions)
}

/// Integers in the type of others. None is larger than one that was there.
fn like(old: &Values, numbers: &[i64]) -> Values {
    match old {
        Values::Bool(_) => Values::Bool(numbers.iter().map(|&n| n != 0).collect()),
        Values::I8(_) => Values::I8(numbers.iter().map(|&n| n as i8).collect()),
        Values::U8(_) => Values::U8(numbers.iter().map(|&n| n as u8).collect()),
        Values::I32(_) => Values::I32(numbers.iter().map(|&n| n as i32).collect()),
        Values::U32(_) => Values::U32(numbers.iter().map(|&n| n as u32).collect()),
        _ => Values::I64(numbers.to_vec()),
    }
}

/// As the rest of a file of cells is compressed.
const GZIP_LEVEL: u8 = 4;
