//! Expression of marker genes by label: how many cells express a gene, and how strongly.

use super::axis::Axis;
use super::canvas::{Canvas, HEADING_HEIGHT, LABEL_SIZE, Panel, Style, TICK_SIZE};
use super::legend::draw_colour_bar;
use super::palette::sequential;
use super::text::{Weight, fitted, width};
use super::theme::Theme;
use crate::{AnalysisError, CsrView, Labels, Result};

/// A dot per label (row) and gene (column): its area is the share of cells that express the gene, its colour the mean.
#[derive(Debug, Clone, Copy)]
pub struct DotPlot<'a> {
    /// What the picture shows.
    pub title: &'a str,
    /// Log-normalised expression.
    pub expression: CsrView<'a>,
    /// Label of each cell.
    pub labels: &'a Labels,
    /// Names of the shown genes and their columns in `expression`.
    pub genes: &'a [(String, usize)],
}

impl DotPlot<'_> {
    /// Draws labels with cells only, in the order of their names.
    ///
    /// # Errors   labels of another number of cells, no gene, a column beyond the genes
    pub fn panel(&self, theme: &Theme) -> Result<Panel> {
        let rows = self.rows()?;
        let highest = rows.iter().flat_map(|row| &row.dots).map(|dot| dot.mean).fold(0.0, f64::max);
        let scale = Axis::tight(0.0, highest, 4);
        let names: Vec<String> =
            rows.iter().map(|row| fitted(row.name, WIDEST_NAME, LABEL_SIZE, Weight::Regular)).collect();
        let widest = names.iter().map(|name| width(name, LABEL_SIZE, Weight::Regular)).fold(0.0, f64::max);
        let mut canvas = Canvas::default();
        canvas.heading(self.title, "area: share of cells with the gene; colour: mean log-normalised expression", theme);
        let (left, top) = (widest + 14.0, HEADING_HEIGHT + 4.0);
        let extent = (STEP * self.genes.len() as f64, STEP * rows.len() as f64);
        for (r, row) in rows.iter().enumerate() {
            let y = top + (r as f64 + 0.5) * STEP;
            canvas.line((left, y), (left + extent.0, y), theme.grid, 1.0);
            canvas.text(left - 10.0, y + 4.0, &names[r], Style::new(LABEL_SIZE, theme.ink).end());
            for (g, dot) in row.dots.iter().enumerate().filter(|(_, dot)| dot.share > 0.0) {
                let centre = (left + (g as f64 + 0.5) * STEP, y);
                canvas.circle(centre, LARGEST_DOT * dot.share.sqrt(), sequential(scale.share(dot.mean)));
            }
        }
        let genes: Vec<String> = self.genes.iter().map(|(name, _)| name.clone()).collect();
        let centres: Vec<f64> = (0..genes.len()).map(|g| left + (g as f64 + 0.5) * STEP).collect();
        let names_height = canvas.column_names(&genes, &centres, top + extent.1, theme.ink);
        let x = left + extent.0 + 24.0;
        let bar = draw_colour_bar(&mut canvas, (x, top), &scale, sequential, theme);
        let keys_width = draw_sizes(&mut canvas, (x + bar + 28.0, top), theme);
        Ok(canvas.into_panel(x + bar + 28.0 + keys_width, top + (extent.1 + names_height).max(150.0)))
    }

    fn rows(&self) -> Result<Vec<Row<'_>>> {
        self.labels.check_len("the label column", self.expression.n_cells())?;
        if self.genes.is_empty() {
            return Err(AnalysisError::TooFew { step: "a dot plot", unit: "genes", needed: 1, found: 0 });
        }
        let n_genes = self.expression.n_genes();
        if let Some((_, column)) = self.genes.iter().find(|(_, column)| *column >= n_genes) {
            let (found, expected) = (n_genes, column + 1);
            return Err(AnalysisError::Length { what: "the expression matrix's gene axis", found, expected });
        }
        let rows = self.labels.carried().into_iter();
        Ok(rows.map(|(name, _, cells)| Row { name, dots: self.dots(&cells) }).collect())
    }

    fn dots(&self, cells: &[usize]) -> Vec<Dot> {
        let mut sums = vec![(0.0, 0usize); self.expression.n_genes()];
        for &cell in cells {
            let (genes, values) = self.expression.row(cell);
            for (&gene, &value) in genes.iter().zip(values) {
                sums[gene as usize].0 += f64::from(value);
                sums[gene as usize].1 += usize::from(value > 0.0);
            }
        }
        let n_cells = cells.len() as f64;
        let dot =
            |&(sum, n_expressing): &(f64, usize)| Dot { mean: sum / n_cells, share: n_expressing as f64 / n_cells };
        self.genes.iter().map(|&(_, column)| dot(&sums[column])).collect()
    }
}

struct Row<'a> {
    name: &'a str,
    dots: Vec<Dot>,
}

struct Dot {
    mean: f64,
    share: f64,
}

/// What the areas stand for.
fn draw_sizes(canvas: &mut Canvas, (x, y): (f64, f64), theme: &Theme) -> f64 {
    for (i, percent) in [25u32, 50, 75, 100].into_iter().enumerate() {
        let middle = y + 10.0 + i as f64 * 24.0;
        canvas.circle((x + LARGEST_DOT, middle), LARGEST_DOT * (f64::from(percent) / 100.0).sqrt(), theme.soft_ink);
        let style = Style::new(TICK_SIZE, theme.soft_ink);
        canvas.text(x + 2.0 * LARGEST_DOT + 8.0, middle + 4.0, &format!("{percent} %"), style);
    }
    2.0 * LARGEST_DOT + 48.0
}

const STEP: f64 = 26.0;
const LARGEST_DOT: f64 = 10.0;
const WIDEST_NAME: f64 = 180.0;
