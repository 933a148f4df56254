//! Who this side is: a certificate, its key, and the authority that peers must be certified by.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use archipelago_common::{Fingerprint, Identity, enrolment::CertifiedKey, fs};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use time::OffsetDateTime;
use tokio::sync::watch;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

use crate::{
    error::{Error, Result},
    tls,
};

/// A checked certificate with its key and its authority. Cheap to clone; all clones have what any of them was given last
/// ([`Self::replace`]).
#[derive(Clone)]
pub struct Credentials {
    identity: Arc<Identity>,
    current: Arc<watch::Sender<Arc<Inner>>>,
}

struct Inner {
    begins: OffsetDateTime,
    expires: OffsetDateTime,
    fingerprint: Fingerprint,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Where PEM text came from, for errors.
#[derive(Clone, Copy)]
struct Source<'a> {
    what: &'static str,
    path: &'a Path,
}

impl Credentials {
    /// Reads the authority's certificate, this side's certificate and its key from PEM files, and checks that they
    /// belong together and are valid today.
    ///
    /// # Errors  [`Error::File`], [`Error::Credentials`] or [`Error::OwnExpired`], naming the file
    pub fn load(authority: &Path, certificate: &Path, key: &Path) -> Result<Self> {
        let read = |path| fs::read_bounded(path, FILE_BYTES).map_err(file_error);
        let credentials =
            Self::parse((authority, &read(authority)?), (certificate, &read(certificate)?), (key, &read(key)?))?;
        credentials.check_chain(certificate)?;
        Ok(credentials)
    }

    /// Credentials from PEM text that is already at hand. Checks that key and certificate belong together, not that
    /// the certificate is valid today or of this authority: peers will find out.
    ///
    /// # Errors  [`Error::Credentials`]
    pub fn from_pem(authority: &str, certificate: &str, key: &str) -> Result<Self> {
        let path = |name| PathBuf::from(format!("<{name}>"));
        Self::parse(
            (&path("authority"), authority.as_bytes()),
            (&path("certificate"), certificate.as_bytes()),
            (&path("key"), key.as_bytes()),
        )
    }

    /// From here on every dial and every handshake of a listener is made with another certificate, key and authority of the same
    /// identity; connections that stand are not touched.
    ///
    /// # Errors  [`Error::Issue`] for those of somebody else
    pub fn replace(&self, by: &Self) -> Result<()> {
        if by.identity != self.identity {
            let detail = format!("it is of `{}`, expected `{}`", by.identity, self.identity);
            return Err(Error::Issue { what: "another certificate", detail });
        }
        self.current.send_replace(by.current());
        Ok(())
    }

    /// What tells when they were replaced.
    pub fn replacements(&self) -> Replacements {
        Replacements(self.current.subscribe())
    }

    /// Who this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When the certificate ends, in seconds since the Unix epoch.
    pub fn expires_unix_s(&self) -> i64 {
        self.current().expires.unix_timestamp()
    }

    /// The key, and when its certificate ends.
    pub fn certified(&self) -> CertifiedKey {
        let current = self.current();
        CertifiedKey { key: current.fingerprint, expires_ms: unix_ms(current.expires) }
    }

    /// The keys of the authorities that are accepted, and their names: two answers tell whether they were changed.
    pub fn authorities(&self) -> BTreeSet<Vec<u8>> {
        let roots = self.roots();
        let of = |root: &TrustAnchor<'_>| [&root.subject_public_key_info[..], &root.subject[..]].concat();
        roots.roots.iter().map(of).collect()
    }

    /// How much of the certificate's life is over at a time (Unix milliseconds): 0 when it begins, 1 when it ends.
    pub fn share_over(&self, at_ms: u64) -> f64 {
        let current = self.current();
        let (begins, expires) = (unix_ms(current.begins) as f64, unix_ms(current.expires) as f64);
        (at_ms as f64 - begins) / (expires - begins).max(1.0)
    }

    pub(crate) fn validity(&self) -> (OffsetDateTime, OffsetDateTime) {
        let current = self.current();
        (current.begins, current.expires)
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        self.current().roots.clone()
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current().chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.current().key.clone_key()
    }

    fn current(&self) -> Arc<Inner> {
        self.current.borrow().clone()
    }

    fn parse(authority: (&Path, &[u8]), certificate: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<Self> {
        let roots = parse_roots(authority.0, authority.1)?;
        let source = Source { what: "certificate", path: certificate.0 };
        let chain = source.certificates(certificate.1)?;
        let identity = identity(&chain[0]).map_err(|detail| source.error(detail))?;
        let (begins, expires) = validity(&chain[0]).map_err(|detail| source.error(detail))?;
        let fingerprint = fingerprint(&chain[0]).map_err(|detail| source.error(detail))?;
        let source = Source { what: "key", path: key.0 };
        let key = PrivateKeyDer::from_pem_slice(key.1).map_err(|e| source.error(e.to_string()))?;
        let signing_key =
            tls::provider().key_provider.load_private_key(key.clone_key()).map_err(|e| source.error(e.to_string()))?;
        rustls::sign::CertifiedKey::new(chain.clone(), signing_key)
            .keys_match()
            .map_err(|_| source.error(format!("it is not the key of certificate `{}`", certificate.0.display())))?;
        let current = Arc::new(Inner { begins, expires, fingerprint, roots: Arc::new(roots), chain, key });
        Ok(Self { identity: Arc::new(identity), current: Arc::new(watch::Sender::new(current)) })
    }

    fn check_chain(&self, certificate: &Path) -> Result<()> {
        let source = Source { what: "certificate", path: certificate };
        let current = self.current();
        let (leaf, intermediates) = current.chain.split_first().expect("`parse` refuses an empty chain");
        WebPkiClientVerifier::builder_with_provider(current.roots.clone(), tls::provider())
            .build()
            .map_err(|e| source.error(e.to_string()))?
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map_err(|e| match tls::judge(self.identity(), &e) {
                Error::PeerExpired { .. } => Error::OwnExpired {
                    path: certificate.into(),
                    principal: self.identity().principal.clone(),
                    expired_on: current.expires.date().to_string(),
                },
                Error::UntrustedPeer { .. } => source.error("it was not signed by the given authority".to_owned()),
                Error::PeerNotYetValid { .. } => source.error(format!(
                    "it is not valid yet: it is from {} on, and this machine's clock shows {}; compare it with another",
                    minute(current.begins),
                    minute(OffsetDateTime::now_utc())
                )),
                other => source.error(other.to_string()),
            })?;
        Ok(())
    }
}

/// Certificates of authorities in a PEM file.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore> {
    parse_roots(path, &fs::read_bounded(path, FILE_BYTES).map_err(file_error)?)
}

fn parse_roots(path: &Path, pem: &[u8]) -> Result<RootCertStore> {
    let source = Source { what: "certificate of the authority", path };
    let mut roots = RootCertStore::empty();
    for root in source.certificates(pem)? {
        roots.add(root).map_err(|e| source.error(e.to_string()))?;
    }
    Ok(roots)
}

/// Tells when credentials were replaced.
pub struct Replacements(watch::Receiver<Arc<Inner>>);

impl Replacements {
    /// Waits for the next time; for ever where nobody is left who could. Safe to cancel.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        write!(f, "Credentials({})", self.identity())
    }
}

impl Source<'_> {
    fn certificates(self, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|e| self.error(format!("it is not PEM: {e}")))?;
        if certificates.is_empty() {
            return Err(self.error("it holds no PEM block `CERTIFICATE`".to_owned()));
        }
        Ok(certificates)
    }

    fn error(self, detail: String) -> Error {
        Error::Credentials { what: self.what, path: self.path.into(), detail }
    }
}

/// The identity in a certificate: its one subject alternative name of the scheme `archipelago`.
pub(crate) fn identity(certificate: &CertificateDer<'_>) -> Result<Identity, String> {
    let parsed = parse_x509(certificate)?;
    let names = parsed.subject_alternative_name().map_err(|e| format!("its alternative names are malformed: {e}"))?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().map_err(|e: archipelago_common::Error| e.to_string()),
        (None, _) => Err("it names no identity (a URI `archipelago://…`)".to_owned()),
        (Some(_), Some(_)) => Err("it names more than one identity".to_owned()),
    }
}

/// Whom a certificate speaks of and who signed it, as it says itself.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Result<(String, String), String> {
    let parsed = parse_x509(certificate)?;
    Ok((parsed.subject().to_string(), parsed.issuer().to_string()))
}

/// When a certificate ends.
pub(crate) fn expiry(certificate: &CertificateDer<'_>) -> Result<OffsetDateTime, String> {
    Ok(validity(certificate)?.1)
}

fn validity(certificate: &CertificateDer<'_>) -> Result<(OffsetDateTime, OffsetDateTime), String> {
    let parsed = parse_x509(certificate)?;
    Ok((parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime()))
}

/// Unix milliseconds.
pub(crate) fn unix_ms(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp()).unwrap_or_default().saturating_mul(1_000)
}

/// A time for people, UTC.
pub(crate) fn minute(at: OffsetDateTime) -> String {
    let (date, time) = (at.date(), at.time());
    format!("{date} {:02}:{:02} UTC", time.hour(), time.minute())
}

/// The key that a certificate certifies.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> Result<Fingerprint, String> {
    Ok(Fingerprint::of(parse_x509(certificate)?.public_key().raw))
}

fn parse_x509<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<x509_parser::certificate::X509Certificate<'a>, String> {
    match x509_parser::certificate::X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(e) => Err(format!("it is malformed: {e}")),
    }
}

pub(crate) fn file_error(error: archipelago_common::Error) -> Error {
    use std::error::Error as _;
    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    Error::File(format!("{error}{cause}"))
}

/// A certificate chain or key is some kilobytes.
pub(crate) const FILE_BYTES: u64 = 1 << 20;
