//! Names by the size of a number, the largest first: which terms differ most.

use super::axis::Axis;
use super::canvas::{Canvas, HEADING_HEIGHT, LABEL_SIZE, Panel, Style, TICK_SIZE};
use super::palette::Palette;
use super::text::{Weight, fitted, width};
use super::theme::Theme;
use crate::{AnalysisError, Result};

/// Numbers with names, drawn by rank of their size; those below 0 have a colour of their own.
#[derive(Debug, Clone, Copy)]
pub struct Ranks<'a> {
    /// What the picture shows.
    pub title: &'a str,
    /// Name of the vertical axis.
    pub y_label: &'a str,
    /// Names and numbers, in any order.
    pub values: &'a [(String, f64)],
    /// How many are drawn at most.
    pub n_points: usize,
    /// Sizes from here on mean something: a line across.
    pub limit: f64,
    /// What numbers above and below 0 are called.
    pub signs: [&'a str; 2],
}

impl Ranks<'_> {
    /// Draws a point for each name, with the name above it.
    ///
    /// # Errors   [`AnalysisError::TooFew`] without a finite number
    pub fn panel(&self, theme: &Theme) -> Result<Panel> {
        let mut ranked: Vec<&(String, f64)> = self.values.iter().filter(|(_, value)| value.is_finite()).collect();
        ranked.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        ranked.truncate(self.n_points);
        let Some((_, largest)) = ranked.first() else {
            return Err(AnalysisError::TooFew { step: "ranks", unit: "finite numbers", needed: 1, found: 0 });
        };
        let upwards = Axis::rounded(0.0, largest.abs().max(self.limit * 1.1), 5);
        let names: Vec<String> =
            ranked.iter().map(|(name, _)| fitted(name, WIDEST_NAME, LABEL_SIZE, Weight::Regular)).collect();
        let room = names.iter().map(|name| width(name, LABEL_SIZE, Weight::Regular)).fold(0.0, f64::max) + 12.0;
        let top = HEADING_HEIGHT + room;
        let tick_widths = upwards.ticks.iter().map(|&tick| width(&upwards.label(tick), TICK_SIZE, Weight::Regular));
        let left = tick_widths.fold(0.0, f64::max) + 8.0;
        let across = STEP * ranked.len() as f64;
        let height_of = |value: f64| top + PLOT_HEIGHT * (1.0 - upwards.share(value));

        let mut canvas = Canvas::default();
        canvas.heading(self.title, self.y_label, theme);
        let ticks = Style::new(TICK_SIZE, theme.soft_ink);
        for &tick in &upwards.ticks {
            canvas.line((left, height_of(tick)), (left + across, height_of(tick)), theme.grid, 1.0);
            canvas.text(left - 8.0, height_of(tick) + 4.0, &upwards.label(tick), ticks.end());
        }
        let palette = Palette::new(self.signs);
        let limit = height_of(self.limit);
        canvas.line((left, limit), (left + across, limit), theme.ink, 1.0);
        for (rank, ((_, value), name)) in ranked.iter().zip(&names).enumerate() {
            let sign = self.signs[usize::from(*value < 0.0)];
            let at = (left + STEP * (rank as f64 + 0.5), height_of(value.abs()));
            canvas.circle(at, 3.0, palette.colour(sign, theme));
            let ink = if value.abs() >= self.limit { theme.ink } else { theme.soft_ink };
            canvas.text_turned((at.0 + 4.0, at.1 - 8.0), 90.0, name, Style::new(LABEL_SIZE, ink));
        }
        let mut x = left;
        let below = top + PLOT_HEIGHT + 22.0;
        for sign in self.signs {
            canvas.circle((x + 4.0, below - 4.0), 4.0, palette.colour(sign, theme));
            canvas.text(x + 14.0, below, sign, Style::new(LABEL_SIZE, theme.soft_ink));
            x += 30.0 + width(sign, LABEL_SIZE, Weight::Regular);
        }
        Ok(canvas.into_panel((left + across).max(x), below + 8.0))
    }
}

const PLOT_HEIGHT: f64 = 240.0;
const STEP: f64 = 17.0;
const WIDEST_NAME: f64 = 230.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[(&str, f64)]) -> Result<String> {
        let values: Vec<(String, f64)> = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let ranks = Ranks { title: "t", y_label: "y", values: &values, n_points: 2, limit: 2.3, signs: ["up", "down"] };
        Ok(ranks.panel(&Theme::LIGHT)?.shapes)
    }

    #[test]
    fn the_largest_are_named_whatever_their_sign() {
        let shapes = check(&[("SMALL", 0.1), ("DOWN", -4.0), ("UP", 3.0), ("NONE", f64::NAN)]).unwrap();
        assert!(shapes.contains("DOWN") && shapes.contains("UP") && !shapes.contains("SMALL"));
        assert!(shapes.find("DOWN") < shapes.find("UP"));
        assert!(check(&[("NONE", f64::NAN)]).is_err());
    }
}
