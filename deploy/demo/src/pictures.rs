//! UMAP pictures of reference and query together.

use anyhow::Result;
use archipelago_analysis::{
    Labels,
    plot::{Colouring, Figure, Palette, Scatter, Theme},
    umap::{Umap, umap},
};

use crate::cells::{Embedding, SiteCells};

/// Pixels per unit of the drawing: sharp on screens and in print.
const SCALE: f64 = 2.0;

/// A PNG with two panels, coloured by site (all reference batches are one colour) and by cell type.
pub fn joint_umap(
    title: &str,
    reference: &Embedding,
    query: &Embedding,
    sites: &[SiteCells],
    seed: u64,
) -> Result<Vec<u8>> {
    let joint = reference.clone().followed_by(query.clone())?;
    let points = umap(joint.latent.view(), Umap { seed, ..Umap::default() })?;
    let site = |batch: &String| sites.iter().find(|site| site.batch == *batch).map_or(REFERENCE, |site| &site.site);
    let origin: Vec<&str> = joint.batches.iter().map(site).collect();
    let (sites, labels) = (Labels::from_names(&origin), joint.label_codes());
    let site_colours = Palette::new(sites.names()).with_muted(REFERENCE);
    let label_colours = Palette::new(labels.names());
    let panel = |title, labels, palette| {
        let colouring = Colouring::Categories { labels, palette };
        Scatter { title, points: points.view(), axes: ["UMAP 1", "UMAP 2"], colouring }.panel(&Theme::LIGHT)
    };
    let panels = [panel("site", &sites, &site_colours)?, panel("cell type", &labels, &label_colours)?];
    Ok(Figure::grid(Some(title), &panels, 2, &Theme::LIGHT).png(SCALE)?)
}

/// What the reference's batches are called in the picture.
const REFERENCE: &str = "reference";
