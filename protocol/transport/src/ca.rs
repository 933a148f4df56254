//! The consortium's certificate authority: one key, kept by an operator, that certifies who is who.
//!
//! A certificate names a principal as the URI `archipelago://<consortium>/<role>/<name>` and no host, so members may
//! move between machines. A site makes its own key and sends a signing request; its key never travels.

use std::{io::Write as _, path::Path};

use archipelago_common::{Fingerprint, Identity, Name, Principal, fs, limits};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::FromDer as _;

use crate::{
    credentials::{self, file_error},
    error::{Error, Result},
};

/// From when to when a certificate holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// Begins.
    pub not_before: OffsetDateTime,
    /// Ends.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// The next `days` days, and the last hour: clocks of members differ.
    pub fn days(days: u32) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { not_before: now - CLOCK_TOLERANCE, not_after: now.saturating_add(Duration::days(days.into())) }
    }

    /// From the last hour until then, Unix milliseconds.
    pub fn until_ms(end_ms: u64) -> Self {
        let now = OffsetDateTime::now_utc();
        let end_s = i64::try_from(end_ms / 1_000).unwrap_or(i64::MAX);
        Self { not_before: now - CLOCK_TOLERANCE, not_after: OffsetDateTime::from_unix_timestamp(end_s).unwrap_or(now) }
    }
}

/// A certificate and its key, as PEM text.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key, PKCS #8. Secret.
    pub key: String,
}

impl Issued {
    /// Writes both files; the key is readable by its owner only. Neither may exist already.
    ///
    /// # Errors  [`Error::File`]
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<()> {
        write_new(key, &self.key, PRIVATE)?;
        write_new(certificate, &self.certificate, PUBLIC)
    }
}

/// The authority of one consortium.
pub struct Authority {
    consortium: Name,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority with a fresh key. Keep [`Issued::key`] safe: whoever has it can be anybody.
    ///
    /// # Errors  [`Error::Issue`]
    pub fn create(consortium: Name, validity: Validity) -> Result<(Self, Issued)> {
        let key = KeyPair::generate().map_err(|e| issue("the authority's key", &e))?;
        let mut params = CertificateParams::default();
        params.not_before = validity.not_before;
        params.not_after = validity.not_after;
        params.serial_number = Some(serial()?);
        params.distinguished_name = named(consortium.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|e| issue("the authority's certificate", &e))?.pem();
        let issued = Issued { certificate: certificate.clone(), key: key.serialize_pem() };
        Ok((Self { consortium, certificate, issuer: Issuer::new(params, key) }, issued))
    }

    /// Reads an authority's certificate and key.
    ///
    /// # Errors  [`Error::File`], [`Error::Credentials`] naming the file
    pub fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let bad = |what, path: &Path, detail: String| Error::Credentials { what, path: path.into(), detail };
        let bad_certificate = |detail: String| bad("certificate of the authority", certificate, detail);
        let text = read_text(certificate)?;
        let key_pair = KeyPair::from_pem(&read_text(key)?).map_err(|e| bad("key", key, e.to_string()))?;
        let consortium = consortium(&text, &key_pair).map_err(bad_certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&text, key_pair).map_err(|e| bad_certificate(e.to_string()))?;
        Ok(Self { consortium, certificate: text, issuer })
    }

    /// The consortium's name.
    pub fn consortium(&self) -> &Name {
        &self.consortium
    }

    /// The authority's own certificate, PEM: the file every member needs.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Makes a key and a certificate for a principal.
    ///
    /// # Errors  [`Error::Issue`]
    pub fn issue(&self, principal: &Principal, validity: Validity) -> Result<Issued> {
        let key = KeyPair::generate().map_err(|e| issue("a key", &e))?;
        let certificate = self
            .params(principal, validity)?
            .signed_by(&key, &self.issuer)
            .map_err(|e| issue("a certificate", &e))?
            .pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    /// Makes a key to be invited with, and certifies it for that and nothing else.
    ///
    /// # Errors  [`Error::Issue`]
    pub fn invite(&self, validity: Validity) -> Result<(Fingerprint, Issued)> {
        let key = KeyPair::generate().map_err(|e| issue("a key", &e))?;
        let fingerprint = Fingerprint::of(&key.subject_public_key_info());
        let certificate = self
            .params(&Principal::Invited(fingerprint), validity)?
            .signed_by(&key, &self.issuer)
            .map_err(|e| issue("a certificate", &e))?
            .pem();
        Ok((fingerprint, Issued { certificate, key: key.serialize_pem() }))
    }

    /// Certifies the key of a signing request (PEM) as this principal's. Only the key is taken from the request, after
    /// its signature has been verified; who it is for is the operator's word.
    ///
    /// # Errors  [`Error::Issue`]
    pub fn sign_request(&self, request: &str, principal: &Principal, validity: Validity) -> Result<String> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|e| issue("a certificate from the signing request", &e))?;
        let signed = self
            .params(principal, validity)?
            .signed_by(&request.public_key, &self.issuer)
            .map_err(|e| issue("a certificate from the signing request", &e))?;
        Ok(signed.pem())
    }

    fn params(&self, principal: &Principal, validity: Validity) -> Result<CertificateParams> {
        let identity = Identity { consortium: self.consortium.clone(), principal: principal.clone() };
        let uri = identity.to_string().try_into().map_err(|e| issue("an identity", &e))?;
        let mut params = CertificateParams::default();
        params.not_before = validity.not_before;
        params.not_after = validity.not_after;
        params.serial_number = Some(serial()?);
        params.distinguished_name = named(&principal.to_string());
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(principal, Principal::Coordinator(_)) {
            // Everybody dials coordinators and nobody else, so nobody else is certified as a server.
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// A key made where it will be used, and the request to certify it, both PEM.
///
/// # Errors  [`Error::Issue`]
pub fn signing_request(principal: &Principal) -> Result<(String, String)> {
    let key = KeyPair::generate().map_err(|e| issue("a key", &e))?;
    let request = request_of(&key, principal)?;
    Ok((key.serialize_pem(), request))
}

/// The request to certify a key that was made before (PEM), and the key's fingerprint.
///
/// # Errors  [`Error::File`], [`Error::Credentials`] naming the file
pub fn signing_request_of(key: &Path, principal: &Principal) -> Result<(String, Fingerprint)> {
    let bad = |e: rcgen::Error| Error::Credentials { what: "key", path: key.into(), detail: e.to_string() };
    let key = KeyPair::from_pem(&read_text(key)?).map_err(bad)?;
    Ok((request_of(&key, principal)?, Fingerprint::of(&key.subject_public_key_info())))
}

fn request_of(key: &KeyPair, principal: &Principal) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&principal.to_string());
    params.serialize_request(key).and_then(|request| request.pem()).map_err(|e| issue("a signing request", &e))
}

/// What a signing request says, whose signature was verified: it was made by whoever has the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// For whom, as it says itself: role and name, where it was made by [`signing_request`].
    pub name: String,
    /// The key that it wants certified.
    pub key: Fingerprint,
}

impl Asked {
    /// Reads a signing request, PEM.
    ///
    /// # Errors  what is wrong with it, in words
    pub fn read(request: &str) -> Result<Self, String> {
        require_size(request)?;
        let parsed = CertificateSigningRequestParams::from_pem(request).map_err(|e| format!("it is malformed: {e}"))?;
        let name = match parsed.params.distinguished_name.get(&DnType::CommonName) {
            Some(DnValue::Utf8String(name)) => name.clone(),
            Some(DnValue::PrintableString(name)) => name.as_str().to_owned(),
            _ => String::new(),
        };
        Ok(Self { name, key: Fingerprint::of(&parsed.public_key.subject_public_key_info()) })
    }
}

/// Whom a certificate speaks of, as it says itself; who signed it is not looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certified {
    /// Who it is.
    pub identity: Identity,
    /// The key that is certified.
    pub key: Fingerprint,
    /// When it ends, seconds since the Unix epoch.
    pub expires_unix_s: i64,
}

impl Certified {
    /// Reads a certificate, PEM.
    ///
    /// # Errors  what is wrong with it, in words
    pub fn read(certificate: &str) -> Result<Self, String> {
        require_size(certificate)?;
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(certificate.as_bytes()).map_err(|e| format!("it is not PEM: {e}"))?;
        Self::of_der(&pem.contents)
    }

    /// Reads a certificate, DER.
    ///
    /// # Errors  what is wrong with it, in words
    pub fn of_der(certificate: &[u8]) -> Result<Self, String> {
        let certificate = certificate.into();
        Ok(Self {
            identity: credentials::identity(&certificate)?,
            key: credentials::fingerprint(&certificate)?,
            expires_unix_s: credentials::expiry(&certificate)?.unix_timestamp(),
        })
    }
}

fn require_size(pem: &str) -> Result<(), String> {
    let (found, limit) = (pem.len(), limits::CERTIFICATE_BYTES);
    if found <= limit { Ok(()) } else { Err(format!("it has {found} bytes, expected at most {limit}")) }
}

/// Writes a secret to a new file that only its owner can read.
///
/// # Errors  [`Error::File`], also if the file exists
pub fn write_key(path: &Path, key: &str) -> Result<()> {
    write_new(path, key, PRIVATE)
}

/// The authority's name, once its certificate is known to belong to the key.
fn consortium(certificate: &str, key: &KeyPair) -> Result<Name, String> {
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(certificate.as_bytes()).map_err(|e| format!("it is not PEM: {e}"))?;
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&pem.contents)
        .map_err(|e| format!("it is malformed: {e}"))?;
    if !parsed.is_ca() {
        return Err("it is not the certificate of an authority".to_owned());
    }
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err("it does not belong to the given key".to_owned());
    }
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    Name::parse("consortium name", name).map_err(|e| e.to_string())
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Archipelago");
    name.push(DnType::CommonName, common_name);
    name
}

/// 127 random bits: unique without a counter that could be lost, and positive as X.509 asks.
fn serial() -> Result<SerialNumber> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|e| issue("a serial number", &e))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read_bounded(path, 1 << 20).map_err(file_error)?;
    String::from_utf8(bytes).map_err(|_| Error::Credentials {
        what: "file",
        path: path.into(),
        detail: "it is not PEM text".to_owned(),
    })
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e: std::io::Error| Error::File(format!("failed to create `{}`: {e}", path.display())))
}

fn issue(what: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error::Issue { what, detail: error.to_string() }
}

const CLOCK_TOLERANCE: Duration = Duration::HOUR;
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;
