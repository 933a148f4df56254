//! What colours and numbers stand for: swatches with names in as many columns as a height allows, and shades of numbers.

use super::axis::Axis;
use super::canvas::{Canvas, LABEL_SIZE, Style, TICK_SIZE};
use super::palette::Colour;
use super::text::{Weight, fitted, width};
use super::theme::Theme;

/// One line of a legend.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) colour: Colour,
    /// The number that stands for it in the picture, where there is one.
    pub(super) number: Option<usize>,
}

/// Entries laid out for a height.
pub(super) struct Legend {
    entries: Vec<Entry>,
    n_rows: usize,
    column_width: f64,
}

impl Legend {
    pub(super) fn new(entries: Vec<Entry>, height: f64) -> Self {
        let n_rows = ((height / ROW_HEIGHT) as usize).max(1);
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|entry| Entry { name: fitted(&entry.name, WIDEST_NAME, LABEL_SIZE, Weight::Regular), ..entry })
            .collect();
        let widest = entries.iter().map(|e| width(&e.name, LABEL_SIZE, Weight::Regular)).fold(0.0, f64::max);
        Self { entries, n_rows, column_width: NAME_AT + widest + COLUMN_GAP }
    }

    pub(super) fn width(&self) -> f64 {
        self.entries.len().div_ceil(self.n_rows) as f64 * self.column_width
    }

    /// Draws with the upper left corner at `x`, `y`.
    pub(super) fn draw(&self, canvas: &mut Canvas, x: f64, y: f64, theme: &Theme) {
        for (i, entry) in self.entries.iter().enumerate() {
            let x = x + (i / self.n_rows) as f64 * self.column_width;
            let middle = y + (i % self.n_rows) as f64 * ROW_HEIGHT + ROW_HEIGHT / 2.0;
            match entry.number {
                Some(number) => draw_number(canvas, (x + 8.0, middle), number, entry.colour, theme),
                None => canvas.circle((x + 8.0, middle), 5.0, entry.colour),
            }
            canvas.text(x + NAME_AT, middle + 4.0, &entry.name, Style::new(LABEL_SIZE, theme.ink));
        }
    }
}

/// A number in a ring of its category's colour: readable on any cloud of points.
pub(super) fn draw_number(canvas: &mut Canvas, centre: (f64, f64), number: usize, colour: Colour, theme: &Theme) {
    canvas.ring(centre, 7.5, theme.background, colour);
    canvas.text(centre.0, centre.1 + 3.2, &number.to_string(), Style::new(9.0, theme.ink).semi_bold().middle());
}

/// A bar of all shades with the numbers they stand for, its upper left corner at `x`, `y`; returns the width it takes.
pub(super) fn draw_colour_bar(
    canvas: &mut Canvas,
    (x, y): (f64, f64),
    scale: &Axis,
    shade: impl Fn(f64) -> Colour,
    theme: &Theme,
) -> f64 {
    let step = COLOUR_BAR_HEIGHT / f64::from(N_STEPS);
    for i in 0..N_STEPS {
        let colour = shade(1.0 - f64::from(i) / f64::from(N_STEPS - 1));
        // Each step reaches under the next, so that no seam shows between them.
        let reach = if i + 1 < N_STEPS { 0.5 } else { 0.0 };
        canvas.rect(x, y + step * f64::from(i), COLOUR_BAR_WIDTH, step + reach, colour);
    }
    for &tick in &scale.ticks {
        let at = y + COLOUR_BAR_HEIGHT * (1.0 - scale.share(tick));
        canvas.text(x + COLOUR_BAR_WIDTH + 6.0, at + 4.0, &scale.label(tick), Style::new(TICK_SIZE, theme.soft_ink));
    }
    let numbers = scale.ticks.iter().map(|&tick| width(&scale.label(tick), TICK_SIZE, Weight::Regular));
    COLOUR_BAR_WIDTH + 6.0 + numbers.fold(0.0, f64::max)
}

/// Positions as close to the wanted ones as a least distance between them and the bounds allow, in the same order.
///
/// `wanted` ascends.
pub(super) fn spread(wanted: &[f64], least_distance: f64, low: f64, high: f64) -> Vec<f64> {
    let mut placed: Vec<f64> = Vec::with_capacity(wanted.len());
    for &at in wanted {
        let free = placed.last().map_or(low, |before| before + least_distance);
        placed.push(at.max(free));
    }
    let mut free = high;
    for at in placed.iter_mut().rev() {
        *at = at.min(free);
        free = *at - least_distance;
    }
    placed
}

const N_STEPS: u32 = 64;
const COLOUR_BAR_WIDTH: f64 = 12.0;
const COLOUR_BAR_HEIGHT: f64 = 140.0;
const ROW_HEIGHT: f64 = 20.0;
const NAME_AT: f64 = 22.0;
const COLUMN_GAP: f64 = 14.0;
const WIDEST_NAME: f64 = 200.0;
