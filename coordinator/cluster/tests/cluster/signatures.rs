//! Signatures of publishers: kept beside what they sign, of nothing else, and not before everybody knows them.

use archipelago_cluster::{Body, Cluster, Refusal};
use archipelago_common::{
    Digest, TaskId,
    signature::{Signature, Subject},
};

use crate::script::{Script, name};

const SIGNED: &str = "
    operator/anna publish-reference atlas signed=900 anna/lung/ref=r
    operator/anna publish-task atlas signed=950 lease=60000";

#[test]
fn a_signature_stands_beside_what_it_signs_over_a_snapshot() {
    let mut script = Script::default();
    script.run(SIGNED);
    script.run("operator/anna publish-task atlas lease=60000");
    let cluster = Cluster::restore(&script.cluster.snapshot().unwrap()).unwrap();
    assert_eq!(cluster, script.cluster);
    let of = |subject| cluster.signature(&subject).map(|signature| (signature.of, signature.signed_ms));
    let published = cluster.reference(&name("atlas")).unwrap().changes()[0].version;
    assert_eq!(of(Subject::Reference(name("atlas"))), Some((published.0, 900)));
    assert_eq!(of(Subject::Task(TaskId(1))).map(|(_, signed_ms)| signed_ms), Some(950));
    assert_eq!(of(Subject::Task(TaskId(2))), None);
}

#[test]
fn a_signature_of_something_else_publishes_nothing() {
    let mut script = Script::default();
    script.run(SIGNED);
    let signed = script.log.clone();
    let mut cluster = Cluster::founded();
    for command in signed {
        for change in [
            |signature: &mut Signature| signature.of = Digest::of(b"something else"),
            |signature: &mut Signature| signature.chain = vec![vec![0; 1 << 20]],
            |signature: &mut Signature| signature.chain.clear(),
        ] {
            let mut other = command.clone();
            match &mut other.body {
                Body::PublishSignedReference { signature, .. } | Body::PublishSignedTask { signature, .. } => {
                    change(signature);
                }
                body => panic!("{body:?} is signed by nobody"),
            }
            let refused = cluster.apply(&other).outcome.unwrap_err();
            assert!(matches!(&refused, Refusal::Invalid { reason } if reason.contains("signature")), "{refused}");
        }
        cluster.apply(&command).outcome.unwrap();
    }
    assert_eq!(cluster.signature(&Subject::Task(TaskId(1))), script.cluster.signature(&Subject::Task(TaskId(1))));
}

#[test]
fn nothing_signed_is_taken_before_all_members_know_signatures() {
    let mut script = Script::first_edition();
    script.run("coordinator/1 raise-edition 5");
    let refused = script.ask("operator/anna publish-reference atlas signed=900 anna/lung/ref=r").unwrap_err();
    assert!(matches!(&refused, Refusal::Invalid { reason } if reason.contains("upgrade all of them")), "{refused}");
    script.run("coordinator/1 raise-edition 6");
    script.run("operator/anna publish-reference atlas signed=900 anna/lung/ref=r");
}
