//! What a publisher signs: that a name stands for this version of a reference, that this is a task of theirs.
//!
//! Whoever stores and hands on references and tasks can neither make nor change one that is signed. The key is that of the
//! publisher's certificate. Signing and verifying is done in the transport's crate, which knows certificates.

use serde::{Deserialize, Serialize};

use crate::{
    codec,
    error::{Error, Result},
    hash::{Digest, FieldHasher},
    id::{Name, SiteId, TaskId, VersionId},
    limits,
    task::SurgeryTask,
};

/// Whose word it is that something is as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signature {
    /// Digest of what is signed: a reference's first version, which names base and columns; a task's encoding.
    pub of: Digest,
    /// The signer's clock, Unix milliseconds. Signed too.
    pub signed_ms: u64,
    /// The certificates from the signer's to the authority's, DER.
    pub chain: Vec<Vec<u8>>,
    /// The signature scheme by its number in TLS 1.3.
    pub scheme: u16,
    /// The signature over [`Statement::message`].
    pub bytes: Vec<u8>,
}

/// What a signature is about, for whoever asks for it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Subject {
    /// A reference as it was published.
    Reference(Name),
    /// A task.
    Task(TaskId),
}

/// What is signed, in one digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Digest of the thing itself.
    pub of: Digest,
    /// When it is said, Unix milliseconds.
    pub signed_ms: u64,
    digest: Digest,
}

impl Statement {
    /// That a name stands for a reference whose first version is this one, and has no parent. The version names base (with its
    /// card) and columns.
    pub fn of_reference(name: &Name, first: VersionId, signed_ms: u64) -> Self {
        Self::new("archipelago/signed-reference/1", name.as_str().as_bytes(), first.0, signed_ms)
    }

    /// That this task is asked for; twice the same task is two statements, told apart by their time.
    ///
    /// # Errors  [`Error::TooLarge`]
    pub fn of_task(task: &SurgeryTask, signed_ms: u64) -> Result<Self> {
        let of = Digest::of(&codec::encode("task", task, limits::FRAME_BYTES)?);
        Ok(Self::new("archipelago/signed-task/1", task.reference.as_str().as_bytes(), of, signed_ms))
    }

    /// That a pack of a reference of this name is the one whose manifest has this digest.
    pub fn of_pack(name: &Name, manifest: Digest, signed_ms: u64) -> Self {
        Self::new("archipelago/signed-pack/1", name.as_str().as_bytes(), manifest, signed_ms)
    }

    /// That a site asks for this signing request (PEM) to be answered: it has the key that it is certified with, and the new one is its
    /// own.
    pub fn of_renewal(site: &SiteId, request: &str, signed_ms: u64) -> Self {
        Self::new("archipelago/renewal/1", site.as_str().as_bytes(), Digest::of(request.as_bytes()), signed_ms)
    }

    fn new(domain: &'static str, name: &[u8], of: Digest, signed_ms: u64) -> Self {
        let mut hasher = FieldHasher::new(domain);
        hasher.field(name).field(of.as_bytes()).field(&signed_ms.to_le_bytes());
        Self { of, signed_ms, digest: hasher.finish() }
    }

    /// The bytes that are signed.
    pub fn message(&self) -> Vec<u8> {
        [&b"archipelago signature 1\n"[..], self.digest.as_bytes()].concat()
    }

    /// What tells this statement from every other.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Signature {
    /// Whether it is of a size that signatures have, and of this thing. Whose it is and whether it is right is another question.
    ///
    /// # Errors  [`Error::InvalidValue`]
    pub fn check(&self, of: Digest) -> Result<()> {
        let refuse = |found: String, expected| Err(Error::InvalidValue { what: "signature", found, expected });
        let n_bytes = self.chain.iter().map(Vec::len).fold(self.bytes.len(), usize::saturating_add);
        if self.chain.is_empty() || n_bytes > limits::SIGNATURE_BYTES {
            let found = format!("{n_bytes} bytes with {} certificates", self.chain.len());
            return refuse(found, "certificates and signature of 16 KiB at most");
        }
        if self.of != of {
            return refuse(format!("of {}", self.of), "one of what it comes with");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TrainSpec;

    #[test]
    fn a_statement_sees_kind_name_content_and_time() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let version = |text: &str| VersionId(Digest::of(text.as_bytes()));
        let task = SurgeryTask::new(name("lung"), version("one"), TrainSpec::default());
        let other = SurgeryTask { min_cells: 2, ..task.clone() };
        let statements = [
            Statement::of_reference(&name("lung"), version("one"), 1),
            Statement::of_reference(&name("lungs"), version("one"), 1),
            Statement::of_reference(&name("lung"), version("two"), 1),
            Statement::of_reference(&name("lung"), version("one"), 2),
            Statement::of_task(&task, 1).unwrap(),
            Statement::of_task(&task, 2).unwrap(),
            Statement::of_task(&other, 1).unwrap(),
            Statement::of_renewal(&"lung".parse().unwrap(), "one", 1),
            Statement::of_pack(&name("lung"), Digest::of(b"one"), 1),
            Statement::of_renewal(&"lung".parse().unwrap(), "two", 1),
        ];
        let messages: std::collections::BTreeSet<_> = statements.iter().map(Statement::message).collect();
        assert_eq!(messages.len(), statements.len());
        assert_eq!(Statement::of_task(&task, 1).unwrap(), statements[4]);
    }

    #[test]
    fn a_signature_of_something_else_or_without_bounds_is_refused() {
        let of = Digest::of(b"thing");
        let signature = Signature { of, signed_ms: 1, chain: vec![vec![0; 500]], scheme: 0x0403, bytes: vec![0; 70] };
        signature.check(of).unwrap();
        assert!(signature.check(Digest::of(b"other")).is_err());
        assert!(Signature { chain: vec![], ..signature.clone() }.check(of).is_err());
        assert!(Signature { bytes: vec![0; 1 << 20], ..signature }.check(of).is_err());
    }
}
