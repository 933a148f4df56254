//! UMAP pictures of reference and query together, before surgery and after it, laid out alike.

use anyhow::Result;
use archipelago_analysis::{
    Labels,
    page::{Stored, picture},
    plot::{Colouring, Figure, Palette, Scatter, Theme},
    umap::{Umap, umap},
};
use ndarray::{Array2, Axis};

use crate::cells::{Embedding, SiteCells};

/// Cells of reference and query, the query at two places, in one plane.
#[derive(Debug)]
pub struct Places {
    /// Reference, query before surgery, query after it.
    all: Array2<f32>,
    n_reference: usize,
    n_query: usize,
    /// Where each cell is from, those of the reference and then the query's.
    origin: Labels,
    types: Labels,
}

/// Which places of the query a picture shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Query {
    /// With columns at the mean of the reference's.
    Untrained,
    /// With its own.
    Mapped,
}

impl Places {
    /// Lays out all cells at once, so that the reference's stand still between the pictures.
    pub fn new(
        reference: &Embedding,
        (untrained, mapped): (&Embedding, &Embedding),
        sites: &[SiteCells],
        seed: u64,
    ) -> Result<Self> {
        let joint = reference.clone().followed_by(mapped.clone())?;
        let all = reference.clone().followed_by(untrained.clone())?.followed_by(mapped.clone())?;
        let site = |batch: &String| sites.iter().find(|site| site.batch == *batch).map_or(REFERENCE, |site| &site.site);
        Ok(Self {
            all: umap(all.latent.view(), Umap { seed, ..Umap::default() })?,
            n_reference: reference.labels.len(),
            n_query: mapped.labels.len(),
            origin: Labels::from_names(&joint.batches.iter().map(site).collect::<Vec<_>>()),
            types: joint.label_codes(),
        })
    }

    fn of(&self, query: Query) -> Array2<f32> {
        let first = self.n_reference + if query == Query::Mapped { self.n_query } else { 0 };
        let rows: Vec<usize> = (0..self.n_reference).chain(first..first + self.n_query).collect();
        self.all.select(Axis(0), &rows)
    }

    /// Two panels, coloured by site (all reference batches are one colour) and by cell type.
    pub fn figure(&self, query: Query, title: &str, theme: &Theme) -> archipelago_analysis::Result<Figure> {
        let points = self.of(query);
        let of_sites = Palette::new(self.origin.names()).with_muted(REFERENCE);
        let of_types = Palette::new(self.types.names());
        let panel = |title, labels, palette| {
            let colouring = Colouring::Categories { labels, palette };
            let scatter = Scatter { title, points: points.view(), axes: ["UMAP 1", "UMAP 2"], colouring };
            scatter.panel_among(self.all.view(), theme)
        };
        let panels = [panel("site", &self.origin, &of_sites)?, panel("cell type", &self.types, &of_types)?];
        Ok(Figure::grid(Some(title), &panels, 2, theme))
    }

    /// The same as HTML, in the themes that a page can have.
    pub fn picture(&self, query: Query, title: &str, alt: &str, caption: &str) -> Result<String> {
        let draw = |theme: &Theme| self.figure(query, title, theme);
        Ok(picture(draw, Stored::Pixels, alt, caption)?)
    }
}

/// Pixels per unit of the drawing: sharp on screens and in print.
pub const SCALE: f64 = 2.0;
/// What the reference's batches are called in the picture.
const REFERENCE: &str = "reference";
