//! Tables as text: a row for each cell, or for each value of a column.

use std::{collections::HashMap, path::Path};

use archipelago_anndata::{Categorical, Column};
use archipelago_common::fs;

use crate::error::{Error, Result};

/// A table with a head; its first column says what each row is about.
pub(super) struct Table {
    /// Names of the columns after the first.
    pub(super) columns: Vec<String>,
    rows: HashMap<String, Vec<String>>,
}

impl Table {
    /// Reads a table; columns are parted by tabs where the file's name ends in `.tsv`, else by commas.
    ///
    /// # Errors  [`Error::Table`] naming the line, [`Error::File`]
    pub(super) fn read(path: &Path) -> Result<Self> {
        let wrong = |detail: String| Error::Table { path: path.to_owned(), detail };
        let bytes = fs::read_bounded(path, LARGEST)?;
        let is_tabbed = path.extension().is_some_and(|extension| extension == "tsv");
        let mut reader =
            csv::ReaderBuilder::new().delimiter(if is_tabbed { b'\t' } else { b',' }).from_reader(&bytes[..]);
        let head = reader.headers().map_err(|error| wrong(error.to_string()))?;
        let columns: Vec<String> = head.iter().skip(1).map(str::to_owned).collect();
        if columns.is_empty() {
            return Err(wrong("it has one column, expected what a row is about and at least one more".to_owned()));
        }
        let mut rows = HashMap::new();
        for record in reader.records() {
            let record = record.map_err(|error| wrong(error.to_string()))?;
            let mut fields = record.iter().map(str::to_owned);
            let about = fields.next().unwrap_or_default();
            if rows.insert(about.clone(), fields.collect()).is_some() {
                return Err(wrong(format!("`{about}` has two rows")));
            }
        }
        Ok(Self { columns, rows })
    }

    /// What the table says of each of these, as columns, and of how many it says nothing.
    pub(super) fn of<'a>(&self, about: impl Iterator<Item = Option<&'a str>>) -> (Vec<Column>, usize) {
        let rows: Vec<Option<&Vec<String>>> = about.map(|about| self.rows.get(about?)).collect();
        let n_missing = rows.iter().filter(|row| row.is_none()).count();
        let column = |i: usize| typed(rows.iter().map(|row| row.map(|row| row[i].as_str())).collect());
        ((0..self.columns.len()).map(column).collect(), n_missing)
    }

    /// The first value of a row.
    pub(super) fn value(&self, about: &str) -> Option<&str> {
        self.rows.get(about)?.first().map(String::as_str)
    }
}

/// Numbers where all are, else categories; nothing and no row are a missing value.
fn typed(texts: Vec<Option<&str>>) -> Column {
    let texts: Vec<Option<&str>> = texts.into_iter().map(|text| text.filter(|text| !text.is_empty())).collect();
    // `007` is a name.
    let is_padded = |text: &str| text.len() > 1 && text.starts_with('0') && !text.starts_with("0.");
    let number = |text: &str| text.parse().ok().filter(|_| !is_padded(text));
    let numbers: Option<Vec<f64>> = texts.iter().map(|text| text.map_or(Some(f64::NAN), number)).collect();
    match numbers {
        Some(numbers) if texts.iter().any(Option::is_some) => {
            let is_whole = numbers.iter().all(|x| x.fract() == 0.0 && x.abs() < 2_f64.powi(53));
            if is_whole {
                Column::from(numbers.iter().map(|x| *x as i64).collect::<Vec<_>>())
            } else {
                Column::from(numbers)
            }
        }
        _ => Column::Categorical(Categorical::of(texts.into_iter())),
    }
}

/// A row for each of some million cells.
const LARGEST: u64 = 1 << 30;
