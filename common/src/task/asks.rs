//! Which contributions a task asks for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    condition::Section,
    error::{Error, Result},
    id::shorten,
    tree,
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
    /// How many cells the tree of the task's version puts at which node, and nothing else; each site has the predictions for its own
    /// cells.
    Annotations,
}

impl Asks {
    /// Whether columns are asked for.
    pub fn for_columns(self) -> bool {
        matches!(self, Self::Both | Self::Columns)
    }

    /// Whether what stands under keys of a section is asked for.
    pub fn is_for(self, section: &Section) -> bool {
        match section {
            Section::Condition | Section::Axis(_) => self.for_columns(),
            Section::Part(name) => match self {
                Self::Both | Self::Parts => true,
                Self::Columns => false,
                Self::Annotations => name.as_str() == tree::ANNOTATIONS,
            },
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
            "annotations" => Ok(Self::Annotations),
            _ => Err(Error::InvalidValue {
                what: "what a task asks for",
                found: shorten(text),
                expected: "`both`, `columns`, `parts` or `annotations`",
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
            Self::Annotations => "annotations",
        })
    }
}
