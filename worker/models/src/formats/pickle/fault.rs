//! Why a pickle was refused.

/// What is wrong with a pickle, and where. Offsets count bytes from its start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes end before the value does.
    #[error("the pickle ends at byte {offset}, before its value is complete")]
    Truncated {
        /// Where more bytes were needed.
        offset: usize,
    },
    /// An opcode that saved models do not need, or that does not exist.
    #[error("opcode {opcode} at byte {offset} is refused")]
    Opcode {
        /// Its name in Python's `pickletools`, or its number.
        opcode: String,
        /// Where it stands.
        offset: usize,
    },
    /// A class or function that saved models do not need.
    #[error("`{class}`, named at byte {offset}, is refused: saved models have no use for it")]
    Class {
        /// Module and name.
        class: String,
        /// Where it is named.
        offset: usize,
    },
    /// The opcodes contradict each other.
    #[error("at byte {offset}: {detail}")]
    Malformed {
        /// Where the contradiction shows.
        offset: usize,
        /// What was found and what was expected.
        detail: String,
    },
    /// The value does not fit into the bounds of this reader.
    #[error("the pickle has more than {limit} {unit}")]
    TooLarge {
        /// The bound.
        limit: usize,
        /// `bytes`, `objects`…
        unit: &'static str,
    },
}
