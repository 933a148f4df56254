//! Curves over epochs, such as a loss.

use super::axis::Axis;
use super::canvas::{Canvas, HEADING_HEIGHT, LABEL_SIZE, Panel, Style, TICK_SIZE};
use super::legend::spread;
use super::palette::{Colour, Palette};
use super::text::{Weight, fitted, width};
use super::theme::Theme;
use crate::{AnalysisError, Result};

/// Curves that share their axes; each is named at its end rather than in a legend.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a> {
    /// What the picture shows.
    pub title: &'a str,
    /// Name of the horizontal axis: `epoch`.
    pub x_label: &'a str,
    /// Name and unit of the vertical axis: `ELBO per cell (nats)`.
    pub y_label: &'a str,
    /// The curves.
    pub series: &'a [LineSeries],
    /// Colours by name of the curve.
    pub palette: &'a Palette,
}

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub struct LineSeries {
    /// Its name.
    pub name: String,
    /// Its points, in order of `x`; points that are not finite interrupt it.
    pub points: Vec<(f64, f64)>,
}

impl Lines<'_> {
    /// Draws the curves on a common scale.
    ///
    /// # Errors   [`AnalysisError::TooFew`] when no curve has a finite point
    pub fn panel(&self, theme: &Theme) -> Result<Panel> {
        let finite = || self.series.iter().flat_map(|series| &series.points).filter(|point| is_finite(point));
        if finite().next().is_none() {
            return Err(AnalysisError::TooFew { step: "a curve", unit: "finite points", needed: 1, found: 0 });
        }
        let range = |axis: fn(&(f64, f64)) -> f64| {
            finite().map(axis).fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
        };
        let ((x_low, x_high), (y_low, y_high)) = (range(|point| point.0), range(|point| point.1));
        let (across, upwards) = (Axis::tight(x_low, x_high, 6), Axis::rounded(y_low, y_high, 5));

        let mut canvas = Canvas::default();
        canvas.heading(self.title, self.y_label, theme);
        let tick_widths = upwards.ticks.iter().map(|&tick| width(&upwards.label(tick), TICK_SIZE, Weight::Regular));
        let left = tick_widths.fold(0.0, f64::max) + 8.0;
        let place = |point: &(f64, f64)| {
            (left + PLOT_WIDTH * across.share(point.0), TOP + PLOT_HEIGHT * (1.0 - upwards.share(point.1)))
        };
        let ticks = Style::new(TICK_SIZE, theme.soft_ink);
        for &tick in &upwards.ticks {
            let y = TOP + PLOT_HEIGHT * (1.0 - upwards.share(tick));
            canvas.line((left, y), (left + PLOT_WIDTH, y), theme.grid, 1.0);
            canvas.text(left - 8.0, y + 4.0, &upwards.label(tick), ticks.end());
        }
        for &tick in &across.ticks {
            let x = left + PLOT_WIDTH * across.share(tick);
            canvas.text(x, TOP + PLOT_HEIGHT + 18.0, &across.label(tick), ticks.middle());
        }
        canvas.text(left + PLOT_WIDTH / 2.0, TOP + PLOT_HEIGHT + 36.0, self.x_label, ticks.middle());

        let mut ends = Vec::new();
        for series in self.series {
            let colour = self.palette.colour(&series.name, theme);
            for run in series.points.split(|point| !is_finite(point)).filter(|run| !run.is_empty()) {
                let run: Vec<(f64, f64)> = run.iter().map(place).collect();
                match run[..] {
                    [only] => canvas.circle(only, 2.0, colour),
                    _ => canvas.polyline(&run, colour, 2.0),
                }
            }
            if let Some(last) = series.points.iter().rev().find(|point| is_finite(point)) {
                let name = fitted(&series.name, WIDEST_NAME, LABEL_SIZE, Weight::SemiBold);
                ends.push(End { name, colour, at: place(last) });
            }
        }
        let names_width = draw_names(&mut canvas, ends, left + PLOT_WIDTH + 10.0);
        Ok(canvas.into_panel(left + PLOT_WIDTH + 10.0 + names_width, TOP + PLOT_HEIGHT + 40.0))
    }
}

struct End {
    name: String,
    colour: Colour,
    at: (f64, f64),
}

/// Names beside the ends of their curves, moved apart where they would overlap.
fn draw_names(canvas: &mut Canvas, mut ends: Vec<End>, x: f64) -> f64 {
    ends.sort_by(|a, b| a.at.1.total_cmp(&b.at.1));
    let wanted: Vec<f64> = ends.iter().map(|end| end.at.1).collect();
    let heights = spread(&wanted, NAME_HEIGHT, TOP, TOP + PLOT_HEIGHT);
    for (end, y) in ends.iter().zip(heights) {
        canvas.circle(end.at, 3.0, end.colour);
        canvas.text(x, y + 4.0, &end.name, Style::new(LABEL_SIZE, end.colour).semi_bold());
    }
    ends.iter().map(|end| width(&end.name, LABEL_SIZE, Weight::SemiBold)).fold(0.0, f64::max)
}

fn is_finite(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

const TOP: f64 = HEADING_HEIGHT + 6.0;
const PLOT_WIDTH: f64 = 420.0;
const PLOT_HEIGHT: f64 = 240.0;
const NAME_HEIGHT: f64 = 16.0;
const WIDEST_NAME: f64 = 180.0;
