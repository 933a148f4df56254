//! Library size of each cell.

use std::path::PathBuf;

use archipelago_anndata::{Column, Values};
use clap::Args;

use super::{Asked, Written};
use crate::{
    error::Result,
    output::Output,
    table::{CsvTable, TableFormat},
};

/// Library size of each cell: its total count, or the mean of its posterior where the model learns it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker results library reference cells.h5ad --out library.csv")]
pub(super) struct LibraryArgs {
    #[command(flatten)]
    asked: Asked,
    /// The file to write: h5ad (as `obs['archipelago_library_size']`) or csv.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: &LibraryArgs, output: &Output) -> Result<()> {
    let format = TableFormat::of(&args.out)?;
    let known = args.asked.known.open(output)?;
    let sizes = known.count_results(args.asked.seed)?.library_size()?;
    let n_cells = sizes.len();
    match format {
        TableFormat::Csv => {
            let mut table = CsvTable::new(["cell", "library_size"]);
            known.data.cell_names().zip(&sizes).for_each(|(cell, size)| table.row(cell, [size]));
            table.write(&args.out)?;
        }
        TableFormat::H5ad => {
            let column = Column::Plain(Values::F32(sizes));
            known.data.write_all(&args.out, |cells| cells.obs.insert("archipelago_library_size", column))?;
        }
    }
    output.show(&Written {
        out: args.out.clone(),
        version: known.open.dir.version().id(),
        what: "library",
        n_rows: n_cells,
        n_columns: 1,
    });
    Ok(())
}
