//! The state grows with what was done, not with its square, and is never too large.

use crate::script::{Script, name};

/// Sites that each handed in one condition to each of some tasks.
fn grown(n_sites: usize, n_tasks: usize) -> Script {
    let mut script = Script::after("@1 operator/anna publish-reference atlas anna/lung/ref=r");
    for site in 0..n_sites {
        script.quiet(&format!("operator/anna add-site s{site}"));
    }
    for task in 1..=n_tasks {
        script.quiet("operator/anna publish-task atlas");
        for site in 0..n_sites {
            script.quiet(&format!("site/s{site} claim {task}"));
            script.quiet(&format!("site/s{site} submit {task} 1 s{site}/d/b{task}=c{site}-{task}"));
        }
    }
    script
}

/// The main fault of before: 37 n² bytes after n submissions.
#[test]
fn twice_as_many_submissions_take_twice_the_space() {
    let bytes = |n_tasks| grown(40, n_tasks).cluster.snapshot().unwrap().len() as f64;
    let (few, more, many) = (bytes(5), bytes(10), bytes(20));
    let slope = (many - more) / (more - few);
    assert!((1.8..2.3).contains(&slope), "{few}, {more}, {many}");
}

#[test]
fn every_version_of_a_long_history_can_still_be_seen() {
    let mut script = grown(10, 8);
    for site in 0..5 {
        script.quiet(&format!("operator/anna withdraw atlas s{site}"));
    }
    let atlas = script.cluster.reference(&name("atlas")).unwrap();
    let mut columns = Default::default();
    for change in atlas.changes() {
        change.apply(&mut columns);
        let version = atlas.version(change.version).unwrap();
        assert_eq!((version.id(), &version.columns), (change.version, &columns));
    }
    assert_eq!(atlas.columns(), &columns);
}

#[test]
fn one_owners_conditions_come_page_by_page_in_their_order() {
    let script = grown(6, 6);
    let (atlas, owner) = (script.cluster.reference(&name("atlas")).unwrap(), "s3".parse().unwrap());
    let mut seen: Vec<_> = Vec::new();
    loop {
        let page = atlas.page(atlas.current(), Some(&owner), seen.last(), 2).unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|(key, _)| key));
    }
    let all: Vec<_> = atlas.columns().keys().filter(|key| *key.owner() == owner).cloned().collect();
    assert_eq!((seen.len(), &seen), (6, &all));
}

#[test]
fn what_the_state_was_said_to_take_covers_what_it_takes() {
    let script = grown(20, 10);
    let (said, limit) = script.cluster.size();
    let takes = script.cluster.snapshot().unwrap().len() as u64;
    // The memory of answers has a bound of its own.
    let memory = script.log.len() as u64 * 128;
    assert!(takes < said + memory && said < limit, "{takes} bytes, said to be {said}");
}
