//! Which contributions a task asks for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    condition::Section,
    error::{Error, Result},
    id::shorten,
};

/// What a task wants of a site. Columns and parts are the same function of the same cells whichever of them is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asks {
    /// Columns, and everything that the model contributes to parts.
    #[default]
    Both,
    /// Columns of new conditions, and no parts.
    Columns,
    /// Parts alone: of a reference whose conditions own nothing, or of conditions whose columns are to stay where they are.
    Parts,
}

impl Asks {
    /// Whether columns are asked for.
    pub fn for_columns(self) -> bool {
        self != Self::Parts
    }

    /// Whether parts are asked for.
    pub fn for_parts(self) -> bool {
        self != Self::Columns
    }

    /// Whether what stands under keys of a section is asked for.
    pub fn is_for(self, section: &Section) -> bool {
        match section {
            Section::Condition | Section::Axis(_) => self.for_columns(),
            Section::Part(_) => self.for_parts(),
        }
    }

    /// Whether nothing was said.
    pub(super) fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for Asks {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "both" => Ok(Self::Both),
            "columns" => Ok(Self::Columns),
            "parts" => Ok(Self::Parts),
            _ => Err(Error::InvalidValue {
                what: "what a task asks for",
                found: shorten(text),
                expected: "`both`, `columns` or `parts`",
            }),
        }
    }
}

impl fmt::Display for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "both",
            Self::Columns => "columns",
            Self::Parts => "parts",
        })
    }
}
