//! Observed labels against predicted ones.

use super::axis::Axis;
use super::canvas::{Canvas, HEADING_HEIGHT, LABEL_SIZE, Panel, Style, TICK_SIZE};
use super::legend::draw_colour_bar;
use super::palette::intensity;
use super::text::{Weight, fitted, width};
use super::theme::Theme;
use crate::metrics::Confusion;
use crate::{AnalysisError, Result};

/// A confusion matrix in which each row shows where the cells of one observed label went.
#[derive(Debug, Clone, Copy)]
pub struct Heatmap<'a> {
    /// What the picture shows.
    pub title: &'a str,
    /// Counts of observed and predicted labels.
    pub confusion: &'a Confusion,
}

impl Heatmap<'_> {
    /// Draws shares of each row as shades, as percentages too while they fit.
    ///
    /// # Errors   [`AnalysisError::TooFew`] for a matrix without labels
    pub fn panel(&self, theme: &Theme) -> Result<Panel> {
        let Confusion { labels, counts } = self.confusion;
        let subtitle = "share of each observed label (row) by predicted label (column)";
        let totals: Vec<u64> = counts.iter().map(|row| row.iter().sum()).collect();
        ShareTable { title: self.title, subtitle, rows: labels, columns: labels, counts, totals: &totals }.panel(theme)
    }
}

/// Counts of which each row is shown as shares, rows and columns each with names of their own.
#[derive(Debug, Clone, Copy)]
pub struct ShareTable<'a> {
    /// What the picture shows.
    pub title: &'a str,
    /// A line under the title.
    pub subtitle: &'a str,
    /// Names of the rows.
    pub rows: &'a [String],
    /// Names of the columns.
    pub columns: &'a [String],
    /// A row of counts per name.
    pub counts: &'a [Vec<u64>],
    /// Cells of each row, those of columns that are not shown included.
    pub totals: &'a [u64],
}

impl ShareTable<'_> {
    /// Draws shares of each row as shades, as percentages too while they fit.
    ///
    /// # Errors   [`AnalysisError::TooFew`] for a table without rows or columns
    pub fn panel(&self, theme: &Theme) -> Result<Panel> {
        self.draw([self.rows, self.columns], |row, column| self.share(row, column), theme)
    }

    /// Draws the same with its rows as columns: the shares of each column add up to one.
    ///
    /// # Errors   as [`Self::panel`]
    pub fn transposed(&self, theme: &Theme) -> Result<Panel> {
        self.draw([self.columns, self.rows], |row, column| self.share(column, row), theme)
    }

    /// Of the cells of a row, the share in a column; none of a row without cells.
    fn share(&self, row: usize, column: usize) -> f64 {
        match self.totals[row] {
            0 => 0.0,
            total => self.counts[row][column] as f64 / total as f64,
        }
    }

    fn draw(
        &self,
        [rows, columns]: [&[String]; 2],
        share: impl Fn(usize, usize) -> f64,
        theme: &Theme,
    ) -> Result<Panel> {
        let (n_rows, n_columns) = (rows.len(), columns.len());
        if n_rows == 0 || n_columns == 0 {
            return Err(AnalysisError::TooFew { step: "a heatmap", unit: "labels", needed: 1, found: 0 });
        }
        let side = (MOST_WIDTH / n_rows.max(n_columns) as f64).clamp(14.0, 44.0);
        let fitting = |name: &String| fitted(name, WIDEST_NAME, LABEL_SIZE, Weight::Regular);
        let [rows, columns] = [rows, columns].map(|names| names.iter().map(fitting).collect::<Vec<_>>());
        let widest = rows.iter().map(|name| width(name, LABEL_SIZE, Weight::Regular)).fold(0.0, f64::max);
        let mut canvas = Canvas::default();
        canvas.heading(self.title, self.subtitle, theme);
        let (left, top) = (widest + 10.0, HEADING_HEIGHT + 4.0);
        for (row, name) in rows.iter().enumerate() {
            let y = top + row as f64 * side;
            canvas.text(left - 8.0, y + side / 2.0 + 4.0, name, Style::new(LABEL_SIZE, theme.ink).end());
            for column in 0..n_columns {
                draw_share(&mut canvas, (left + column as f64 * side, y), side, share(row, column), theme);
            }
        }
        let (right, bottom) = (left + side * n_columns as f64, top + side * n_rows as f64);
        let border = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)];
        canvas.polyline(&border.map(|(x, y)| (x - 0.5, y - 0.5)), theme.grid, 1.0);
        let centres: Vec<f64> = (0..n_columns).map(|column| left + (column as f64 + 0.5) * side).collect();
        let names_height = canvas.column_names(&columns, &centres, bottom, theme.ink);
        let scale = Axis::tight(0.0, 1.0, 4);
        let bar = draw_colour_bar(&mut canvas, (right + 18.0, top), &scale, |s| intensity(s, theme), theme);
        Ok(canvas.into_panel(right + 18.0 + bar, (bottom + names_height).max(top + 150.0)))
    }
}

fn draw_share(canvas: &mut Canvas, (x, y): (f64, f64), side: f64, share: f64, theme: &Theme) {
    let shade = intensity(share, theme);
    canvas.rect(x, y, side - 1.0, side - 1.0, shade);
    let percent = (100.0 * share).round();
    if side < SMALLEST_WRITTEN || percent < 1.0 {
        return;
    }
    let (dark, light) = (Theme::LIGHT.ink, Theme::DARK.ink);
    let style = Style::new(TICK_SIZE, if shade.lightness() > LIGHT_ENOUGH { dark } else { light });
    canvas.text(x + side / 2.0, y + side / 2.0 + 4.0, &format!("{percent:.0}"), style.middle());
}

const MOST_WIDTH: f64 = 440.0;
const SMALLEST_WRITTEN: f64 = 24.0;
/// Shades lighter than this carry dark letters.
const LIGHT_ENOUGH: f64 = 140.0;
const WIDEST_NAME: f64 = 170.0;
