//! Panels set into a grid, as SVG text or PNG bytes.

use std::fmt::Write;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

use super::canvas::{Canvas, Escaped, Panel, Style};
use super::glyphs::LANGUAGE;
use super::text::{FAMILY, Weight, fonts, width as text_width};
use super::theme::Theme;
use crate::{AnalysisError, Result};

/// A finished picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    width: f64,
    height: f64,
    svg: String,
}

impl Figure {
    /// Panels in rows of `n_columns`, under a common title where there is one. Columns are as wide and rows as high as
    /// their largest panel.
    pub fn grid(title: Option<&str>, panels: &[Panel], n_columns: usize, theme: &Theme) -> Self {
        let n_columns = n_columns.clamp(1, panels.len().max(1));
        let rows: Vec<&[Panel]> = panels.chunks(n_columns).collect();
        let column_widths: Vec<f64> = (0..n_columns)
            .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|panel| panel.width).fold(0.0, f64::max))
            .collect();
        let mut body = Canvas::default();
        let mut y = MARGIN;
        if let Some(title) = title {
            body.text(MARGIN, y + 16.0, title, Style::new(FIGURE_TITLE_SIZE, theme.ink).semi_bold());
            y += FIGURE_TITLE_HEIGHT;
        }
        let mut shapes = body.into_panel(0.0, 0.0).shapes;
        for row in rows {
            let mut x = MARGIN;
            for (panel, width) in row.iter().zip(&column_widths) {
                writeln!(shapes, "<g transform=\"translate({x:.1} {y:.1})\">\n{}</g>", panel.shapes)
                    .expect("writing to a string does not fail");
                x += width + GAP;
            }
            y += row.iter().map(|panel| panel.height).fold(0.0, f64::max) + GAP;
        }
        let title_width = title.map_or(0.0, |title| text_width(title, FIGURE_TITLE_SIZE, Weight::SemiBold));
        let panels_width = column_widths.iter().sum::<f64>() + GAP * (n_columns - 1) as f64;
        let width = (panels_width.max(title_width) + 2.0 * MARGIN).ceil();
        let height = (y - GAP + MARGIN).max(2.0 * MARGIN).ceil();
        Self { width, height, svg: document(width, height, title, &shapes, theme) }
    }

    /// The picture as SVG text. Its letters are text in the bundled family, then the usual sans-serif ones.
    pub fn svg(&self) -> &str {
        &self.svg
    }

    /// Whether names have letters that the bundled font lacks: boxes with their code points in pixels, text in SVG.
    pub fn has_boxes(&self) -> bool {
        self.svg.contains(LANGUAGE)
    }

    /// The picture as PNG bytes, `scale` pixels to a unit of the drawing: 2 is sharp on screens and in print.
    ///
    /// # Errors   [`AnalysisError::Option`] for a scale that gives no pixels or too many, [`AnalysisError::Render`]
    pub fn png(&self, scale: f64) -> Result<Vec<u8>> {
        let side = |length: f64| (length * scale).ceil();
        if !(1.0..=LARGEST_SIDE).contains(&side(self.width)) || !(1.0..=LARGEST_SIDE).contains(&side(self.height)) {
            let found = scale.to_string();
            return Err(AnalysisError::Option { option: "scale", expected: "a factor that gives an image", found });
        }
        let render = |reason: String| AnalysisError::Render { reason };
        let (font_family, languages) = (FAMILY.to_owned(), vec![LANGUAGE.to_owned()]);
        let options = Options { fontdb: fonts(), font_family, languages, ..Options::default() };
        let tree = Tree::from_str(&self.svg, &options).map_err(|error| render(error.to_string()))?;
        let mut pixels = Pixmap::new(side(self.width) as u32, side(self.height) as u32)
            .ok_or_else(|| render("the image has no area".into()))?;
        resvg::render(&tree, Transform::from_scale(scale as f32, scale as f32), &mut pixels.as_mut());
        pixels.encode_png().map_err(|error| render(error.to_string()))
    }
}

fn document(width: f64, height: f64, title: Option<&str>, shapes: &str, theme: &Theme) -> String {
    let size = format!(r#"width="{width}" height="{height}" viewBox="0 0 {width} {height}""#);
    let fonts = format!(r#"font-family="{FAMILY}, 'Helvetica Neue', Arial, sans-serif""#);
    let name = title.map(|title| format!("<title>{}</title>\n", Escaped(title))).unwrap_or_default();
    let ground = format!(r#"<rect width="100%" height="100%" fill="{}"/>"#, theme.background);
    format!("<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" {size} {fonts}>\n{name}{ground}\n{shapes}</svg>\n")
}

const MARGIN: f64 = 24.0;
const GAP: f64 = 36.0;
const FIGURE_TITLE_SIZE: f64 = 19.0;
const FIGURE_TITLE_HEIGHT: f64 = 40.0;
/// Pixels; a picture beyond would take gigabytes.
const LARGEST_SIDE: f64 = 16_384.0;
