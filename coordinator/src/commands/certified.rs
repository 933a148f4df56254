//! Whose certificate ends when, for people.

use archipelago_common::{
    Principal,
    enrolment::CertifiedKey,
    limits,
    standing::{Revocation, Standing},
    text::printable,
};

use super::utc;

/// When a certificate ends, and what to do where that is soon.
pub(super) fn end_of(who: &Principal, expires_ms: u64, now_ms: u64) -> String {
    let days = expires_ms.saturating_sub(now_ms) / DAY_MS;
    match expires_ms.saturating_sub(now_ms) {
        0 => format!("ENDED {}: {}", utc(expires_ms), advice(who)),
        1..limits::CERTIFICATE_WARNING_MS => format!("ENDS {}, in {days} days: {}", utc(expires_ms), advice(who)),
        _ => format!("ends {}, in {days} days", utc(expires_ms)),
    }
}

fn advice(who: &Principal) -> String {
    match who {
        Principal::Site(site) => format!(
            "its worker asks for another by itself, see `requests`; where it no longer runs, `invite {site}` and its `join` give one"
        ),
        _ => format!("`ca issue {who}` makes another"),
    }
}

/// Somebody's standing, on one line and one more for each key that is shut out.
pub(super) fn line(standing: &Standing, now_ms: u64) -> String {
    let Standing { who, certified, revoked, revoked_keys } = standing;
    let mut text = match (revoked, certified) {
        (Some(revocation), _) => format!("{who}  revoked {}{}", utc(revocation.at_ms), in_words(revocation)),
        (None, Some(CertifiedKey { key, expires_ms })) => {
            format!("{who}  key {key}, its certificate {}", end_of(who, *expires_ms, now_ms))
        }
        (None, None) => format!("{who}  has not come yet"),
    };
    for (key, revocation) in revoked_keys {
        text += &format!("\n    key {key} revoked {}{}", utc(revocation.at_ms), in_words(revocation));
    }
    text
}

fn in_words(Revocation { by, reason, .. }: &Revocation) -> String {
    let by = by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
    let reason = printable(reason, REASON_CHARS);
    if reason.is_empty() { by } else { format!("{by}: {reason}") }
}

const DAY_MS: u64 = 86_400_000;
/// Characters of a reason that are shown.
const REASON_CHARS: usize = 200;
