//! Cells in the plane, coloured by category or by number.

use ndarray::{ArrayView2, Axis as Dim};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::axis::{Axis, grouped};
use super::canvas::{Canvas, HEADING_HEIGHT, Panel, Style};
use super::legend::{Entry, Legend, draw_colour_bar, draw_number};
use super::palette::{Palette, sequential};
use super::theme::Theme;
use crate::distance::check_finite;
use crate::{AnalysisError, Labels, Result};

/// A picture of cells, such as a UMAP.
#[derive(Debug, Clone, Copy)]
pub struct Scatter<'a> {
    /// What the colour shows: `cell type`, `site`, a gene.
    pub title: &'a str,
    /// Positions, `[n_cells, 2]`.
    pub points: ArrayView2<'a, f32>,
    /// Names of both axes.
    pub axes: [&'a str; 2],
    /// What colours the cells.
    pub colouring: Colouring<'a>,
}

/// What colours the cells of a [`Scatter`].
#[derive(Debug, Clone, Copy)]
pub enum Colouring<'a> {
    /// A category per cell. Muted categories lie behind the others; beyond ten categories each is numbered in the
    /// picture, since no eye tells that many colours apart.
    Categories {
        /// Category of each cell.
        labels: &'a Labels,
        /// Colours of the categories.
        palette: &'a Palette,
    },
    /// A number per cell, high ones in front; NaN is drawn as a backdrop.
    Values(&'a [f32]),
}

impl Scatter<'_> {
    /// Draws the cells into a square with the legend beside it, both axes stretched to it.
    ///
    /// # Errors   positions that are not pairs of finite numbers, colours for another number of cells
    pub fn panel(&self, theme: &Theme) -> Result<Panel> {
        self.draw((Scale::Stretched, self.points), theme)
    }

    /// The same in the frame of other positions, for pictures that are laid out alike.
    ///
    /// # Shapes   `all`: `[n, 2]`
    /// # Errors   as [`Self::panel`]
    pub fn panel_among(&self, all: ArrayView2<'_, f32>, theme: &Theme) -> Result<Panel> {
        self.draw((Scale::Stretched, all), theme)
    }

    /// The same with one scale for both axes: for cells that lie where they were measured.
    ///
    /// # Errors   as [`Self::panel`]
    pub fn panel_to_scale(&self, theme: &Theme) -> Result<Panel> {
        self.draw((Scale::Equal, self.points), theme)
    }

    fn draw(&self, frame: (Scale, ArrayView2<'_, f32>), theme: &Theme) -> Result<Panel> {
        for positions in [self.points, frame.1] {
            check_finite("the picture", positions)?;
            if positions.ncols() != 2 {
                return Err(AnalysisError::Length { what: "a position", found: positions.ncols(), expected: 2 });
            }
        }
        let mut canvas = Canvas::default();
        canvas.heading(self.title, &format!("{} cells", grouped(self.points.nrows())), theme);
        canvas.frame(0.5, HEADING_HEIGHT + 0.5, SIDE, SIDE, theme.grid);
        let places = self.places(frame);
        let legend_width = match self.colouring {
            Colouring::Categories { labels, palette } => {
                labels.check_len("the category column", places.len())?;
                draw_categories(&mut canvas, &places, labels, palette, theme)
            }
            Colouring::Values(values) => {
                if values.len() != places.len() {
                    let (found, expected) = (values.len(), places.len());
                    return Err(AnalysisError::Length { what: "the column of values", found, expected });
                }
                draw_values(&mut canvas, &places, values, theme)
            }
        };
        draw_axis_names(&mut canvas, self.axes, theme);
        Ok(canvas.into_panel(SIDE + LEGEND_GAP + legend_width, HEADING_HEIGHT + SIDE + 1.0))
    }

    /// Pixels of each cell.
    fn places(&self, (scale, all): (Scale, ArrayView2<'_, f32>)) -> Vec<(f64, f64)> {
        let range = |axis: usize| {
            let column = all.index_axis(Dim(1), axis);
            let (low, high) = column.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            (f64::from(low), f64::from(high))
        };
        let (mut across, mut upwards) = (range(0), range(1));
        if scale == Scale::Equal {
            let half = (across.1 - across.0).max(upwards.1 - upwards.0) / 2.0;
            let widened = |(low, high): (f64, f64)| ((low + high) / 2.0 - half, (low + high) / 2.0 + half);
            (across, upwards) = (widened(across), widened(upwards));
        }
        let (across, upwards) = (Axis::tight(across.0, across.1, 1), Axis::tight(upwards.0, upwards.1, 1));
        let inner = SIDE - 2.0 * PADDING;
        let place = |(x, y): (f64, f64)| {
            (PADDING + inner * across.share(x), HEADING_HEIGHT + PADDING + inner * (1.0 - upwards.share(y)))
        };
        self.points.rows().into_iter().map(|row| place((f64::from(row[0]), f64::from(row[1])))).collect()
    }
}

/// How axes fill the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// Each as far as it goes.
    Stretched,
    /// A unit is as long on both.
    Equal,
}

fn draw_categories(
    canvas: &mut Canvas,
    places: &[(f64, f64)],
    labels: &Labels,
    palette: &Palette,
    theme: &Theme,
) -> f64 {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(0));
    let (backdrop, front): (Vec<usize>, Vec<usize>) =
        order.into_iter().partition(|&cell| palette.is_muted(labels.name(cell)));
    let radius = dot_radius(places.len());
    // Layers of shuffled cells keep the category drawn last from hiding the rest.
    let layer_size = places.len().div_ceil(N_LAYERS).max(1);
    for layer in std::iter::once(&backdrop[..]).chain(front.chunks(layer_size)) {
        let mut by_code = vec![Vec::new(); labels.names().len()];
        layer.iter().for_each(|&cell| by_code[labels.codes()[cell] as usize].push(places[cell]));
        for (name, centres) in labels.names().iter().zip(&by_code) {
            canvas.dots(centres, radius, palette.colour(name, theme));
        }
    }
    let carried = labels.carried();
    let is_numbered = carried.len() > MOST_UNNUMBERED;
    // Clusters that are called by numbers keep them.
    let numbers: Option<Vec<usize>> = carried.iter().map(|(name, ..)| name.parse().ok()).collect();
    let mut entries = Vec::new();
    for (rank, (name, _, cells)) in carried.into_iter().enumerate() {
        let colour = palette.colour(name, theme);
        let number = is_numbered.then(|| numbers.as_ref().map_or(rank + 1, |numbers| numbers[rank]));
        if let Some(number) = number {
            draw_number(canvas, middle(&cells, places), number, colour, theme);
        }
        entries.push(Entry { name: name.to_owned(), colour, number });
    }
    let legend = Legend::new(entries, SIDE);
    legend.draw(canvas, SIDE + LEGEND_GAP, HEADING_HEIGHT, theme);
    legend.width()
}

fn draw_values(canvas: &mut Canvas, places: &[(f64, f64)], values: &[f32], theme: &Theme) -> f64 {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let scale = if low <= high { Axis::tight(low.into(), high.into(), 4) } else { Axis::tight(0.0, 1.0, 4) };
    let radius = dot_radius(places.len());
    let mut shades = vec![Vec::new(); N_SHADES];
    let mut backdrop = Vec::new();
    for (&place, &value) in places.iter().zip(values) {
        match value.is_finite() {
            true => shades[(scale.share(value.into()) * (N_SHADES - 1) as f64).round() as usize].push(place),
            false => backdrop.push(place),
        }
    }
    canvas.dots(&backdrop, radius, theme.muted);
    for (shade, centres) in shades.iter().enumerate() {
        canvas.dots(centres, radius, sequential(shade as f64 / (N_SHADES - 1) as f64));
    }
    draw_colour_bar(canvas, (SIDE + LEGEND_GAP, HEADING_HEIGHT), &scale, sequential, theme)
}

/// Two short arrows in the lower left corner: the positions of a UMAP have directions but no units.
fn draw_axis_names(canvas: &mut Canvas, [across, upwards]: [&str; 2], theme: &Theme) {
    let (x, y) = (12.0, HEADING_HEIGHT + SIDE - 12.0);
    let style = Style::new(10.0, theme.soft_ink);
    canvas.line((x, y), (x + ARROW, y), theme.soft_ink, 1.0);
    canvas.line((x, y), (x, y - ARROW), theme.soft_ink, 1.0);
    canvas.polygon(
        &[(x + ARROW + 4.0, y), (x + ARROW - 2.0, y - 3.0), (x + ARROW - 2.0, y + 3.0)],
        theme.soft_ink,
        1.0,
    );
    canvas.polygon(
        &[(x, y - ARROW - 4.0), (x - 3.0, y - ARROW + 2.0), (x + 3.0, y - ARROW + 2.0)],
        theme.soft_ink,
        1.0,
    );
    canvas.text(x + 6.0, y - 5.0, across, style);
    canvas.text_turned((x + 13.0, y - 16.0), 90.0, upwards, style);
}

/// Where a category's number stands: the cell in its midst, so that it never floats between two parts.
fn middle(members: &[usize], places: &[(f64, f64)]) -> (f64, f64) {
    let median = |axis: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = members.iter().map(|&cell| axis(&places[cell])).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (x, y) = (median(|place| place.0), median(|place| place.1));
    let distance = |place: (f64, f64)| (place.0 - x).powi(2) + (place.1 - y).powi(2);
    let nearest = members.iter().map(|&cell| places[cell]).min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    nearest.unwrap_or((x, y))
}

fn dot_radius(n_cells: usize) -> f64 {
    (0.22 * SIDE / (n_cells.max(1) as f64).sqrt()).clamp(0.5, 3.5)
}

const SIDE: f64 = 400.0;
const PADDING: f64 = 16.0;
const LEGEND_GAP: f64 = 14.0;
const ARROW: f64 = 44.0;
const N_LAYERS: usize = 24;
const MOST_UNNUMBERED: usize = 10;
const N_SHADES: usize = 64;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_section_keeps_its_shape_and_a_umap_fills_the_frame() {
        let points = array![[0.0, 0.0], [10.0, 0.0], [10.0, 2.0]];
        let colouring = Colouring::Values(&[0.0, 1.0, 2.0]);
        let scatter = Scatter { title: "", points: points.view(), axes: ["", ""], colouring };
        let sides = |scale| {
            let places = scatter.places(scale);
            (places[1].0 - places[0].0, places[1].1 - places[2].1)
        };
        let (across, upwards) = sides((Scale::Stretched, points.view()));
        assert!((across - upwards).abs() < 1e-9);
        let (across, upwards) = sides((Scale::Equal, points.view()));
        assert!((across - 5.0 * upwards).abs() < 1e-9);
    }
}
