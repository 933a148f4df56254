//! A list of swatches with names, in as many columns as its height allows.

use super::canvas::{Canvas, LABEL_SIZE, Style};
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

const ROW_HEIGHT: f64 = 20.0;
const NAME_AT: f64 = 22.0;
const COLUMN_GAP: f64 = 14.0;
const WIDEST_NAME: f64 = 200.0;
