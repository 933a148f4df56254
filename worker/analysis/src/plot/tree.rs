//! A tree of cell types, one line per node.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_hierarchy::{Node, Tree};

use super::axis::grouped;
use super::canvas::{Canvas, HEADING_HEIGHT, LABEL_SIZE, Panel, Style};
use super::palette::Palette;
use super::text::{Weight, fitted, width};
use super::theme::Theme;

/// A tree drawn from left to right, children below their parent.
#[derive(Debug, Clone, Copy)]
pub struct TreePicture<'a> {
    /// What the picture shows.
    pub title: &'a str,
    /// A line under the title.
    pub subtitle: &'a str,
    /// The tree.
    pub tree: &'a Tree,
    /// Labels to be seen at once, such as those of the data set that joined last.
    pub new: &'a BTreeSet<&'a str>,
    /// Cells of each node by its name, where they were counted.
    pub cells: &'a BTreeMap<String, u64>,
    /// Colours of the nodes by their name.
    pub palette: &'a Palette,
}

impl TreePicture<'_> {
    /// Draws every node with all its names.
    pub fn panel(&self, theme: &Theme) -> Panel {
        let mut canvas = Canvas::default();
        canvas.heading(self.title, self.subtitle, theme);
        let mut drawing = Drawing { picture: self, canvas, theme, n_drawn: 0, widest: 0.0 };
        drawing.node(self.tree.root(), 0);
        let (widest, bottom) = (drawing.widest, drawing.y(drawing.n_drawn) - LINE_HEIGHT / 2.0);
        drawing.canvas.into_panel(widest, bottom)
    }
}

struct Drawing<'a> {
    picture: &'a TreePicture<'a>,
    canvas: Canvas,
    theme: &'a Theme,
    n_drawn: usize,
    widest: f64,
}

impl Drawing<'_> {
    /// Draws a node and all below it; where its dot is.
    fn node(&mut self, node: &Node, depth: usize) -> (f64, f64) {
        let at = (RADIUS + depth as f64 * INDENT, self.y(self.n_drawn));
        self.n_drawn += 1;
        let children: Vec<(f64, f64)> = node.children().iter().map(|child| self.node(child, depth + 1)).collect();
        for child in children {
            let elbow = [(at.0, at.1 + RADIUS), (at.0, child.1), (child.0 - RADIUS, child.1)];
            self.canvas.polyline(&elbow, self.theme.muted, 1.5);
        }
        let fill = if depth == 0 { self.theme.muted } else { self.picture.palette.colour(node.name(), self.theme) };
        self.canvas.circle(at, RADIUS, fill);
        self.caption(node, (at.0 + RADIUS + TEXT_GAP, at.1 + 4.0));
        at
    }

    fn caption(&mut self, node: &Node, (x, y): (f64, f64)) {
        let is_new = node.names().iter().any(|name| self.picture.new.contains(name.as_str()));
        let weight = if is_new { Weight::SemiBold } else { Weight::Regular };
        let names = fitted(&node.names().join(" & "), WIDEST_NAMES, LABEL_SIZE, weight);
        let style = Style::new(LABEL_SIZE, self.theme.ink);
        self.canvas.text(x, y, &names, if is_new { style.semi_bold() } else { style });
        let mut end = x + width(&names, LABEL_SIZE, weight);
        if let Some(&cells) = self.picture.cells.get(node.name()) {
            let count = grouped(cells as usize);
            self.canvas.text(end + TEXT_GAP, y, &count, Style::new(LABEL_SIZE, self.theme.soft_ink));
            end += TEXT_GAP + width(&count, LABEL_SIZE, Weight::Regular);
        }
        self.widest = self.widest.max(end);
    }

    fn y(&self, line: usize) -> f64 {
        HEADING_HEIGHT + (line as f64 + 0.5) * LINE_HEIGHT
    }
}

const LINE_HEIGHT: f64 = 24.0;
const INDENT: f64 = 26.0;
const RADIUS: f64 = 5.0;
const TEXT_GAP: f64 = 8.0;
const WIDEST_NAMES: f64 = 560.0;
