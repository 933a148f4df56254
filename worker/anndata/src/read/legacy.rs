//! What files before anndata 0.7 did differently.

use hdf5::Group;

use super::element;
use crate::{Categorical, Column, DataFrame, Element, Result, Values, h5};

/// The group of a frame that held the categories of its columns (anndata 0.7).
pub(super) const CATEGORY_TABLES: &str = "__categories";
/// Suffix of the `uns` entries that held the categories of a column.
const CATEGORIES: &str = "_categories";

/// The categories of a column from the frame's `__categories` group (anndata 0.7), and whether they are ordered.
///
/// The column carries a reference to its table; the table has the column's name, which is what is used here.
pub(crate) fn categories_of(frame: &Group, column: &str) -> Result<Option<(Values, bool)>> {
    if !frame.link_exists(CATEGORY_TABLES) {
        return Ok(None);
    }
    let tables = h5::group(frame, CATEGORY_TABLES)?;
    if !tables.link_exists(column) {
        return Ok(None);
    }
    let table = h5::dataset::open(&tables, column)?;
    Ok(Some((element::vector(&table)?, h5::attribute::flag(&table, "ordered")?)))
}

/// Turns integer columns into categoricals where `uns` holds `<column>_categories`; returns the keys that are used up.
///
/// Only frames that are records need it, as in anndata: later ones say themselves what is categorical, and an entry of that name
/// in `uns` is the user's own. Codes beyond the categories are no codes.
pub(crate) fn categories_from_uns(root: &Group, obs: &mut DataFrame, var: &mut DataFrame) -> Result<Vec<String>> {
    let mut used = Vec::new();
    let (old_obs, old_var) = (!h5::is_group(root, "obs")?, !h5::is_group(root, "var")?);
    if !(old_obs || old_var) || !root.link_exists("uns") || !h5::is_group(root, "uns")? {
        return Ok(used);
    }
    let uns = h5::group(root, "uns")?;
    for key in h5::names(&uns)? {
        let Some(name) = key.strip_suffix(CATEGORIES) else { continue };
        for frame in [old_obs.then_some(&mut *obs), old_var.then_some(&mut *var)].into_iter().flatten() {
            let Ok(Column::Plain(values)) = frame.column(name) else { continue };
            let Some(codes) = element::codes(values) else { continue };
            let Element::Array(categories) = element::read(&uns, &key)? else { continue };
            let Ok(column) = Categorical::new(codes, categories.into_values(), false) else { continue };
            frame.insert(name, Column::Categorical(column))?;
            used.push(key.clone());
        }
    }
    Ok(used)
}

/// Where `raw` is, and what its matrix, frame and mapping are called there: in a group of its own, or before 0.7 as members
/// `raw.X`, `raw.var` and `raw.varm` of the root.
pub(crate) fn raw_parts(root: &Group) -> Result<Option<(Group, &'static str, &'static str, &'static str)>> {
    if root.link_exists("raw") && h5::is_group(root, "raw")? {
        return Ok(Some((h5::group(root, "raw")?, "X", "var", "varm")));
    }
    Ok(root.link_exists("raw.X").then(|| (root.clone(), "raw.X", "raw.var", "raw.varm")))
}
