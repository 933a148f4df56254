//! Letters that the bundled font lacks: in a picture of pixels each is a box with its code point, so that names stay apart.
//!
//! An SVG keeps such names as text, for which a reader's machine may have a font. Both stand in one `<switch>`: our own rendering
//! asks for a language of its own and gets the boxes; every other takes the text.

use std::fmt::Write as _;

use super::canvas::{Anchor, Escaped, Style};
use super::text::{has_glyph, letter_width, width};

/// The language that our own rendering asks for.
pub(super) const LANGUAGE: &str = "x-archipelago-pixels";

/// Whether a text has letters that are drawn as boxes.
pub(super) fn lacks_glyphs(text: &str) -> bool {
    text.chars().any(|letter| !has_glyph(letter))
}

/// The drawing of a text with boxes in it, its baseline at `y`.
pub(super) fn boxed(x: f64, y: f64, text: &str, style: Style) -> String {
    let whole = width(text, style.size, style.weight);
    let mut x = match style.anchor {
        Anchor::Start => x,
        Anchor::Middle => x - whole / 2.0,
        Anchor::End => x - whole,
    };
    let mut shapes = format!("<g systemLanguage=\"{LANGUAGE}\">");
    let mut run = String::new();
    let put_run = |shapes: &mut String, run: &mut String, x: &mut f64| {
        if !run.is_empty() {
            shapes.push_str(&letters(*x, y, run, style.size, style));
            *x += width(run, style.size, style.weight);
            run.clear();
        }
    };
    for letter in text.chars() {
        if has_glyph(letter) {
            run.push(letter);
            continue;
        }
        put_run(&mut shapes, &mut run, &mut x);
        shapes.push_str(&code_box(x, y, letter, style));
        x += letter_width(letter, style.size, style.weight);
    }
    put_run(&mut shapes, &mut run, &mut x);
    shapes + "</g>"
}

/// A box as high as a capital with the code point in two lines of digits.
fn code_box(x: f64, y: f64, letter: char, style: Style) -> String {
    let code = match u32::from(letter) {
        code @ ..=0xffff => format!("{code:04X}"),
        code => format!("{code:06X}"),
    };
    let (upper, lower) = code.split_at(code.len() / 2);
    let (side, small) = (letter_width(letter, style.size, style.weight), style.size * DIGIT_SHARE);
    let (left, top, wide, high) = (x + 0.5, y - 0.82 * style.size, side - 1.0, style.size);
    let mut shapes = String::new();
    write!(
        shapes,
        r#"<rect x="{left:.1}" y="{top:.1}" width="{wide:.1}" height="{high:.1}" fill="none" stroke="{}" stroke-width="0.5"/>"#,
        style.colour
    )
    .expect("text takes text");
    for (line, digits) in [(0.42, upper), (0.88, lower)] {
        let at = x + (side - width(digits, small, style.weight)) / 2.0;
        shapes.push_str(&letters(at, top + line * high, digits, small, style));
    }
    shapes
}

fn letters(x: f64, y: f64, text: &str, size: f64, style: Style) -> String {
    let (weight, colour) = (style.weight.css(), style.colour);
    let head = format!(r#"<text x="{x:.1}" y="{y:.1}" font-size="{size:.1}" font-weight="{weight}""#);
    format!(r#"{head} xml:space="preserve" fill="{colour}">{}</text>"#, Escaped(text))
}

/// Size of the digits in a box as a share of the letters around it.
const DIGIT_SHARE: f64 = 0.45;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::palette::Colour;

    #[test]
    fn a_box_tells_the_code_point_and_the_letters_around_it_stay() {
        let drawn = boxed(0.0, 10.0, "T细🧬", Style::new(12.0, Colour(0, 0, 0)));
        for part in [">T<", ">7E<", ">C6<", ">01F<", ">9EC<"] {
            assert!(drawn.contains(part), "no {part} in {drawn}");
        }
        assert!(lacks_glyphs("T细") && !lacks_glyphs("CD4⁺ naïve β"));
    }
}
