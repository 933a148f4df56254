//! Means of genes on two sides, gene by gene.

use super::axis::Axis;
use super::canvas::{Canvas, HEADING_HEIGHT, LABEL_SIZE, Panel, Style, TICK_SIZE};
use super::palette::sequential;
use super::text::{Weight, fitted, width};
use super::theme::Theme;
use crate::{AnalysisError, Result};

/// A dot for every gene: how far means lie from the line on which both sides are equal.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// What the picture shows.
    pub title: &'a str,
    /// What is to be known of it: `R² 0.92 over 2,000 genes`.
    pub subtitle: &'a str,
    /// Names of both sides, across and upwards.
    pub sides: [&'a str; 2],
    /// The means across, one for each gene.
    pub across: &'a [f64],
    /// The means upwards.
    pub upwards: &'a [f64],
    /// Positions of genes that are drawn in front, in a colour of their own.
    pub marked: &'a [usize],
    /// Genes that are written out: position and name. One that would stand on another's name is left out.
    pub named: &'a [(usize, String)],
}

impl Means<'_> {
    /// Draws the genes into a square with one scale on both sides.
    ///
    /// # Errors   two numbers of genes, a mean that is not finite
    pub fn panel(&self, theme: &Theme) -> Result<Panel> {
        let (found, expected) = (self.across.len(), self.upwards.len());
        if found != expected {
            return Err(AnalysisError::Length { what: "one side of the means", found, expected });
        }
        let all = || self.across.iter().chain(self.upwards).copied();
        if let Some(at) = all().position(|mean| !mean.is_finite()) {
            let (row, column) = (at % found, at / found);
            return Err(AnalysisError::NotFinite { what: "the means", row, column });
        }
        let (low, high) = all().fold((0.0_f64, 0.0_f64), |(low, high), mean| (low.min(mean), high.max(mean)));
        let scale = Axis::tight(low, high, 5);
        let (left, top) = (MARGIN, HEADING_HEIGHT);
        let x = |mean: f64| left + SIDE * scale.share(mean);
        let y = |mean: f64| top + SIDE * (1.0 - scale.share(mean));
        let mut canvas = Canvas::default();
        canvas.heading(self.title, self.subtitle, theme);
        let ticks = Style::new(TICK_SIZE, theme.soft_ink);
        for &tick in &scale.ticks {
            canvas.line((x(tick), top), (x(tick), top + SIDE), theme.grid, 1.0);
            canvas.line((left, y(tick)), (left + SIDE, y(tick)), theme.grid, 1.0);
            canvas.text(x(tick), top + SIDE + 16.0, &scale.label(tick), ticks.middle());
            canvas.text(left - 6.0, y(tick) + 4.0, &scale.label(tick), ticks.end());
        }
        canvas.line((x(scale.low), y(scale.low)), (x(scale.high), y(scale.high)), theme.soft_ink, 1.0);
        let place = |gene: usize| (x(self.across[gene]), y(self.upwards[gene]));
        let is_marked = |gene: &usize| self.marked.contains(gene);
        let others: Vec<_> = (0..found).filter(|gene| !is_marked(gene)).map(place).collect();
        canvas.dots(&others, RADIUS, theme.muted);
        canvas.dots(&self.marked.iter().map(|&gene| place(gene)).collect::<Vec<_>>(), RADIUS, sequential(0.75));
        let mut taken: Vec<(f64, f64, f64)> = Vec::new();
        for (gene, name) in self.named {
            let (x, y) = place(*gene);
            let name = fitted(name, WIDEST_NAME, TICK_SIZE, Weight::Regular);
            let (left, right) = (x - 5.0 - width(&name, TICK_SIZE, Weight::Regular), x - 5.0);
            let meets =
                |&(from, to, at): &(f64, f64, f64)| left < to && from < right && (y - at).abs() < TICK_SIZE + 1.0;
            if !taken.iter().any(meets) {
                canvas.text(right, y - 5.0, &name, Style::new(TICK_SIZE, theme.ink).end());
                taken.push((left, right, y));
            }
        }
        let names = Style::new(LABEL_SIZE, theme.ink).middle();
        canvas.text(left + SIDE / 2.0, top + SIDE + 36.0, self.sides[0], names);
        canvas.text_turned((14.0, top + SIDE / 2.0), 90.0, self.sides[1], names);
        Ok(canvas.into_panel(left + SIDE + 8.0, top + SIDE + 44.0))
    }
}

const SIDE: f64 = 360.0;
const MARGIN: f64 = 52.0;
const RADIUS: f64 = 2.2;
const WIDEST_NAME: f64 = 80.0;
