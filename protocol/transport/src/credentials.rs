//! Who this side is: a certificate, its key, and the authority that peers must be certified by.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use archipelago_common::{Fingerprint, Identity, fs};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use time::OffsetDateTime;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

use crate::{
    error::{Error, Result},
    tls,
};

/// A checked certificate with its key and its authority. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    expires: OffsetDateTime,
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

    /// Who this is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// When the certificate ends, in seconds since the Unix epoch.
    pub fn expires_unix_s(&self) -> i64 {
        self.inner.expires.unix_timestamp()
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.inner.roots
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.inner.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.inner.key.clone_key()
    }

    fn parse(authority: (&Path, &[u8]), certificate: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<Self> {
        let source = Source { what: "certificate of the authority", path: authority.0 };
        let mut roots = RootCertStore::empty();
        for root in source.certificates(authority.1)? {
            roots.add(root).map_err(|e| source.error(e.to_string()))?;
        }
        let source = Source { what: "certificate", path: certificate.0 };
        let chain = source.certificates(certificate.1)?;
        let identity = identity(&chain[0]).map_err(|detail| source.error(detail))?;
        let expires = expiry(&chain[0]).map_err(|detail| source.error(detail))?;
        let source = Source { what: "key", path: key.0 };
        let key = PrivateKeyDer::from_pem_slice(key.1).map_err(|e| source.error(e.to_string()))?;
        let signing_key =
            tls::provider().key_provider.load_private_key(key.clone_key()).map_err(|e| source.error(e.to_string()))?;
        rustls::sign::CertifiedKey::new(chain.clone(), signing_key)
            .keys_match()
            .map_err(|_| source.error(format!("it is not the key of certificate `{}`", certificate.0.display())))?;
        Ok(Self { inner: Arc::new(Inner { identity, expires, roots: Arc::new(roots), chain, key }) })
    }

    fn check_chain(&self, certificate: &Path) -> Result<()> {
        let source = Source { what: "certificate", path: certificate };
        let (leaf, intermediates) = self.inner.chain.split_first().expect("`parse` refuses an empty chain");
        WebPkiClientVerifier::builder_with_provider(self.inner.roots.clone(), tls::provider())
            .build()
            .map_err(|e| source.error(e.to_string()))?
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map_err(|e| match tls::judge(self.identity(), &e) {
                Error::PeerExpired => Error::OwnExpired {
                    path: certificate.into(),
                    principal: self.identity().principal.clone(),
                    expired_on: self.inner.expires.date().to_string(),
                },
                Error::UntrustedPeer { .. } => source.error("it was not signed by the given authority".to_owned()),
                Error::PeerNotYetValid => source.error("it is not valid yet; check this machine's clock".to_owned()),
                other => source.error(other.to_string()),
            })?;
        Ok(())
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
    Ok(parse_x509(certificate)?.validity().not_after.to_datetime())
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
const FILE_BYTES: u64 = 1 << 20;
