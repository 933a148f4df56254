//! Grouped horizontal bars: one group per figure, one bar per method.

use super::axis::Axis;
use super::canvas::{Canvas, HEADING_HEIGHT, LABEL_SIZE, Panel, Style, TICK_SIZE};
use super::palette::Palette;
use super::text::{Weight, fitted, width};
use super::theme::Theme;
use crate::{AnalysisError, Result};

/// Bars that grow to the right from zero, with their values at the end.
#[derive(Debug, Clone, Copy)]
pub struct Bars<'a> {
    /// What the picture shows.
    pub title: &'a str,
    /// What the length means: `higher is better`.
    pub subtitle: &'a str,
    /// Names of the groups, top to bottom.
    pub groups: &'a [String],
    /// The bars of each group, top to bottom.
    pub series: &'a [BarSeries],
    /// Colours by name of the series.
    pub palette: &'a Palette,
}

/// One bar per group.
#[derive(Debug, Clone, PartialEq)]
pub struct BarSeries {
    /// Its name.
    pub name: String,
    /// A value per group, zero or more; none where there is nothing to show.
    pub values: Vec<Option<f64>>,
}

impl Bars<'_> {
    /// Draws the groups one below the other.
    ///
    /// # Errors   another number of values than groups, a negative value or one that is not finite, no group
    pub fn panel(&self, theme: &Theme) -> Result<Panel> {
        let highest = self.checked_highest()?;
        let scale = Axis::rounded(0.0, highest, 5);
        let mut canvas = Canvas::default();
        canvas.heading(self.title, self.subtitle, theme);
        let keys_width = self.draw_keys(&mut canvas, theme);

        let names: Vec<String> =
            self.groups.iter().map(|name| fitted(name, WIDEST_NAME, LABEL_SIZE, Weight::Regular)).collect();
        let widest = names.iter().map(|name| width(name, LABEL_SIZE, Weight::Regular)).fold(0.0, f64::max);
        let (left, top) = (widest + 12.0, HEADING_HEIGHT + KEYS_HEIGHT);
        let group_height = self.series.len() as f64 * BAR_STEP + GROUP_GAP;
        let bottom = top + self.groups.len() as f64 * group_height;
        for &tick in &scale.ticks {
            let x = left + PLOT_WIDTH * scale.share(tick);
            canvas.line((x, top), (x, bottom), theme.grid, 1.0);
            canvas.text(x, bottom + 16.0, &scale.label(tick), Style::new(TICK_SIZE, theme.soft_ink).middle());
        }
        for (group, name) in names.iter().enumerate() {
            let first = top + group as f64 * group_height + GROUP_GAP / 2.0;
            let middle = first + (group_height - GROUP_GAP) / 2.0;
            canvas.text(left - 10.0, middle + 4.0, name, Style::new(LABEL_SIZE, theme.ink).end());
            for (rank, series) in self.series.iter().enumerate() {
                let Some(value) = series.values[group] else { continue };
                let y = first + rank as f64 * BAR_STEP;
                let length = PLOT_WIDTH * scale.share(value);
                canvas.bar(left, y, length, BAR_HEIGHT, self.palette.colour(&series.name, theme));
                let value_style = Style::new(10.5, theme.soft_ink);
                canvas.text(left + length + 5.0, y + BAR_HEIGHT - 2.5, &short(value), value_style);
            }
        }
        Ok(canvas.into_panel((left + PLOT_WIDTH + 44.0).max(keys_width), bottom + 20.0))
    }

    fn checked_highest(&self) -> Result<f64> {
        if self.groups.is_empty() || self.series.is_empty() {
            return Err(AnalysisError::TooFew { step: "a bar chart", unit: "groups", needed: 1, found: 0 });
        }
        let mut highest = 0.0f64;
        for series in self.series {
            if series.values.len() != self.groups.len() {
                let (found, expected) = (series.values.len(), self.groups.len());
                return Err(AnalysisError::Length { what: "a series of bars", found, expected });
            }
            for &value in series.values.iter().flatten() {
                if !(0.0..f64::INFINITY).contains(&value) {
                    let found = value.to_string();
                    return Err(AnalysisError::Option { option: "a bar", expected: "zero or more", found });
                }
                highest = highest.max(value);
            }
        }
        Ok(if highest > 0.0 { highest } else { 1.0 })
    }

    /// The names of the series in one line, each after its colour.
    fn draw_keys(&self, canvas: &mut Canvas, theme: &Theme) -> f64 {
        let mut x = 0.0;
        for series in self.series {
            let name = fitted(&series.name, WIDEST_NAME, LABEL_SIZE, Weight::Regular);
            canvas.circle((x + 5.0, HEADING_HEIGHT + 6.0), 5.0, self.palette.colour(&series.name, theme));
            canvas.text(x + 16.0, HEADING_HEIGHT + 10.0, &name, Style::new(LABEL_SIZE, theme.ink));
            x += 16.0 + width(&name, LABEL_SIZE, Weight::Regular) + 18.0;
        }
        x
    }
}

/// Three significant digits where there are fewer than three before the point.
fn short(value: f64) -> String {
    let before = if value >= 1.0 { value.log10().floor() as usize + 1 } else { 0 };
    format!("{value:.*}", 3usize.saturating_sub(before))
}

const PLOT_WIDTH: f64 = 360.0;
const KEYS_HEIGHT: f64 = 30.0;
const BAR_HEIGHT: f64 = 13.0;
const BAR_STEP: f64 = 16.0;
const GROUP_GAP: f64 = 14.0;
const WIDEST_NAME: f64 = 190.0;
