//! Parts and what is derived from them.

use archipelago_cluster::Refusal;
use archipelago_common::record::Why;

use crate::script::{Script, name};

/// A reference with a further axis, a union and a pool, and a site at work on it.
const GROWN: &str = "
    @1000 operator/anna add-site a
    operator/anna add-site b
    operator/anna publish-reference atlas axes=donor parts=models,counts anna/lung/ref=r anna/lung+counts/ref=n
    operator/anna publish-task atlas
    operator/anna publish-task atlas
    site/a claim 1";

fn invalid(script: &mut Script, line: &str) -> String {
    match script.ask(line) {
        Err(Refusal::Invalid { reason }) => reason,
        other => panic!("`{line}` gave {other:?}"),
    }
}

#[test]
fn keys_of_every_axis_and_part_are_merged_and_withdrawn_alike() {
    let mut script = Script::after(GROWN);
    let before = script.current();
    script.run("site/a submit 1 1 a/d/x=1 a/d@donor/d1=2 a/d+counts/x=3 a/d+models/x=4");
    assert_eq!(
        script.conditions(),
        ["a/d/x", "a/d@donor/d1", "a/d+counts/x", "a/d+models/x", "anna/lung/ref", "anna/lung+counts/ref"]
    );
    script.run("site/a withdraw atlas a");
    assert_eq!(script.current(), before);
}

#[test]
fn a_condition_is_withdrawn_with_what_its_cells_contributed() {
    let mut script = Script::after(GROWN);
    script.run("site/a submit 1 1 a/d/x=1 a/d+counts/x=3 a/d/y=2 a/d+counts/y=4");
    script.run("site/a withdraw atlas a/d/x");
    assert_eq!(script.conditions(), ["a/d/y", "a/d+counts/y", "anna/lung/ref", "anna/lung+counts/ref"]);
    // A part can go alone.
    script.run("site/a withdraw atlas a/d+counts/y");
    assert_eq!(script.conditions(), ["a/d/y", "anna/lung/ref", "anna/lung+counts/ref"]);
}

#[test]
fn a_part_handed_in_twice_is_there_once_and_another_under_its_key_is_refused() {
    let mut script = Script::after(GROWN);
    script.run("site/a submit 1 1 a/d/x=1 a/d+counts/x=3\n site/a claim 2");
    let held = script.conditions();
    assert!(matches!(script.ask("site/a submit 2 1 a/d/z=9 a/d+counts/x=8"), Err(Refusal::Conflict { .. })));
    script.run("site/a submit 2 1 a/d/z=9 a/d+counts/x=3");
    assert_eq!(script.conditions().len(), held.len() + 1);
}

#[test]
fn what_the_layout_does_not_know_is_refused() {
    let mut script = Script::after(GROWN);
    assert!(invalid(&mut script, "site/a submit 1 1 a/d@batch/x=1").contains("axis `batch`"));
    assert!(invalid(&mut script, "site/a submit 1 1 a/d+terms/x=1").contains("part `terms`"));
    assert!(invalid(&mut script, "site/a submit 1 1 a/d+counts/x=1 cells=30").contains("embeddings or metrics"));
    let plain = "operator/anna publish-reference plain anna/lung+counts/ref=n";
    assert!(invalid(&mut script, plain).contains("part `counts`"));
}

#[test]
fn a_task_takes_what_it_asks_for_and_nothing_else() {
    let mut script = Script::after(GROWN);
    script.run("operator/anna publish-task atlas asks=parts\n operator/anna publish-task atlas asks=columns");
    script.run("site/a claim 3\n site/a claim 4");
    let columns = invalid(&mut script, "site/a submit 3 1 a/d/x=1 a/d+counts/x=3");
    assert_eq!(columns, "`a/d/x` belongs to the conditions, and the task asks for parts only");
    let parts = invalid(&mut script, "site/a submit 4 1 a/d/x=1 a/d+counts/x=3");
    assert_eq!(parts, "`a/d+counts/x` belongs to part `counts`, and the task asks for columns only");
    script.run("site/a submit 3 1 a/d+counts/x=3\n site/a submit 4 1 a/d/x=1 a/d@donor/d1=2");
    assert_eq!(script.conditions(), ["a/d/x", "a/d@donor/d1", "a/d+counts/x", "anna/lung/ref", "anna/lung+counts/ref"]);
}

#[test]
fn a_part_under_another_owners_name_is_forbidden() {
    let mut script = Script::after(GROWN);
    let Err(Refusal::Forbidden { reason }) = script.ask("site/a submit 1 1 a/d/x=1 b/d+counts/x=3") else {
        panic!("forbidden")
    };
    assert_eq!(reason, "condition `b/d+counts/x` is not in the namespace of site `a`");
}

#[test]
fn a_derived_value_stands_in_the_lineage_of_the_version_it_was_derived_from() {
    let mut script = Script::after(GROWN);
    let before = script.current();
    script.run("operator/anna derive atlas totals t1\n site/a derive atlas totals t1");
    assert_eq!(script.current(), before, "the version stays what it is");
    let atlas = script.cluster.reference(&name("atlas")).unwrap();
    assert_eq!(atlas.changes().len(), 2, "the same value again is the same");
    let Why::Derived { by, value, function, .. } = &atlas.changes()[1].why else { panic!("derived") };
    assert_eq!((by.as_str(), value.as_str(), function.as_str()), ("anna", "totals", "sum-1"));
    assert!(matches!(script.ask("site/b derive atlas totals t2"), Err(Refusal::Conflict { .. })));
}

#[test]
fn a_value_belongs_to_one_version_only() {
    let mut script = Script::after(GROWN);
    script.run("operator/anna derive atlas totals t1\n site/a submit 1 1 a/d/x=1 a/d+counts/x=3");
    let totals = name("totals");
    assert_eq!(script.cluster.reference(&name("atlas")).unwrap().derived(&totals), None);
    assert!(matches!(script.ask("operator/anna derive atlas totals t2 v=0"), Err(Refusal::Stale { .. })));
    script.run("operator/anna derive atlas totals t2");
    let t2 = script.cluster.reference(&name("atlas")).unwrap().derived(&totals).unwrap();
    let anyone = crate::script::principal("site/b");
    assert!(script.cluster.may_fetch(&anyone, &t2.digest));
    script.run("site/a withdraw atlas a");
    assert!(!script.cluster.may_fetch(&anyone, &t2.digest), "what a withdrawn member went into is not given out");
}

#[test]
fn what_is_not_derived_from_the_reference_is_refused() {
    let mut script = Script::after(GROWN);
    assert!(invalid(&mut script, "operator/anna derive atlas tree t").contains("no value `tree`"));
    assert!(matches!(script.ask("auditor/eva derive atlas totals t"), Err(Refusal::Forbidden { .. })));
}

#[test]
fn a_task_for_annotations_takes_nothing_else_and_wants_a_reference_that_has_a_tree() {
    let mut script = Script::after(GROWN);
    let told = invalid(&mut script, "operator/anna publish-task atlas asks=annotations");
    assert!(told.contains("learn no tree over reference `atlas`"), "{told}");
    script.run(
        "operator/anna publish-reference trees parts=tree-machines,tree-annotations anna/lung/ref=r
        operator/anna publish-task trees asks=annotations
        site/a claim 3",
    );
    for (key, section) in [("a/d/x", "conditions"), ("a/d+tree-machines/x", "tree-machines")] {
        let told = invalid(&mut script, &format!("site/a submit 3 1 {key}=1"));
        assert!(told.contains(section) && told.contains("asks for annotations only"), "{told}");
    }
    script.run("site/a submit 3 1 a/d+tree-annotations/x~4be2=1\n site/a withdraw trees a");
}
