//! Statements of publishers, signed with the key of a certificate and verified against the consortium's authority.
//!
//! No cryptography of its own: keys, schemes and algorithms are those of TLS here, chains are verified as those of peers are. TLS
//! signs messages that begin with 64 spaces, a statement never does, so that neither stands for the other.

use std::{path::Path, sync::Arc, time::Duration};

use archipelago_common::{
    Identity, Principal,
    signature::{Signature, Statement},
};
use rustls::{
    RootCertStore, SignatureScheme,
    pki_types::{CertificateDer, UnixTime},
    server::WebPkiClientVerifier,
};
use x509_parser::prelude::FromDer as _;

use crate::{
    credentials::{self, Credentials},
    error::{Error, Result},
    tls,
};

impl Credentials {
    /// Signs a statement with this side's key.
    ///
    /// # Errors  [`Error::Issue`]
    pub fn sign(&self, statement: &Statement) -> Result<Signature> {
        let failed = |detail: String| Error::Issue { what: "a signature", detail };
        let provider = tls::provider();
        let key = provider.key_provider.load_private_key(self.key()).map_err(|e| failed(e.to_string()))?;
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let signer = key.choose_scheme(&schemes).ok_or_else(|| failed("the key is of an unknown kind".to_owned()))?;
        let bytes = signer.sign(&statement.message()).map_err(|e| failed(e.to_string()))?;
        Ok(Signature {
            of: statement.of,
            signed_ms: statement.signed_ms,
            chain: self.chain().iter().map(|certificate| certificate.to_vec()).collect(),
            scheme: signer.scheme().into(),
            bytes,
        })
    }

    /// Whose word a signed statement is, once chain and signature hold. The certificate must have been valid when the statement
    /// says that it was signed.
    ///
    /// # Errors  [`Error::Signature`] saying what does not hold
    pub fn signer(&self, statement: &Statement, signature: &Signature) -> Result<Principal> {
        let signer = Authorities(self.roots()).signer_as(Some(self.identity()), statement, signature)?;
        match signer.consortium == self.identity().consortium {
            true => Ok(signer.principal),
            false => Err(refuse(&format!("it is of consortium `{}`", signer.consortium))),
        }
    }
}

/// Authorities whose certificates somebody believes who has none of them.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<RootCertStore>);

impl Authorities {
    /// Reads certificates of authorities from a PEM file.
    ///
    /// # Errors  [`Error::File`], [`Error::Credentials`] naming the file
    pub fn load(path: &Path) -> Result<Self> {
        Ok(Self(Arc::new(credentials::roots(path)?)))
    }

    /// Whose word a signed statement is, as [`Credentials::signer`] has it, in whatever consortium these authorities are of.
    ///
    /// # Errors  [`Error::Signature`] saying what does not hold
    pub fn signer(&self, statement: &Statement, signature: &Signature) -> Result<Identity> {
        self.signer_as(None, statement, signature)
    }

    fn signer_as(&self, us: Option<&Identity>, statement: &Statement, signature: &Signature) -> Result<Identity> {
        signature.check(statement.of).map_err(|e| refuse(&e.to_string()))?;
        let chain: Vec<_> = signature.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let (leaf, intermediates) = chain.split_first().ok_or_else(|| refuse("it names no certificate"))?;
        let identity = credentials::identity(leaf).map_err(|detail| refuse(&detail));
        let at = UnixTime::since_unix_epoch(Duration::from_millis(statement.signed_ms));
        let verified = WebPkiClientVerifier::builder_with_provider(self.0.clone(), tls::provider())
            .build()
            .map_err(|e| refuse(&e.to_string()))?
            .verify_client_cert(leaf, intermediates, at);
        if let Err(error) = verified {
            let us = us.map_or_else(|| identity.clone(), |us| Ok(us.clone()))?;
            return Err(match tls::judge(&us, &error) {
                Error::PeerExpired { .. } | Error::PeerNotYetValid { .. } => {
                    refuse("its certificate was not valid when it was signed")
                }
                Error::UntrustedPeer { consortium } => {
                    refuse(&format!("its certificate was not signed by the authority of consortium `{consortium}`"))
                }
                other => refuse(&other.to_string()),
            });
        }
        match is_right(leaf, statement, signature) {
            true => identity,
            false => Err(refuse("it does not match what it is said to sign")),
        }
    }
}

fn refuse(detail: &str) -> Error {
    Error::Signature { detail: detail.to_owned() }
}

/// Whether a certificate's key has signed a statement.
fn is_right(leaf: &CertificateDer<'_>, statement: &Statement, signature: &Signature) -> bool {
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(leaf) else { return false };
    let key = parsed.public_key().subject_public_key.data.as_ref();
    let scheme = SignatureScheme::from(signature.scheme);
    let algorithms = tls::provider().signature_verification_algorithms;
    // Of the algorithms of one scheme each reads only keys of its own kind, which differ in their length.
    let of_scheme = algorithms.mapping.iter().filter(|(known, _)| *known == scheme).flat_map(|(_, all)| all.iter());
    let message = statement.message();
    of_scheme.into_iter().any(|algorithm| algorithm.verify_signature(key, &message, &signature.bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use archipelago_common::{Name, VersionId, hash::Digest};
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::ca::{Authority, Validity};

    fn authority(name: &str) -> Authority {
        Authority::create(Name::parse("name", name).unwrap(), Validity::days(1)).unwrap().0
    }

    fn credentials(authority: &Authority, principal: &str) -> Credentials {
        let issued = authority.issue(&principal.parse().unwrap(), Validity::days(1)).unwrap();
        Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key).unwrap()
    }

    fn now_ms() -> u64 {
        (OffsetDateTime::now_utc().unix_timestamp() as u64) * 1000
    }

    fn statement(name: &str, signed_ms: u64) -> Statement {
        Statement::of_reference(&name.parse().unwrap(), VersionId(Digest::of(b"version")), signed_ms)
    }

    #[test]
    fn a_statement_is_its_signers_to_everybody_of_the_consortium() {
        let ours = authority("lung");
        let (anna, site) = (credentials(&ours, "operator/anna"), credentials(&ours, "site/north"));
        let said = statement("atlas", now_ms());
        let signature = anna.sign(&said).unwrap();
        assert_eq!(site.signer(&said, &signature).unwrap().to_string(), "operator/anna");
        // Who may sign what is not decided here.
        assert_eq!(anna.signer(&said, &site.sign(&said).unwrap()).unwrap().to_string(), "site/north");
    }

    #[test]
    fn nothing_of_a_signature_can_be_changed() {
        let ours = authority("lung");
        let (anna, bob, site) =
            (credentials(&ours, "operator/anna"), credentials(&ours, "operator/bob"), credentials(&ours, "site/north"));
        let said = statement("atlas", now_ms());
        let signature = anna.sign(&said).unwrap();
        let refused = |said: &Statement, signature: &Signature| site.signer(said, signature).unwrap_err().to_string();
        assert!(refused(&statement("other", said.signed_ms), &signature).contains("does not match"));
        assert!(refused(&statement("atlas", said.signed_ms + 1), &signature).contains("does not match"));
        let of_bob = Signature { chain: bob.sign(&said).unwrap().chain, ..signature.clone() };
        assert!(refused(&said, &of_bob).contains("does not match"));
        for at in 0..signature.bytes.len() {
            let mut flipped = signature.clone();
            flipped.bytes[at] ^= 1;
            assert!(site.signer(&said, &flipped).is_err(), "byte {at}");
        }
        for scheme in [0, 0x0503, 0x0807, 0x0804] {
            assert!(site.signer(&said, &Signature { scheme, ..signature.clone() }).is_err(), "{scheme:x}");
        }
        assert!(site.signer(&said, &Signature { chain: vec![], ..signature.clone() }).is_err());
        assert!(site.signer(&said, &Signature { chain: vec![vec![0; 40]], ..signature }).is_err());
    }

    #[test]
    fn a_certificate_of_another_authority_or_time_signs_nothing() {
        let (ours, theirs) = (authority("lung"), authority("lung"));
        let site = credentials(&ours, "site/north");
        let said = statement("atlas", now_ms());
        let forged = credentials(&theirs, "operator/anna").sign(&said).unwrap();
        assert!(site.signer(&said, &forged).unwrap_err().to_string().contains("authority of consortium `lung`"));
        let anna = credentials(&ours, "operator/anna");
        for days in [-2, 2] {
            let at = OffsetDateTime::now_utc() + Duration::days(days);
            let said = statement("atlas", at.unix_timestamp() as u64 * 1000);
            let refused = site.signer(&said, &anna.sign(&said).unwrap()).unwrap_err().to_string();
            assert!(refused.contains("was not valid when it was signed"), "{refused}");
        }
    }
}
