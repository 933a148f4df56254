//! One colour per category in every picture: scanpy's where a file has them, else by the sorted names of all categories.

use archipelago_analysis::{
    plot::{Colour, Palette},
    transfer::UNKNOWN,
};
use archipelago_anndata::{AnnData, Column, Element};

use crate::error::Result;

/// What cells without a value are called in pictures.
pub const MISSING: &str = "not known";

/// Colours of an obs column's categories, also of those that no cell carries: a part of a file looks like the whole. Cells
/// without a value, and labels that were not trusted, are a backdrop.
///
/// # Errors  [`crate::Error::Anndata`] when there is no such column
pub fn palette(adata: &AnnData, key: &str) -> Result<Palette> {
    let names = categories(adata.obs.column(key)?);
    let mut palette = Palette::new(names.iter().filter(|name| !is_backdrop(name)));
    for (name, colour) in names.iter().zip(stored(adata, key)) {
        palette = palette.with(name, colour);
    }
    Ok(muted(palette))
}

/// Colours of the categories of several columns together, such as observed and transferred labels, with those that one
/// of the columns has in the file.
///
/// # Errors  as [`palette`]
pub fn joint_palette(adata: &AnnData, keys: &[&str]) -> Result<Palette> {
    let mut names = Vec::new();
    for key in keys {
        names.extend(categories(adata.obs.column(key)?));
    }
    let mut palette = Palette::new(names.iter().filter(|name| !is_backdrop(name)));
    for key in keys.iter().rev() {
        let of_column = categories(adata.obs.column(key)?);
        for (name, colour) in of_column.iter().zip(stored(adata, key)) {
            palette = palette.with(name, colour);
        }
    }
    Ok(muted(palette))
}

/// A palette in which what is not known is a backdrop.
pub fn muted(palette: Palette) -> Palette {
    palette.with_muted(MISSING).with_muted(UNKNOWN)
}

fn is_backdrop(name: &str) -> bool {
    name == MISSING || name == UNKNOWN
}

fn categories(column: &Column) -> Vec<String> {
    column.to_categorical().categories().to_strings()
}

/// `uns['<key>_colors']`, in order of the categories; none where it is anything else.
fn stored(adata: &AnnData, key: &str) -> Vec<Colour> {
    let Some(Element::Array(array)) = adata.uns.get(&format!("{key}_colors")) else { return Vec::new() };
    let colours: Option<Vec<Colour>> = array.values().to_strings().iter().map(|text| parse(text)).collect();
    colours.unwrap_or_default()
}

/// `#rrggbb`, with or without an opacity.
fn parse(text: &str) -> Option<Colour> {
    let digits = text.strip_prefix('#').filter(|digits| digits.is_ascii() && matches!(digits.len(), 6 | 8))?;
    let channel = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    Some(Colour(channel(0)?, channel(2)?, channel(4)?))
}

#[cfg(test)]
mod tests {
    use archipelago_analysis::plot::Theme;
    use archipelago_anndata::{Array, DataFrame};

    use super::*;

    fn cells(types: &[&str]) -> AnnData {
        let mut obs = DataFrame::new((0..types.len()).map(|i| i.to_string()));
        obs.insert("cell_type", Column::categorical(types)).unwrap();
        AnnData { obs, ..AnnData::default() }
    }

    #[test]
    fn a_part_of_the_cells_keeps_the_colours_of_the_whole() {
        let whole = cells(&["B", "NK", "T"]);
        let part = whole.select_obs(&[2]).unwrap();
        let colour = |adata: &AnnData| palette(adata, "cell_type").unwrap().colour("T", &Theme::LIGHT);
        assert_eq!(colour(&whole), colour(&part));
    }

    #[test]
    fn scanpy_s_colours_are_kept_and_the_unknown_is_a_backdrop() {
        let mut adata = cells(&["B", UNKNOWN]);
        let colours = Array::vector(vec!["#102030", "#ff0000ff"]);
        adata.uns.insert("cell_type_colors".into(), colours.into());
        let found = palette(&adata, "cell_type").unwrap();
        assert_eq!(found.colour("B", &Theme::LIGHT), Colour(16, 32, 48));
        assert!(found.is_muted(UNKNOWN));
        assert_eq!((parse("#12345"), parse("tab:blue")), (None, None));
    }
}
