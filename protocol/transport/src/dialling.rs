//! What dials have in common, whatever carries them.

use std::{net::SocketAddr, time::Duration};

use archipelago_common::{Identity, enrolment::CertifiedKey};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{
    credentials,
    error::{Cause, Error, Result},
};

/// Nobody answers at an address, and why.
pub(crate) fn unreachable(address: &str, cause: Cause, detail: impl ToString) -> Error {
    Error::Unreachable { address: address.to_owned(), cause, detail: detail.to_string() }
}

/// Where `host:port` is: at least one place.
pub(crate) async fn resolve(address: &str) -> Result<Vec<SocketAddr>> {
    let mut resolved: Vec<_> =
        tokio::net::lookup_host(address).await.map_err(|e| unreachable(address, Cause::NoName, e))?.collect();
    resolved.dedup();
    match resolved.is_empty() {
        true => Err(unreachable(address, Cause::NoName, "the name has no address")),
        false => Ok(resolved),
    }
}

/// A dial, or a part of one, that ends in time; `silence` is what it means if it does not.
pub(crate) async fn within<T>(
    limit: Duration,
    address: &str,
    silence: Cause,
    dial: impl Future<Output = Result<T>>,
) -> Result<T> {
    let late = |_| Err(unreachable(address, silence, format!("nothing within {limit:?}")));
    tokio::time::timeout(limit, dial).await.unwrap_or_else(late)
}

/// What a peer has proven with its certificate.
pub(crate) struct Proven {
    /// Who it is.
    pub(crate) peer: Identity,
    /// Which key it has, and until when it is certified.
    pub(crate) certified: CertifiedKey,
    /// The same end.
    pub(crate) expires: OffsetDateTime,
}

impl Proven {
    /// By a chain of certificates that was verified.
    pub(crate) fn by(chain: Option<&[CertificateDer<'_>]>) -> Result<Self> {
        let leaf = chain.and_then(<[_]>::first).ok_or_else(|| "it presented none".to_owned());
        let read = leaf.and_then(|leaf| {
            let (peer, key, expires) =
                (credentials::identity(leaf)?, credentials::fingerprint(leaf)?, credentials::expiry(leaf)?);
            Ok(Self { peer, certified: CertifiedKey { key, expires_ms: credentials::unix_ms(expires) }, expires })
        });
        read.map_err(|detail| Error::BadPeer { detail })
    }
}
