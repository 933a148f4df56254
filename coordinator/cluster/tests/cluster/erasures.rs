//! Erasure: what is named no more, and what must stay.

use std::collections::BTreeSet;

use archipelago_cluster::{Cluster, Room};
use archipelago_common::{BlobRef, Principal, act::Erasure};

use crate::script::Script;

const MERGED: &str = "
    @1000 operator/anna add-site charite
    operator/anna add-site pasteur
    operator/anna publish-reference atlas anna/lung/ref=r
    operator/anna publish-task atlas lease=60000 embeddings=full
    site/charite claim 1
    site/charite submit 1 1 charite/lung/b1=c1 charite/lung/b2=c2 embeddings=e
    site/pasteur claim 1
    site/pasteur submit 1 1 pasteur/lung/b1=p1";

fn blob(word: &str) -> BlobRef {
    BlobRef::of(word.as_bytes())
}

/// Which of these words the state names, and that a state which is restored agrees.
fn check(script: &Script, named: &str, erased: &str) {
    let restored = Cluster::restore(&script.cluster.snapshot().unwrap()).unwrap();
    for cluster in [&script.cluster, &restored] {
        for word in named.split_whitespace() {
            assert!(cluster.names(&blob(word)), "`{word}` is to stay");
        }
        let expected: BTreeSet<_> = erased.split_whitespace().map(blob).collect();
        assert_eq!(cluster.erased_since(0).1, expected);
        assert!(expected.iter().all(|blob| !cluster.names(blob)));
    }
    assert_eq!(restored, script.cluster);
}

fn receipts(script: &Script, who: &str) -> Vec<Erasure> {
    script.cluster.erasure_page(Room::default(), &who.parse::<Principal>().unwrap(), None).items
}

#[test]
fn what_is_erased_is_named_no_more_and_leaves_a_receipt() {
    let mut script = Script::after(MERGED);
    check(&script, "c1 c2 e p1 r", "");
    script.run("site/charite erase atlas charite/lung/b1");
    // Both conditions came with the same embeddings: those of the other one stay.
    check(&script, "c2 e p1 r", "c1");
    assert_eq!(script.conditions(), ["anna/lung/ref", "charite/lung/b2", "pasteur/lung/b1"]);
    script.run("operator/anna erase atlas charite");
    check(&script, "p1 r", "c1 c2 e");
    let [first, second] = receipts(&script, "auditor/eva").try_into().unwrap();
    assert_eq!(
        (first.key.to_string().as_str(), first.by.as_str(), first.at_ms),
        ("charite/lung/b1", "operator/anna", 1_000)
    );
    assert_eq!(second.blobs.iter().copied().collect::<BTreeSet<_>>(), [blob("c2"), blob("e")].into());
    assert_eq!(receipts(&script, "site/charite").len(), 2);
    assert_eq!(receipts(&script, "site/pasteur"), []);
    assert!(!script.cluster.may_fetch(&"site/charite".parse().unwrap(), &blob("c1").digest));
    assert_eq!(script.cluster.stored_bytes(&"charite".parse().unwrap()), 0);
}

#[test]
fn what_was_withdrawn_before_can_be_erased_later_and_what_others_name_stays() {
    let mut script = Script::after(MERGED);
    script.run(
        "
        operator/anna publish-task atlas lease=60000
        site/pasteur claim 2
        site/pasteur submit 2 1 pasteur/lung/same=c1
        site/charite withdraw atlas charite",
    );
    check(&script, "c1 c2 e", "");
    script.run("site/charite erase atlas charite");
    check(&script, "c1 p1", "c2 e");
    script.run("site/pasteur erase atlas pasteur/lung/same");
    check(&script, "p1", "c1 c2 e");
}

#[test]
fn what_comes_again_after_an_erasure_stays() {
    let mut script = Script::after(MERGED);
    script.run(
        "
        site/charite erase atlas charite
        operator/anna publish-task atlas lease=60000
        site/charite claim 2
        site/charite submit 2 1 charite/lung/b1=c1",
    );
    check(&script, "c1", "c2 e");
    script.run("site/charite erase atlas charite/lung/b1");
    check(&script, "p1", "c1 c2 e");
}

#[test]
fn what_waits_for_a_close_is_erased_and_may_be_handed_in_again() {
    let mut script = Script::after(
        "
        @1000 operator/anna add-site charite
        operator/anna publish-reference atlas anna/lung/ref=r
        operator/anna publish-task atlas lease=60000 publish=at-close
        site/charite claim 1
        site/charite submit 1 1 charite/lung/b1=c1
        site/charite erase atlas charite",
    );
    check(&script, "r", "c1");
    script.run(
        "
        site/charite claim 1
        site/charite submit 1 2 charite/lung/b1=c1",
    );
    check(&script, "c1", "");
    script.run("operator/anna close-task 1");
    check(&script, "c1", "");
}

#[test]
fn nobody_erases_what_is_another_s_or_was_never_there() {
    let mut script = Script::after(MERGED);
    for line in [
        "site/pasteur erase atlas charite",
        "site/pasteur erase atlas charite/lung/b1",
        "auditor/eva erase atlas charite",
        "site/charite erase atlas charite/lung/b9",
        "operator/anna erase liver charite",
    ] {
        script.ask(line).unwrap_err();
    }
    check(&script, "c1 c2 e p1 r", "");
}
