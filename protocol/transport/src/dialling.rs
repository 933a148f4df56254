//! What dials have in common, whatever carries them.

use std::{net::SocketAddr, time::Duration};

use archipelago_common::Identity;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{
    Connection, credentials,
    error::{Error, Result},
};

/// Nobody answers at an address, and why.
pub(crate) fn unreachable(address: &str, detail: impl ToString) -> Error {
    Error::Unreachable { address: address.to_owned(), detail: detail.to_string() }
}

/// Where `host:port` is: at least one place.
pub(crate) async fn resolve(address: &str) -> Result<Vec<SocketAddr>> {
    let mut resolved: Vec<_> = tokio::net::lookup_host(address).await.map_err(|e| unreachable(address, e))?.collect();
    resolved.dedup();
    match resolved.is_empty() {
        true => Err(unreachable(address, "the name has no address")),
        false => Ok(resolved),
    }
}

/// A dial that ends in time.
pub(crate) async fn within(
    limit: Duration,
    address: &str,
    dial: impl Future<Output = Result<Connection>>,
) -> Result<Connection> {
    let late = |_| Err(unreachable(address, format!("nothing within {limit:?}")));
    tokio::time::timeout(limit, dial).await.unwrap_or_else(late)
}

/// Who a peer is by its certificate, and until when.
pub(crate) fn peer_of(chain: Option<&[CertificateDer<'_>]>) -> Result<(Identity, OffsetDateTime)> {
    let leaf = chain.and_then(<[_]>::first).ok_or_else(|| "it presented none".to_owned());
    let read = leaf.and_then(|leaf| Ok((credentials::identity(leaf)?, credentials::expiry(leaf)?)));
    read.map_err(|detail| Error::BadPeer { detail })
}
