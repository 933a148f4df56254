//! Where labels go: a diagram of veins from one column of labels to another.

use std::collections::BTreeMap;

use super::axis::grouped;
use super::canvas::{Canvas, HEADING_HEIGHT, LABEL_SIZE, Panel, Style};
use super::legend::spread;
use super::palette::Palette;
use super::text::{Weight, fitted, width};
use super::theme::Theme;
use crate::{AnalysisError, Labels, Result};

/// Cells flowing from their label on the left to their label on the right.
#[derive(Debug, Clone, Copy)]
pub struct Sankey<'a> {
    /// What the picture shows.
    pub title: &'a str,
    /// What both sides are: `observed → transferred`.
    pub subtitle: &'a str,
    /// Label of each cell on the left.
    pub left: &'a Labels,
    /// Label of each cell on the right.
    pub right: &'a Labels,
    /// Colours of the labels of both sides; a vein has that of its left label.
    pub palette: &'a Palette,
}

/// Veins and their places: `x` from 0 to 1, `y` in cells with gaps between labels.
#[derive(Debug, Clone, PartialEq)]
pub struct SankeyGeometry {
    /// Labels on the left, fewest cells first, with their cells.
    pub left: Vec<(String, u64)>,
    /// Labels on the right, likewise.
    pub right: Vec<(String, u64)>,
    /// Gap between two labels of a side.
    pub v_gap: f64,
    /// Height of each side, gaps included; the lower side is centred.
    pub heights: [f64; 2],
    /// Veins in order of the left labels, then the right ones.
    pub veins: Vec<Vein>,
}

/// The cells of one left and one right label.
#[derive(Debug, Clone, PartialEq)]
pub struct Vein {
    /// Label on the left.
    pub from: String,
    /// Label on the right.
    pub to: String,
    /// Cells with both.
    pub count: u64,
    /// Outline: one edge forward, then the other back.
    pub outline: Vec<(f64, f64)>,
    /// Corners of its part of the label's box on the left.
    pub left_box: [(f64, f64); 4],
    /// Corners of its part of the label's box on the right.
    pub right_box: [(f64, f64); 4],
}

impl SankeyGeometry {
    /// Lays out the pairs of labels, each edge of a vein drawn through `resolution` points.
    ///
    /// # Errors   sides of different numbers of cells, no cells, fewer than two points
    /// # Source   `sankey_diagram` of scArches 0.6.1; equal totals go by name, and a name on both sides is two labels
    pub fn new(left: &Labels, right: &Labels, resolution: usize) -> Result<Self> {
        right.check_len("the right column", left.len())?;
        if left.is_empty() {
            return Err(AnalysisError::TooFew { step: "a flow diagram", unit: "cells", needed: 1, found: 0 });
        }
        if resolution < 2 {
            let found = resolution.to_string();
            return Err(AnalysisError::Option { option: "resolution", expected: "at least 2", found });
        }
        let mut pairs = BTreeMap::<(&str, &str), u64>::new();
        for pair in left.iter().zip(right.iter()) {
            *pairs.entry(pair).or_default() += 1;
        }
        let v_gap = GAP_SHARE * left.len() as f64;
        let sides = [by_total(left), by_total(right)];
        let heights = sides.each_ref().map(|side| left.len() as f64 + (side.len() - 1) as f64 * v_gap);
        let highest = heights[0].max(heights[1]);
        let mut next = [0, 1].map(|side: usize| starts(&sides[side], (highest - heights[side]) / 2.0, v_gap));
        let mut veins = Vec::with_capacity(pairs.len());
        for (from, _) in &sides[0] {
            for (to, _) in &sides[1] {
                let Some(&count) = pairs.get(&(from.as_str(), to.as_str())) else { continue };
                let ends = [next[0][from], next[1][to]];
                veins.push(Vein {
                    from: from.clone(),
                    to: to.clone(),
                    count,
                    outline: outline(ends, count as f64, resolution),
                    left_box: corners(0.0, -1.0, ends[0], count as f64),
                    right_box: corners(1.0, 1.0, ends[1], count as f64),
                });
                for (side, name) in [from, to].into_iter().enumerate() {
                    next[side].entry(name.clone()).and_modify(|start| *start += count as f64);
                }
            }
        }
        let [left, right] = sides;
        Ok(Self { left, right, v_gap, heights, veins })
    }

    /// Middle of each label of a side, 0 left and 1 right, from top to bottom.
    fn middles(&self, side: usize) -> Vec<f64> {
        let labels = [&self.left, &self.right][side];
        let mut at = (self.heights[0].max(self.heights[1]) - self.heights[side]) / 2.0;
        let middle = |&(_, count): &(String, u64)| {
            let middle = at + count as f64 / 2.0;
            at += count as f64 + self.v_gap;
            middle
        };
        labels.iter().map(middle).collect()
    }
}

impl SankeyGeometry {
    /// Pixels that keep names beside their boxes, also of the smallest neighbouring labels, as far as a picture may grow.
    fn readable_height(&self) -> f64 {
        let n_labels = self.left.len().max(self.right.len()) as f64;
        let middles = [self.middles(0), self.middles(1)];
        let steps = middles.iter().flat_map(|side| side.windows(2).map(|pair| pair[1] - pair[0]));
        let closest = steps.fold(f64::INFINITY, f64::min);
        let wanted = NAME_HEIGHT * self.heights[0].max(self.heights[1]) / closest;
        wanted.min(HIGHEST).max(n_labels * NAME_HEIGHT * 1.4).max(LEAST_HEIGHT)
    }
}

impl Sankey<'_> {
    /// Draws the veins with the names and sizes of the labels beside them.
    ///
    /// # Errors   as [`SankeyGeometry::new`]
    pub fn panel(&self, theme: &Theme) -> Result<Panel> {
        let geometry = SankeyGeometry::new(self.left, self.right, RESOLUTION)?;
        let height = geometry.readable_height();
        let captions = [&geometry.left, &geometry.right].map(|side| side.iter().map(caption).collect::<Vec<_>>());
        let widest = captions
            .each_ref()
            .map(|side| side.iter().map(|caption| width(caption, LABEL_SIZE, Weight::Regular)).fold(0.0, f64::max));
        let (left, top) = (widest[0] + BOX_GAP, HEADING_HEIGHT + 6.0);
        let scale = height / geometry.heights[0].max(geometry.heights[1]);
        let place = |&(x, y): &(f64, f64)| (left + x * PLOT_WIDTH, top + y * scale);

        let mut canvas = Canvas::default();
        canvas.heading(self.title, self.subtitle, theme);
        for vein in &geometry.veins {
            let [from, to] = [&vein.from, &vein.to].map(|name| self.palette.colour(name, theme));
            let drawn = |points: &[(f64, f64)]| points.iter().map(place).collect::<Vec<_>>();
            canvas.polygon(&drawn(&vein.outline), from, 0.45);
            canvas.polygon(&drawn(&vein.left_box), from, 1.0);
            canvas.polygon(&drawn(&vein.right_box), to, 1.0);
        }
        let style = Style::new(LABEL_SIZE, theme.ink);
        for (side, captions) in captions.iter().enumerate() {
            let middles: Vec<f64> = geometry.middles(side).iter().map(|middle| top + middle * scale).collect();
            for (caption, y) in captions.iter().zip(spread(&middles, NAME_HEIGHT, top, top + height)) {
                match side {
                    0 => canvas.text(left - BOX_GAP, y + 4.0, caption, style.end()),
                    _ => canvas.text(left + PLOT_WIDTH + BOX_GAP, y + 4.0, caption, style),
                }
            }
        }
        Ok(canvas.into_panel(left + PLOT_WIDTH + BOX_GAP + widest[1], top + height + 6.0))
    }
}

fn caption((name, count): &(String, u64)) -> String {
    format!("{} · {}", fitted(name, WIDEST_NAME, LABEL_SIZE, Weight::Regular), grouped(*count as usize))
}

fn by_total(side: &Labels) -> Vec<(String, u64)> {
    let counted = side.names().iter().cloned().zip(side.counts().into_iter().map(|count| count as u64));
    let mut items: Vec<(String, u64)> = counted.filter(|&(_, count)| count > 0).collect();
    items.sort_by_key(|&(_, count)| count);
    items
}

/// Where the first vein of each label begins.
fn starts(items: &[(String, u64)], mut at: f64, v_gap: f64) -> BTreeMap<String, f64> {
    let mut starts = BTreeMap::new();
    for (name, count) in items {
        starts.insert(name.clone(), at);
        at += *count as f64 + v_gap;
    }
    starts
}

fn outline([left, right]: [f64; 2], thickness: f64, resolution: usize) -> Vec<(f64, f64)> {
    let edge = (0..resolution).map(|i| {
        let x = i as f64 / (resolution - 1) as f64;
        (x, left + (right - left) * rise(x))
    });
    edge.clone().chain(edge.rev().map(|(x, y)| (x, y + thickness))).collect()
}

/// The polynomial of degree four through five points that rise slowly, steeply and slowly again (Lagrange's form).
fn rise(x: f64) -> f64 {
    const AT: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
    const HEIGHT: [f64; 5] = [0.0, 0.15, 0.5, 0.85, 1.0];
    let basis = |i: usize| (0..5).filter(|&j| j != i).map(|j| (x - AT[j]) / (AT[i] - AT[j])).product::<f64>();
    (0..5).map(|i| HEIGHT[i] * basis(i)).sum()
}

fn corners(x: f64, sign: f64, y: f64, thickness: f64) -> [(f64, f64); 4] {
    let [near, far] = [0.25, 0.75].map(|gaps| x + sign * gaps * GAP_SHARE);
    [(near, y + thickness), (near, y), (far, y), (far, y + thickness)]
}

/// Gaps, as a share of all cells between labels and of the width beside the veins.
const GAP_SHARE: f64 = 0.03;
const RESOLUTION: usize = 40;
const PLOT_WIDTH: f64 = 360.0;
const LEAST_HEIGHT: f64 = 300.0;
const HIGHEST: f64 = 640.0;
const NAME_HEIGHT: f64 = 17.0;
const BOX_GAP: f64 = 16.0;
const WIDEST_NAME: f64 = 160.0;
