//! Data frames: groups since anndata 0.7, one dataset of records before.

use hdf5::Group;

use super::{element, legacy};
use crate::{Column, DataFrame, Result, h5};

/// Reads the frame called `name`.
pub(crate) fn read(parent: &Group, name: &str) -> Result<DataFrame> {
    if !h5::is_group(parent, name)? {
        return read_records(parent, name);
    }
    let group = h5::group(parent, name)?;
    let index_key = h5::attribute::text(&group, "_index")?
        .ok_or_else(|| h5::malformed(&group, "data frame without attribute `_index`"))?;
    let order = h5::attribute::texts(&group, "column-order")?
        .ok_or_else(|| h5::malformed(&group, "data frame without attribute `column-order`"))?;
    for key in std::iter::once(&index_key).chain(&order) {
        if !group.link_exists(key) {
            let detail = format!("has no `{key}`; there are: {}", h5::names(&group)?.join(", "));
            return Err(h5::malformed(&group, detail));
        }
    }
    let index = element::read_column(&group, &index_key)?.to_strings();
    let mut frame = DataFrame::new(index.into_iter().map(Option::unwrap_or_default));
    if index_key != "_index" {
        frame = frame.with_index_name(index_key);
    }
    for key in order {
        let column = element::read_column(&group, &key)?;
        frame.insert(key, column).map_err(|error| h5::malformed(&group, error.to_string()))?;
    }
    Ok(frame)
}

/// Members of a frame's group that are neither its index nor its columns, nor the categories of columns.
pub(crate) fn no_columns(group: &Group) -> Result<Vec<String>> {
    let mut known = h5::attribute::texts(group, "column-order")?.unwrap_or_default();
    known.extend(h5::attribute::text(group, "_index")?);
    // A slash in a column's name made a group of its first part.
    let is_known = |member: &String| {
        member == legacy::CATEGORY_TABLES || known.iter().any(|column| column.split('/').next() == Some(member))
    };
    Ok(h5::names(group)?.into_iter().filter(|member| !is_known(member)).collect())
}

/// Whether the rows of a frame are named by text, as those of `obs` and `var` always are.
pub(crate) fn has_text_index(group: &Group) -> Result<bool> {
    let Some(key) = h5::attribute::text(group, "_index")? else { return Ok(true) };
    // One that is not there is named when the frame is read.
    if !group.link_exists(&key) || h5::is_group(group, &key)? {
        return Ok(true);
    }
    let index = h5::dataset::open(group, &key)?;
    Ok(h5::dataset::dtype_name(&index)? == "str")
}

/// One record per row; the field called `index` (or the first one) names the rows.
fn read_records(parent: &Group, name: &str) -> Result<DataFrame> {
    let dataset = h5::dataset::open(parent, name)?;
    let compound = h5::record::compound(&dataset)?
        .ok_or_else(|| h5::malformed(&dataset, "neither a group nor records, expected a data frame"))?;
    let mut fields = h5::record::read(&dataset, &compound)?;
    let at = fields.iter().position(|(field, _)| field == "index" || field == "_index").unwrap_or(0);
    if fields.is_empty() {
        return Err(h5::malformed(&dataset, "records without a field"));
    }
    let (_, index) = fields.remove(at);
    let mut frame = DataFrame::new(index.values().to_strings());
    for (field, array) in fields {
        let column = Column::Plain(array.into_values());
        frame.insert(field, column).map_err(|error| h5::malformed(&dataset, error.to_string()))?;
    }
    Ok(frame)
}
