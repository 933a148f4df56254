//! Distributions of a number by label.

use super::axis::Axis;
use super::canvas::{Canvas, HEADING_HEIGHT, LABEL_SIZE, Panel, Style, TICK_SIZE};
use super::palette::Palette;
use super::text::{Weight, fitted, width};
use super::theme::Theme;
use crate::quantile::quantile;
use crate::{AnalysisError, Labels, Result};

/// A violin per label, with its quartiles and median.
#[derive(Debug, Clone, Copy)]
pub struct Violin<'a> {
    /// What the picture shows.
    pub title: &'a str,
    /// Name and unit of the values.
    pub y_label: &'a str,
    /// A value per cell; those that are not finite are left out.
    pub values: &'a [f32],
    /// Label of each cell.
    pub labels: &'a Labels,
    /// Colours of the labels.
    pub palette: &'a Palette,
}

impl Violin<'_> {
    /// Draws labels with finite values only, in the order of their names.
    ///
    /// # Errors   labels of another number of cells, no finite value
    pub fn panel(&self, theme: &Theme) -> Result<Panel> {
        let groups = self.groups()?;
        let extremes = |values: &[f64]| (values[0], values[values.len() - 1]);
        let (low, high) = groups
            .iter()
            .map(|(_, values)| extremes(values))
            .fold((f64::MAX, f64::MIN), |(low, high), (l, h)| (low.min(l), high.max(h)));
        let scale = Axis::rounded(low, high, 5);
        let mut canvas = Canvas::default();
        canvas.heading(self.title, self.y_label, theme);
        let ticks = scale.ticks.iter().map(|&tick| width(&scale.label(tick), TICK_SIZE, Weight::Regular));
        let (left, top) = (ticks.fold(0.0, f64::max) + 8.0, HEADING_HEIGHT + 6.0);
        let plot_width = STEP * groups.len() as f64;
        let height_of = |value: f64| top + PLOT_HEIGHT * (1.0 - scale.share(value));
        for &tick in &scale.ticks {
            let y = height_of(tick);
            canvas.line((left, y), (left + plot_width, y), theme.grid, 1.0);
            canvas.text(left - 8.0, y + 4.0, &scale.label(tick), Style::new(TICK_SIZE, theme.soft_ink).end());
        }
        let mut centres = Vec::new();
        for (i, (name, values)) in groups.iter().enumerate() {
            let x = left + (i as f64 + 0.5) * STEP;
            centres.push(x);
            let colour = self.palette.colour(name, theme);
            let profile = density(values);
            let widest = profile.iter().map(|&(_, density)| density).fold(0.0, f64::max);
            let reach = |density: f64| HALF_WIDTH * density / widest;
            let right = profile.iter().map(|&(value, density)| (x + reach(density), height_of(value)));
            let back = profile.iter().rev().map(|&(value, density)| (x - reach(density), height_of(value)));
            canvas.polygon(&right.chain(back).collect::<Vec<_>>(), colour, 0.75);
            let quartile = |share: f64| height_of(quantile(values, share));
            canvas.line((x, quartile(0.25)), (x, quartile(0.75)), theme.ink, 3.0);
            canvas.ring((x, quartile(0.5)), 3.0, theme.background, theme.ink);
        }
        let names: Vec<String> =
            groups.iter().map(|(name, _)| fitted(name, WIDEST_NAME, LABEL_SIZE, Weight::Regular)).collect();
        let names_height = canvas.column_names(&names, &centres, top + PLOT_HEIGHT, theme.ink);
        Ok(canvas.into_panel(left + plot_width, top + PLOT_HEIGHT + names_height))
    }

    /// Names and their finite values, ascending.
    fn groups(&self) -> Result<Vec<(&str, Vec<f64>)>> {
        self.labels.check_len("the label column", self.values.len())?;
        let mut groups = Vec::new();
        for (name, _, cells) in self.labels.carried() {
            let values = cells.iter().map(|&cell| f64::from(self.values[cell]));
            let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
            values.sort_by(f64::total_cmp);
            if !values.is_empty() {
                groups.push((name, values));
            }
        }
        match groups.is_empty() {
            true => Err(AnalysisError::TooFew { step: "a violin plot", unit: "finite values", needed: 1, found: 0 }),
            false => Ok(groups),
        }
    }
}

/// Gaussian kernel density over the range of ascending values, the bandwidth by Scott's rule.
fn density(values: &[f64]) -> Vec<(f64, f64)> {
    let n = values.len() as f64;
    let (low, high) = (values[0], values[values.len() - 1]);
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
    if high <= low || deviation == 0.0 {
        return vec![(low, 1.0)];
    }
    let bandwidth = deviation * n.powf(-0.2);
    let at = |i: usize| low + (high - low) * i as f64 / (N_POINTS - 1) as f64;
    let density = |place: f64| values.iter().map(|value| (-((place - value) / bandwidth).powi(2) / 2.0).exp()).sum();
    (0..N_POINTS).map(|i| (at(i), density(at(i)))).collect()
}

const N_POINTS: usize = 80;
const PLOT_HEIGHT: f64 = 260.0;
const STEP: f64 = 64.0;
const HALF_WIDTH: f64 = 27.0;
const WIDEST_NAME: f64 = 150.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn density_is_highest_where_values_are() {
        let profile = density(&[0.0, 5.0, 5.1, 5.2, 10.0]);
        let (place, _) = profile.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        assert!((4.5..5.7).contains(&place), "{place}");
    }
}
