//! Signatures of publishers, kept beside what they sign. Whether they are right is for whoever uses references and tasks to say:
//! sites do not believe coordinators, so nothing would be gained if these looked. They are of what they come with, and small.

use archipelago_common::{
    Digest, Layout, Name, Principal, Version,
    record::BaseSummary,
    signature::{Signature, Statement, Subject},
    task::{QualityGates, SurgeryTask},
};

use crate::{Cluster, Edition, Outcome, Refusal, growth};

impl Cluster {
    /// The publisher's signature of something, if there is one.
    pub fn signature(&self, of: &Subject) -> Option<&Signature> {
        self.signatures.get(of)
    }

    pub(crate) fn publish_signed_reference(
        &mut self,
        principal: &Principal,
        (name, version): (&Name, &Version),
        (summary, layout): (&BaseSummary, &Layout),
        signature: &Signature,
    ) -> Result<Outcome, Refusal> {
        self.require_signable(signature, version.id().0)?;
        let outcome = self.publish_reference(principal, name, version, summary, layout)?;
        self.keep_signature(Subject::Reference(name.clone()), signature);
        Ok(outcome)
    }

    pub(crate) fn publish_signed_task(
        &mut self,
        principal: &Principal,
        task: &SurgeryTask,
        gates: &QualityGates,
        signature: &Signature,
    ) -> Result<Outcome, Refusal> {
        let statement = Statement::of_task(task, signature.signed_ms).map_err(|e| Refusal::invalid(e.to_string()))?;
        self.require_signable(signature, statement.of)?;
        let outcome = self.publish_task(principal, task, gates)?;
        if let Outcome::Task(id) = outcome {
            self.keep_signature(Subject::Task(id), signature);
        }
        Ok(outcome)
    }

    fn require_signable(&self, signature: &Signature, of: Digest) -> Result<(), Refusal> {
        if self.edition < Edition::Sixth {
            return Err(Refusal::invalid("a coordinator does not know signatures yet; upgrade all of them"));
        }
        signature.check(of).map_err(|e| Refusal::invalid(e.to_string()))?;
        self.require_growth(growth::bytes_of(signature))
    }

    fn keep_signature(&mut self, of: Subject, signature: &Signature) {
        self.grew(growth::bytes_of(signature));
        self.signatures.insert(of, signature.clone());
    }
}
