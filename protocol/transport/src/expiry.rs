//! A connection ends when its peer's certificate does: who was let in once is not let in for ever.

use std::time::Duration;

use time::OffsetDateTime;

use crate::credentials::minute;

/// What the peer hears: with this machine's clock, in case one of the two is wrong.
pub(crate) fn reason(expires: OffsetDateTime) -> String {
    let [until, now] = [expires, OffsetDateTime::now_utc()].map(minute);
    format!("the certificate has expired: it was valid until {until}, and the clock here shows {now}")
}

/// Waits for the end of a certificate or of its connection; whether the certificate's came first.
pub(crate) async fn comes_first<T>(expires: OffsetDateTime, closed: impl Future<Output = T>) -> bool {
    tokio::pin!(closed);
    loop {
        let left = Duration::try_from(expires - OffsetDateTime::now_utc()).unwrap_or_default();
        if left.is_zero() {
            return true;
        }
        tokio::select! {
            _ = &mut closed => return false,
            // The clock may be set meanwhile.
            () = tokio::time::sleep(left.min(LOOK)) => {}
        }
    }
}

/// Longest pause between two looks at the clock.
const LOOK: Duration = Duration::from_secs(30);
