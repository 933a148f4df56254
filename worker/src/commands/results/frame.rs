//! Answers of names and numbers as files: columns of the cells, or a table that opens in scanpy.

use std::path::Path;

use archipelago_anndata::{AnnData, Array, Column, DataFrame, Element, Matrix, Values};
use archipelago_models::results::{self, Frame};

use super::own::flat;
use crate::{
    commands::known::KnownCells,
    error::{Error, Result},
    results::csv_field,
    table::{CsvTable, TableFormat, write_h5ad},
};

/// Writes columns of cells: an h5ad has the cells with these among their columns, and places in `obsm`; a CSV has the columns, and those
/// of places, alone.
pub(super) fn of_cells(frame: &Frame, known: &KnownCells, out: &Path) -> Result<(usize, usize)> {
    let n_places: usize = frame.places.iter().map(|(_, places)| places.ncols()).sum();
    let size = (known.data.n_cells(), frame.columns.len() + n_places);
    match TableFormat::of(out)? {
        TableFormat::Csv => {
            let names: Vec<String> = known.data.cell_names().map(str::to_owned).collect();
            csv(&placed(frame), "cell", &names, out)?;
        }
        TableFormat::H5ad => {
            known.data.check_writable()?;
            let version = Array::text(known.open.dir.version().id().to_string());
            known.data.write_all(out, |cells| {
                for (name, column) in &frame.columns {
                    cells.obs.insert(name.as_str(), column_of(column))?;
                }
                insert_places(cells, frame)?;
                cells.uns.insert("archipelago_reference".to_owned(), Element::Array(version));
                Ok(())
            })?;
        }
    }
    Ok(size)
}

/// The same with places as columns, `NAME_1` and so on.
fn placed(frame: &Frame) -> Frame {
    let mut flat = Frame { places: vec![], ..frame.clone() };
    for (name, places) in &frame.places {
        for (at, column) in places.columns().into_iter().enumerate() {
            let column = results::Column::Numbers(column.to_vec());
            flat.columns.push((format!("{name}_{}", at + 1), column));
        }
    }
    flat
}

/// Writes a table of anything else: an h5ad has its numbers as `X`, its columns in `obs`, places in `obsm`.
pub(super) fn of_rows(frame: &Frame, out: &Path) -> Result<(usize, usize)> {
    let (rows_are, rows) = frame.rows.as_ref().expect("it is not of cells");
    let n_values = frame.values.as_ref().map_or(0, |(names, _)| names.len());
    match TableFormat::of(out)? {
        TableFormat::Csv => csv(frame, rows_are, rows, out)?,
        TableFormat::H5ad => {
            let failed = |source| Error::Cells { path: out.to_owned(), source };
            write_h5ad(out, &anndata(frame, rows).map_err(failed)?)?;
        }
    }
    Ok((rows.len(), frame.columns.len() + n_values))
}

fn anndata(frame: &Frame, rows: &[String]) -> archipelago_anndata::Result<AnnData> {
    let mut obs = DataFrame::new(rows.iter().cloned());
    for (name, column) in &frame.columns {
        obs.insert(name.as_str(), column_of(column))?;
    }
    let (names, values) = frame.values.clone().unwrap_or_default();
    let matrix = Matrix::dense(Array::matrix(rows.len(), names.len(), flat(&values))?)?;
    let mut adata = AnnData::new(matrix, obs, DataFrame::new(names))?;
    insert_places(&mut adata, frame)?;
    Ok(adata)
}

fn insert_places(adata: &mut AnnData, frame: &Frame) -> archipelago_anndata::Result<()> {
    for (name, places) in &frame.places {
        let array = Array::matrix(places.nrows(), places.ncols(), flat(places))?;
        adata.obsm.insert(name.clone(), Element::Array(array));
    }
    Ok(())
}

fn csv(frame: &Frame, rows_are: &str, rows: &[String], out: &Path) -> Result<()> {
    let (names, values) = frame.values.clone().unwrap_or_default();
    let heads = frame.columns.iter().map(|(name, _)| name.as_str()).chain(names.iter().map(String::as_str));
    let mut table = CsvTable::new([rows_are].into_iter().chain(heads));
    for (at, row) in rows.iter().enumerate() {
        let cell = |(_, column): &(String, results::Column)| match column {
            results::Column::Names(names) => csv_field(&names[at]),
            results::Column::Numbers(numbers) => numbers[at].to_string(),
        };
        let numbers = (0..names.len()).map(|column| values[[at, column]].to_string());
        table.row(row, frame.columns.iter().map(cell).chain(numbers));
    }
    table.write(out)
}

fn column_of(column: &results::Column) -> Column {
    match column {
        results::Column::Names(names) => Column::categorical(names),
        results::Column::Numbers(numbers) => Column::Plain(Values::F32(numbers.clone())),
    }
}
