//! What two peers say to each other about their connection, on a stream of its own that the listener opens.

use archipelago_common::text::printable;

use crate::{End, REASON_CHARS};

/// One frame on the control stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Say {
    /// Are you there? Whoever asks gives up after so many milliseconds of silence, and so does whoever hears it: as over QUIC, the
    /// shorter patience counts for both.
    Alive {
        /// Milliseconds.
        patience_ms: u32,
    },
    /// The answer to that.
    Here,
    /// The dialler's certificate is good: it is let in.
    Welcome,
    /// This side holds a stream no more: nothing that is sent on it is read, and another may be opened in its place.
    Gone(u32),
    /// This side ends the connection.
    Ends(End),
}

impl Say {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Alive { patience_ms } => [&[0][..], &patience_ms.to_be_bytes()].concat(),
            Self::Here => vec![5],
            Self::Welcome => vec![1],
            Self::Gone(stream) => [&[2][..], &stream.to_be_bytes()].concat(),
            Self::Ends(End::Closed { reason }) => [&[3], reason.as_bytes()].concat(),
            Self::Ends(End::Refused { reason }) => [&[4], reason.as_bytes()].concat(),
        }
    }

    /// `None` for what a later version may say: it is passed over.
    pub(super) fn decode(frame: &[u8]) -> Option<Self> {
        let (kind, rest) = frame.split_first()?;
        let reason = || printable(&String::from_utf8_lossy(rest), REASON_CHARS);
        Some(match kind {
            0 => Self::Alive { patience_ms: number(rest)? },
            5 => Self::Here,
            1 => Self::Welcome,
            2 => Self::Gone(number(rest)?),
            3 => Self::Ends(End::Closed { reason: reason() }),
            4 => Self::Ends(End::Refused { reason: reason() }),
            _ => return None,
        })
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Bytes of the largest frame: a reason of so many characters.
pub(super) const FRAME_BYTES: usize = 1 + 4 * REASON_CHARS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_and_what_is_not_understood_is_passed_over() {
        let reason = "é".repeat(REASON_CHARS);
        for say in [
            Say::Alive { patience_ms: 2_000 },
            Say::Here,
            Say::Welcome,
            Say::Gone(0x0102_0304),
            Say::Ends(End::Closed { reason: reason.clone() }),
            Say::Ends(End::Refused { reason }),
        ] {
            let frame = say.encode();
            assert!(frame.len() <= FRAME_BYTES);
            assert_eq!(Say::decode(&frame), Some(say));
        }
        for strange in [&[][..], &[2, 0], &[9, 1]] {
            assert_eq!(Say::decode(strange), None, "{strange:?}");
        }
    }
}
