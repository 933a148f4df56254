//! Pictures: each chart draws a [`Panel`], a [`Figure`] sets panels side by side and gives SVG text or PNG bytes.
//!
//! SVG is the one drawing format; the PNG is the same drawing rendered with a bundled font, so it needs no display, no
//! system library and no installed font. Colours come from a [`Palette`] made once per kind of category and passed to
//! every chart, so a cell type looks the same in all of them.

mod axis;
mod bars;
mod canvas;
mod dots;
mod figure;
mod glyphs;
mod heatmap;
mod legend;
mod lines;
mod means;
mod palette;
mod ranks;
mod sankey;
mod scatter;
mod text;
mod theme;
mod tree;
mod violin;

pub use bars::{BarSeries, Bars};
pub use canvas::Panel;
pub(crate) use canvas::turns;
pub use dots::DotPlot;
pub use figure::Figure;
pub use heatmap::{Heatmap, ShareTable};
pub use lines::{LineSeries, Lines};
pub use means::Means;
pub use palette::{Colour, Palette};
pub use ranks::Ranks;
pub use sankey::{Sankey, SankeyGeometry, Vein};
pub use scatter::{Colouring, Scatter};
pub use theme::Theme;
pub use tree::TreePicture;
pub use violin::Violin;
