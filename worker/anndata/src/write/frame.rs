//! Data frames.

use hdf5::Group;

use super::{create_group, element, write_encoded};
use crate::{Array, Column, Compression, DataFrame, Result, h5};

/// Writes a frame as a group with one member per column.
pub(crate) fn write(parent: &Group, name: &str, frame: &DataFrame, compression: Compression) -> Result<()> {
    let group = create_group(parent, name, "dataframe", "0.2.0")?;
    let index_key = frame.index_name().unwrap_or("_index");
    h5::attribute::write_text(&group, "_index", index_key)?;
    h5::attribute::write(&group, "column-order", &Array::vector(frame.column_names()))?;
    let index = Array::vector(frame.index().to_vec());
    write_encoded(&group, index_key, &index, ("string-array", "0.2.0"), compression)?;
    for (name, column) in frame.columns() {
        if name == index_key {
            check_index_column(&group, name, column, frame)?;
            continue;
        }
        // Old files hold columns such as `CD45RA/RO`, which stand in a group inside the frame.
        if name.is_empty() || name.split('/').any(|part| part.is_empty() || part == ".") {
            return Err(h5::unsupported(&group, format!("column name `{}`", name.escape_default())));
        }
        element::write_column(&group, name, column, compression)?;
    }
    Ok(())
}

/// A column may be called like the index if it is the index (pandas' `set_index(…, drop=False)`): one dataset is both.
fn check_index_column(group: &Group, name: &str, column: &Column, frame: &DataFrame) -> Result<()> {
    let values = column.to_strings();
    match values.iter().map(Option::as_deref).eq(frame.index().iter().map(|name| Some(name.as_str()))) {
        true => Ok(()),
        false => {
            let name = name.escape_default();
            Err(h5::unsupported(group, format!("the column `{name}` is called like the index and differs from it")))
        }
    }
}
