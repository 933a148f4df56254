//! The bundled font: Inter in two weights, and how wide a text is in it.

use std::sync::{Arc, LazyLock};

use resvg::usvg::fontdb::Database;
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};

/// Weight of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Regular,
    SemiBold,
}

impl Weight {
    pub(super) fn css(self) -> u16 {
        match self {
            Self::Regular => 400,
            Self::SemiBold => 600,
        }
    }

    fn file(self) -> &'static [u8] {
        match self {
            Self::Regular => include_bytes!("../../fonts/Inter-Regular.ttf"),
            Self::SemiBold => include_bytes!("../../fonts/Inter-SemiBold.ttf"),
        }
    }
}

/// Width of a text in pixels at a font size in pixels.
pub(super) fn width(text: &str, size: f64, weight: Weight) -> f64 {
    let font = FontRef::new(weight.file()).expect("the bundled font is well formed");
    let (glyphs, metrics) = (font.charmap(), font.glyph_metrics(Size::new(size as f32), LocationRef::default()));
    let advance = |letter: char| glyphs.map(letter).and_then(|glyph| metrics.advance_width(glyph));
    // A letter that the font lacks is drawn by another one, or as a box, about as wide as this.
    text.chars().map(|letter| advance(letter).map_or(size * BOX_SHARE, f64::from)).sum()
}

/// Width of a single letter.
pub(super) fn letter_width(letter: char, size: f64, weight: Weight) -> f64 {
    width(letter.encode_utf8(&mut [0; 4]), size, weight)
}

/// Whether the bundled font can draw a letter. Controls are left out of a picture, and need none.
pub(super) fn has_glyph(letter: char) -> bool {
    static FONT: LazyLock<FontRef<'static>> =
        LazyLock::new(|| FontRef::new(Weight::Regular.file()).expect("the bundled font is well formed"));
    letter.is_control() || FONT.charmap().map(letter).is_some_and(|glyph| glyph.to_u32() > 0)
}

/// Width of a box in place of a letter, as a share of the font size.
const BOX_SHARE: f64 = 1.0;

/// The text, cut with an ellipsis where it is wider than `most` pixels.
pub(super) fn fitted(text: &str, most: f64, size: f64, weight: Weight) -> String {
    if width(text, size, weight) <= most {
        return text.to_owned();
    }
    let letters: Vec<char> = text.chars().collect();
    let cut = |n: usize| letters[..n].iter().collect::<String>().trim_end().to_owned() + "…";
    (1..letters.len()).rev().map(cut).find(|cut| width(cut, size, weight) <= most).unwrap_or_else(|| "…".to_owned())
}

/// The fonts a picture is rendered with: the bundled ones only.
pub(super) fn fonts() -> Arc<Database> {
    static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
        let mut fonts = Database::new();
        for weight in [Weight::Regular, Weight::SemiBold] {
            fonts.load_font_data(weight.file().to_vec());
        }
        Arc::new(fonts)
    });
    FONTS.clone()
}

/// Name of the bundled family.
pub(super) const FAMILY: &str = "Inter";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_letters_and_heavy_weights_are_wider() {
        assert!(width("mmm", 12.0, Weight::Regular) > width("iii", 12.0, Weight::Regular));
        assert!(width("CD4 T", 12.0, Weight::SemiBold) > width("CD4 T", 12.0, Weight::Regular));
    }

    #[test]
    fn a_long_name_is_cut_to_the_width() {
        let cut = fitted("classical monocytes of the bone marrow", 90.0, 12.0, Weight::Regular);
        assert!(cut.ends_with('…') && width(&cut, 12.0, Weight::Regular) <= 90.0);
        assert_eq!(fitted("NK", 90.0, 12.0, Weight::Regular), "NK");
    }
}
