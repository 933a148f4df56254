//! Pictures of sections and of mapped cells. Where cells lie as they were measured, both axes have one scale.

use std::path::Path;

use archipelago_analysis::{
    Labels,
    plot::{Colouring, Figure, Palette, Panel, Scatter, Theme},
};
use archipelago_anndata::AnnData;
use archipelago_common::fs;
use ndarray::{Array2, Axis, s};

use super::{CONFIDENCE, PREDICTED, SPATIAL};
use crate::{
    cells::{column, embedding, labels},
    colours::{self, MISSING},
    error::{Error, Result},
};

/// Each section by its partitions.
///
/// # Errors  [`Error::Anndata`] for cells without places or without a partition
pub(super) fn sections(adata: &AnnData, batch_key: &str, partitions: &[String]) -> Result<Vec<Panel>> {
    let (places, of) = (embedding(adata, SPATIAL)?, column(&adata.obs, batch_key)?);
    let names: std::collections::BTreeSet<&String> = of.iter().collect();
    let mut panels = Vec::new();
    for name in names {
        let rows: Vec<usize> = (0..of.len()).filter(|&cell| of[cell] == *name).collect();
        for partition in partitions {
            let of_all = labels(&adata.obs, partition, MISSING)?;
            let title = format!("{name}: {partition}");
            let colouring = (&of_all.select(&rows), &colours::palette(adata, partition)?);
            panels.push(Cells { places: &places.select(Axis(0), &rows), basis: SPATIAL }.by_part(&title, colouring)?);
        }
    }
    Ok(panels)
}

/// Mapped cells by the part into which each network puts them, and by how sure all are together.
///
/// # Errors  [`Error::Anndata`] for cells without such positions, [`Error::NotMapped`]
pub(super) fn mapped(adata: &AnnData, path: &Path, basis: Option<&str>) -> Result<Vec<Panel>> {
    let Ok(confidence) = adata.obs.column(CONFIDENCE) else { return Err(Error::NotMapped { path: path.into() }) };
    let usual = [SPATIAL, "X_umap", "X_tsne", "X_dist_map_pca"];
    let basis = basis.or_else(|| usual.into_iter().find(|name| adata.obsm.contains_key(*name))).unwrap_or(usual[1]);
    let places = embedding(adata, basis)?;
    let cells = Cells { places: &places, basis };
    let mut panels = Vec::new();
    for name in adata.obs.column_names().into_iter().filter(|name| name.starts_with(PREDICTED)) {
        let (of_cells, palette) = (labels(&adata.obs, &name, MISSING)?, colours::palette(adata, &name)?);
        panels.push(cells.by_part(name.trim_start_matches(PREDICTED), (&of_cells, &palette))?);
    }
    let values: Vec<f32> = confidence.to_f64().unwrap_or_default().into_iter().map(|value| value as f32).collect();
    panels.push(cells.panel(CONFIDENCE, Colouring::Values(&values))?);
    Ok(panels)
}

/// Cells in the plane.
struct Cells<'a> {
    places: &'a Array2<f32>,
    basis: &'a str,
}

impl Cells<'_> {
    fn by_part(&self, title: &str, (labels, palette): (&Labels, &Palette)) -> Result<Panel> {
        self.panel(title, Colouring::Categories { labels, palette })
    }

    fn panel(&self, title: &str, colouring: Colouring<'_>) -> Result<Panel> {
        if self.places.ncols() < 2 {
            let (name, found) = (self.basis.to_owned(), format!("{} dimensions", self.places.ncols()));
            return Err(archipelago_anndata::Error::Kind { name, found, expected: "at least two dimensions" }.into());
        }
        let points = self.places.slice(s![.., ..2]);
        let name = self.basis.trim_start_matches("X_");
        let axes = [format!("{name} 1"), format!("{name} 2")];
        let scatter = Scatter { title, points, axes: [&axes[0], &axes[1]], colouring };
        Ok(match self.basis == SPATIAL {
            true => scatter.panel_to_scale(&Theme::LIGHT)?,
            false => scatter.panel(&Theme::LIGHT)?,
        })
    }
}

/// Writes panels as one picture, PNG or SVG by the file's name.
///
/// # Errors  [`Error::Setting`] for another ending, [`Error::Common`]
pub(super) fn write(path: &Path, panels: &[Panel]) -> Result<()> {
    let is_png = is_png(path)?;
    let figure = Figure::grid(None, panels, N_COLS, &Theme::LIGHT);
    let bytes = if is_png { figure.png(SCALE)? } else { figure.svg().as_bytes().to_vec() };
    Ok(fs::write_atomic(path, &bytes)?)
}

/// # Errors  [`Error::Setting`] for a name that ends in neither
pub(super) fn is_png(path: &Path) -> Result<bool> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("png") => Ok(true),
        Some("svg") => Ok(false),
        _ => {
            let (found, expected) = (format!("`{}`", path.display()), "a name that ends in .png or .svg");
            Err(Error::Setting { what: "--picture", found, expected })
        }
    }
}

const N_COLS: usize = 3;
/// Pixels per unit: sharp enough for points, at half the size of a file of twice as many.
const SCALE: f64 = 1.5;
