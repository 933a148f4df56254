//! Which colour a category has, and colours for numbers.

use std::collections::BTreeMap;
use std::fmt;

use super::theme::Theme;
use crate::reading_order;

/// An sRGB colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(
    /// Red.
    pub u8,
    /// Green.
    pub u8,
    /// Blue.
    pub u8,
);

impl Colour {
    /// This colour with a share of another, 0 to 1.
    pub fn mixed(self, other: Self, share: f64) -> Self {
        let channel = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
        Self(channel(self.0, other.0), channel(self.1, other.1), channel(self.2, other.2))
    }

    /// Perceived lightness, 0 to 255 (luma of Rec. 601).
    pub(super) fn lightness(self) -> f64 {
        0.299 * f64::from(self.0) + 0.587 * f64::from(self.1) + 0.114 * f64::from(self.2)
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

/// Colours of named categories, told apart under the common colour-vision deficiencies.
///
/// Make one over all categories that will appear (cell types of reference and query, say) and hand it to every chart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Palette {
    colours: BTreeMap<String, Option<Colour>>,
}

impl Palette {
    /// Assigns colours to the distinct names in [`reading_order`]: the same names give the same colours.
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
        names.sort_by(|a, b| reading_order(a, b));
        names.dedup();
        Self { colours: names.into_iter().enumerate().map(|(rank, name)| (name, Some(nth(rank)))).collect() }
    }

    /// The same palette with one category drawn as a backdrop, in the theme's muted tone, behind the others.
    pub fn with_muted(mut self, name: &str) -> Self {
        self.colours.insert(name.to_owned(), None);
        self
    }

    /// The same palette with a chosen colour for one category.
    pub fn with(mut self, name: &str, colour: Colour) -> Self {
        self.colours.insert(name.to_owned(), Some(colour));
        self
    }

    /// Colour of a category; names the palette does not know are muted. Colours too dark for a dark background are
    /// lightened on it.
    pub fn colour(&self, name: &str, theme: &Theme) -> Colour {
        let Some(colour) = self.colours.get(name).copied().flatten() else { return theme.muted };
        let is_lost = theme.background.lightness() < 80.0 && colour.lightness() < 80.0;
        if is_lost { colour.mixed(theme.ink, 0.3) } else { colour }
    }

    /// Whether a category is a backdrop.
    pub fn is_muted(&self, name: &str) -> bool {
        self.colours.get(name).is_none_or(Option::is_none)
    }
}

/// Colour of a number between 0 and 1: dark violet over green to yellow, of evenly growing lightness.
pub(super) fn sequential(share: f64) -> Colour {
    let at = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let below = (at as usize).min(VIRIDIS.len() - 2);
    VIRIDIS[below].mixed(VIRIDIS[below + 1], at - below as f64)
}

/// Colour of a share between 0 and 1 on a theme's background: nothing to the first base colour.
pub(super) fn intensity(share: f64, theme: &Theme) -> Colour {
    theme.background.mixed(BASE[0], share.clamp(0.0, 1.0))
}

/// The base colours first, then darker and lighter forms of each; beyond these the hues repeat between their neighbours.
fn nth(rank: usize) -> Colour {
    let (base, tier) = (BASE[rank % BASE.len()], rank / BASE.len());
    match tier {
        0 => base,
        1 => base.mixed(Colour(20, 20, 40), 0.45),
        2 => base.mixed(Colour(255, 255, 255), 0.50),
        _ => base.mixed(BASE[(rank + tier) % BASE.len()], 0.5),
    }
}

/// After Okabe & Ito 2008, its yellow darkened to be seen on white and its black replaced.
const BASE: [Colour; 8] = [
    Colour(0, 114, 178),
    Colour(230, 159, 0),
    Colour(0, 158, 115),
    Colour(213, 94, 0),
    Colour(86, 180, 233),
    Colour(204, 121, 167),
    Colour(128, 92, 176),
    Colour(168, 160, 40),
];

/// Anchors of the viridis map of Smith & van der Walt, CC0.
const VIRIDIS: [Colour; 9] = [
    Colour(68, 1, 84),
    Colour(71, 44, 122),
    Colour(59, 81, 139),
    Colour(44, 113, 142),
    Colour(33, 144, 141),
    Colour(39, 173, 129),
    Colour(92, 200, 99),
    Colour(170, 220, 50),
    Colour(253, 231, 37),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_category_keeps_its_colour_whatever_the_order() {
        let (a, b) = (Palette::new(["T", "B", "NK"]), Palette::new(["NK", "T", "B", "T"]));
        assert_eq!(a, b);
        assert_ne!(a.colour("B", &Theme::LIGHT), a.colour("T", &Theme::LIGHT));
        let (few, many) = (Palette::new(["0", "1", "2"]), Palette::new((0..12).map(|cluster| cluster.to_string())));
        assert_eq!(few.colour("2", &Theme::LIGHT), many.colour("2", &Theme::LIGHT), "cluster 10 comes after cluster 2");
    }

    #[test]
    fn twenty_four_categories_have_distinct_colours() {
        let colours: std::collections::BTreeSet<String> = (0..24).map(|rank| nth(rank).to_string()).collect();
        assert_eq!(colours.len(), 24);
    }

    #[test]
    fn unknown_and_muted_categories_take_the_theme_s_tone() {
        let palette = Palette::new(["B", "reference"]).with_muted("reference");
        assert_eq!(palette.colour("reference", &Theme::DARK), Theme::DARK.muted);
        assert!(palette.is_muted("never seen") && !palette.is_muted("B"));
    }
}
