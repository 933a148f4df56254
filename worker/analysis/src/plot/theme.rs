//! Colours of everything that is not data.

use super::palette::Colour;

/// Background, ink and grid of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Behind everything.
    pub background: Colour,
    /// Titles and labels.
    pub ink: Colour,
    /// Subtitles, ticks and axis names.
    pub soft_ink: Colour,
    /// Grid lines and frames.
    pub grid: Colour,
    /// Cells and categories that serve as backdrop.
    pub muted: Colour,
}

impl Theme {
    /// Dark ink on white.
    pub const LIGHT: Self = Self {
        background: Colour(255, 255, 255),
        ink: Colour(31, 35, 40),
        soft_ink: Colour(101, 109, 118),
        grid: Colour(226, 229, 233),
        muted: Colour(205, 209, 214),
    };

    /// Light ink on near black.
    pub const DARK: Self = Self {
        background: Colour(22, 25, 30),
        ink: Colour(236, 239, 243),
        soft_ink: Colour(156, 164, 174),
        grid: Colour(51, 56, 64),
        muted: Colour(74, 80, 89),
    };
}
