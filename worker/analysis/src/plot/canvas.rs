//! Shapes written as SVG, in pixels from the upper left corner.

use std::fmt::{self, Write};

use super::glyphs::{boxed, lacks_glyphs};
use super::palette::Colour;
use super::text::{Weight, width};
use super::theme::Theme;

/// A finished chart of a known size, ready to be set into a figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) shapes: String,
}

/// Which part of a text stands at its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) size: f64,
    pub(super) weight: Weight,
    pub(super) colour: Colour,
    pub(super) anchor: Anchor,
}

impl Style {
    pub(super) fn new(size: f64, colour: Colour) -> Self {
        Self { size, weight: Weight::Regular, colour, anchor: Anchor::Start }
    }

    pub(super) fn semi_bold(self) -> Self {
        Self { weight: Weight::SemiBold, ..self }
    }

    pub(super) fn middle(self) -> Self {
        Self { anchor: Anchor::Middle, ..self }
    }

    pub(super) fn end(self) -> Self {
        Self { anchor: Anchor::End, ..self }
    }
}

/// A drawing under construction.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    shapes: String,
    heading_width: f64,
}

impl Canvas {
    /// Title and subtitle of a panel, at its upper left corner.
    pub(super) fn heading(&mut self, title: &str, subtitle: &str, theme: &Theme) {
        let title_width = width(title, TITLE_SIZE, Weight::SemiBold);
        self.heading_width = title_width.max(width(subtitle, LABEL_SIZE, Weight::Regular));
        self.text(0.0, 16.0, title, Style::new(TITLE_SIZE, theme.ink).semi_bold());
        self.text(0.0, 35.0, subtitle, Style::new(LABEL_SIZE, theme.soft_ink));
    }

    /// A text with its baseline at `y`.
    pub(super) fn text(&mut self, x: f64, y: f64, text: &str, style: Style) {
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (size, weight, colour) = (style.size, style.weight.css(), style.colour);
        let head = format_args!(r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" font-weight="{weight}""#).to_string();
        let drawn = format!(r#"{head} text-anchor="{anchor}" fill="{colour}">{}</text>"#, Escaped(text));
        match lacks_glyphs(text) {
            true => self.write(format_args!("<switch>{}{drawn}</switch>", boxed(x, y, text, style))),
            false => self.write(format_args!("{drawn}")),
        }
    }

    /// A text turned around its position, by degrees against the clock: 90 reads upwards.
    pub(super) fn text_turned(&mut self, (x, y): (f64, f64), degrees: f64, text: &str, style: Style) {
        self.write(format_args!(r#"<g transform="translate({x:.1} {y:.1}) rotate({:.0})">"#, -degrees));
        self.text(0.0, 0.0, text, style);
        self.shapes.push_str("</g>\n");
    }

    /// Names under columns at `centres`, turned so that long ones do not meet; returns the height they take.
    pub(super) fn column_names(&mut self, names: &[String], centres: &[f64], y: f64, colour: Colour) -> f64 {
        let widest = names.iter().map(|name| width(name, LABEL_SIZE, Weight::Regular)).fold(0.0, f64::max);
        let step = centres.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        let style = Style::new(LABEL_SIZE, colour);
        if widest + 8.0 <= step {
            names.iter().zip(centres).for_each(|(name, &x)| self.text(x, y + 16.0, name, style.middle()));
            return 22.0;
        }
        for (name, &x) in names.iter().zip(centres) {
            self.text_turned((x + 4.0, y + 12.0), 45.0, name, style.end());
        }
        14.0 + widest * std::f64::consts::FRAC_1_SQRT_2
    }

    pub(super) fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: Colour) {
        let corner = format_args!(r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}""#).to_string();
        self.write(format_args!(r#"{corner} height="{height:.1}" fill="{fill}"/>"#));
    }

    /// A bar whose far end (the right one) is rounded.
    pub(super) fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, fill: Colour) {
        let r = (height / 3.0).min(3.0).min(width);
        let (straight, sides) = (width - r, height - 2.0 * r);
        self.write(format_args!(
            r#"<path d="M{x:.1} {y:.1}h{straight:.1}q{r:.1} 0 {r:.1} {r:.1}v{sides:.1}q0 {r:.1} -{r:.1} {r:.1}h-{straight:.1}z" fill="{fill}"/>"#
        ));
    }

    pub(super) fn frame(&mut self, x: f64, y: f64, width: f64, height: f64, stroke: Colour) {
        let corner = format_args!(r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}""#).to_string();
        self.write(format_args!(r#"{corner} height="{height:.1}" rx="6" fill="none" stroke="{stroke}"/>"#));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Colour, width: f64) {
        self.polyline(&[from, to], stroke, width);
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], stroke: Colour, width: f64) {
        let style = r#"fill="none" stroke-linejoin="round" stroke-linecap="round""#;
        self.write(format_args!(r#"<path {style} stroke="{stroke}" stroke-width="{width:.2}" d="{}"/>"#, Run(points)));
    }

    pub(super) fn polygon(&mut self, points: &[(f64, f64)], fill: Colour, opacity: f64) {
        self.write(format_args!(r#"<path fill="{fill}" fill-opacity="{opacity:.2}" d="{}z"/>"#, Run(points)));
    }

    pub(super) fn circle(&mut self, centre: (f64, f64), radius: f64, fill: Colour) {
        let (x, y) = centre;
        self.write(format_args!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius:.1}" fill="{fill}"/>"#));
    }

    pub(super) fn ring(&mut self, centre: (f64, f64), radius: f64, fill: Colour, stroke: Colour) {
        let (x, y) = centre;
        let circle = format_args!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius:.1}""#).to_string();
        self.write(format_args!(r#"{circle} fill="{fill}" fill-opacity="0.9" stroke="{stroke}" stroke-width="1.5"/>"#));
    }

    /// Many equal dots as one path of round-capped points: a tenth of the size of as many circles.
    pub(super) fn dots(&mut self, centres: &[(f64, f64)], radius: f64, fill: Colour) {
        if centres.is_empty() {
            return;
        }
        let head = format!(r#"<path fill="none" stroke="{fill}" stroke-width="{:.2}""#, 2.0 * radius);
        self.write(format_args!(r#"{head} stroke-linecap="round" d="{}"/>"#, Dots(centres)));
    }

    /// A panel at least as wide as its heading.
    pub(super) fn into_panel(self, width: f64, height: f64) -> Panel {
        Panel { width: width.max(self.heading_width), height, shapes: self.shapes }
    }

    fn write(&mut self, shape: fmt::Arguments<'_>) {
        writeln!(self.shapes, "{shape}").expect("writing to a string does not fail");
    }
}

/// Text with the characters that mean something in XML replaced, those that XML forbids left out, and those that turn the
/// direction of a line written out.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                forbidden if forbidden.is_control() || matches!(forbidden, '\u{fffe}' | '\u{ffff}') => {}
                turning if turns(turning) => write!(f, "U+{:04X}", u32::from(turning))?,
                plain => f.write_char(plain)?,
            }
        }
        Ok(())
    }
}

/// Whether a character turns the direction of the letters around it.
pub(crate) fn turns(letter: char) -> bool {
    matches!(letter, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

struct Run<'a>(&'a [(f64, f64)]);

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (x, y)) in self.0.iter().enumerate() {
            write!(f, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' })?;
        }
        Ok(())
    }
}

struct Dots<'a>(&'a [(f64, f64)]);

impl fmt::Display for Dots<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(x, y)| write!(f, "M{x:.1} {y:.1}h0"))
    }
}

/// Height that [`Canvas::heading`] takes.
pub(super) const HEADING_HEIGHT: f64 = 48.0;
pub(super) const TITLE_SIZE: f64 = 15.0;
pub(super) const LABEL_SIZE: f64 = 12.0;
pub(super) const TICK_SIZE: f64 = 11.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_the_drawing() {
        assert_eq!(Escaped("<T & \"B\">\u{0}").to_string(), "&lt;T &amp; &quot;B&quot;&gt;");
        assert_eq!(Escaped("a\u{202e}b").to_string(), "aU+202Eb");
    }
}
