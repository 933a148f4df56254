//! The zoo: every model there is. To add one, write its folder and add one line to [`ZOO`].
//!
//! What of a model grows with a new condition, what surgery trains and what stays is the [`crate::nn::Role`] under which
//! its module asks for each tensor; surgery itself knows no model.

pub mod expimap;
pub mod family;
pub mod multigrate;
pub mod mvtcr;
pub mod sagenet;
pub mod scanvi;
pub mod scgen;
pub mod scpoli;
pub mod scvi;
pub mod totalvi;
pub mod trvae;
#[cfg(test)]
mod two_axes;

/// The model of cells in space, for commands that are about nothing else.
pub use sagenet as space;

use crate::{
    error::{Error, Result},
    model::Model,
};

/// Every model, the one list.
pub static ZOO: &[&dyn Model] = &[
    &scvi::Scvi,
    &scanvi::Scanvi,
    &totalvi::Totalvi,
    &trvae::Trvae,
    &scgen::Scgen,
    &expimap::Expimap,
    &scpoli::Scpoli,
    &sagenet::Sagenet,
    &multigrate::Multigrate,
    &mvtcr::Mvtcr,
    #[cfg(test)]
    &two_axes::TwoAxes,
];

/// The model of this name.
///
/// # Errors  [`Error::UnknownModel`] with the names there are
pub fn model(name: &str) -> Result<&'static dyn Model> {
    ZOO.iter().copied().find(|model| model.card().name == name).ok_or_else(|| Error::UnknownModel {
        name: name.to_owned(),
        available: ZOO.iter().map(|model| format!("`{}`", model.card().name)).collect::<Vec<_>>().join(", "),
    })
}
