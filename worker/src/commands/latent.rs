//! `latent`: positions of cells that a reference already knows the batches of.

use std::{
    fmt::{self, Write as _},
    path::PathBuf,
};

use archipelago_anndata::{Array, Column, Element};
use archipelago_common::{fs, id::VersionId};
use archipelago_models::{Compute, Engine, Latent, Moments, Place};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    EngineArg,
    known::{KnownCellArgs, KnownCells},
};
use crate::{
    data::SiteData,
    error::Result,
    fit::Fit,
    mapping::{OBS_KEY, OBSM_KEY},
    network,
    output::Output,
    results::csv_field,
};

/// Compute the latent representation of cells whose batches are conditions of the reference.
///
/// A batch is found by its name among the reference's conditions; `--owner` and `--dataset` choose where several have it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker latent reference cells.h5ad --batches 10x_3pv1 --out latent.h5ad\n  \
    archipelago-worker latent reference cells.h5ad --out latent.csv")]
pub struct LatentArgs {
    #[command(flatten)]
    known: KnownCellArgs,
    /// Who computes.
    #[arg(long, value_enum, default_value_t = EngineArg::Fast)]
    engine: EngineArg,
    /// The file to write: h5ad (the cells with `obsm['X_archipelago']`) or csv (mean and variance).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which place of a cell: the mean of its posterior, a draw from it, what the decoder's first layer makes of a draw, or where
    /// `map` puts it.
    #[arg(long, value_enum, default_value_t = PlaceArg::Mean)]
    place: PlaceArg,
    /// Seed of draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also write the posterior variance to `obsm['X_archipelago_var']`; a csv always has it.
    #[arg(long)]
    variance: bool,
}

/// Which place of a cell is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum PlaceArg {
    /// The mean of its posterior.
    Mean,
    /// A draw from its posterior.
    Draw,
    /// What the decoder's first layer makes of a draw.
    Decoder,
    /// Where `map` puts it: for a model that moves cells by what the reference holds. For other models it is the mean.
    Mapped,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    n_cells: usize,
    n_latent: usize,
    /// Nothing for cells without counts.
    #[serde(flatten)]
    fit: Option<Fit>,
    /// Who computed.
    engine: Engine,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Reference`], [`crate::Error::Cells`], [`crate::Error::NoCondition`], [`crate::Error::AmbiguousBatch`]
pub fn run(args: &LatentArgs, output: &Output) -> Result<()> {
    let known = args.known.open(output)?;
    let is_csv = args.out.extension().is_some_and(|extension| extension == "csv");
    if !is_csv {
        known.data.check_writable()?;
    }
    let cells = known.cells()?;
    let compute = Compute { device: known.device, engine: args.engine.into() };
    // A table has both.
    let moments = if is_csv || args.variance { Moments::MeanAndVariance } else { Moments::Mean };
    let mut latent = match args.place {
        PlaceArg::Mapped => known.reference().mapped(&cells, &known.conditions, moments, compute)?,
        PlaceArg::Mean | PlaceArg::Draw | PlaceArg::Decoder => {
            known.reference().moments(&cells, &known.conditions, moments, compute)?
        }
    };
    let place = match args.place {
        PlaceArg::Mean | PlaceArg::Mapped => None,
        PlaceArg::Draw => Some(Place::Draw),
        PlaceArg::Decoder => Some(Place::FirstDecoded),
    };
    if let Some(place) = place {
        latent.mean = known.reference().places(&cells, &known.conditions, place, args.seed, known.device)?;
    }
    let fit = match known.minified {
        None => Some(known.reference().evaluate(&cells, &known.conditions, 0, compute)?),
        Some(_) => None,
    };
    if is_csv {
        fs::write_atomic(&args.out, csv(&known.data, &latent).as_bytes())?;
    } else {
        write_h5ad(args, &known, &latent)?;
    }
    output.show(&Summary {
        out: args.out.clone(),
        version: known.open.dir.version().id(),
        n_cells: known.data.n_cells(),
        n_latent: latent.mean.ncols(),
        fit: fit.map(|fit| Fit::new(&known.reference().base.card, &fit)),
        engine: latent.engine,
    });
    Ok(())
}

fn write_h5ad(args: &LatentArgs, known: &KnownCells, latent: &Latent) -> Result<()> {
    let variance = latent.var.as_ref().map(|var| ("X_archipelago_var", var));
    known.data.write_all(&args.out, |cells| {
        for (name, values) in [(OBSM_KEY, &latent.mean)].into_iter().chain(variance) {
            let rows: Vec<f32> = values.iter().copied().collect();
            let array = Array::matrix(known.data.n_cells(), values.ncols(), rows)?;
            cells.obsm.insert(name.to_owned(), Element::Array(array));
        }
        cells.obs.insert(OBS_KEY, Column::categorical(&known.condition_names()))?;
        network::remember(cells, &known.open.dir.version().base.digest);
        Ok(())
    })
}

fn csv(data: &SiteData, latent: &Latent) -> String {
    let columns = |name: &str, n: usize| (1..=n).map(|i| format!(",{name}_{i}")).collect::<String>();
    let moments = || [("mean", Some(&latent.mean)), ("var", latent.var.as_ref())].into_iter();
    let known = || moments().filter_map(|(name, values)| Some((name, values?)));
    let mut text = "cell".to_owned();
    text.extend(known().map(|(name, values)| columns(name, values.ncols())));
    text.push('\n');
    for (row, cell) in data.cell_names().enumerate() {
        text += &csv_field(cell);
        for value in known().flat_map(|(_, values)| values.row(row)) {
            write!(text, ",{value}").expect("text takes text");
        }
        text.push('\n');
    }
    text
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "latent      {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "cells       {} × {} dimensions", self.n_cells, self.n_latent)?;
        match &self.fit {
            Some(fit) => fit.fmt(f),
            None => Ok(()),
        }
    }
}
