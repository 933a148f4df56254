//! What a consortium calls a site's batches, by real workers: ids that mean something at the site alone, or their names.

use std::{collections::BTreeMap, fs};

use archipelago_anndata::AnnData;
use archipelago_common::{BlobRef, condition::ConditionKey, reference_dir::ReferenceDir};
use serde_json::{Value, json};

use super::{
    Bench,
    coordinator::Coordinator,
    site::{authority, write_site},
};

const ONCE: [&str; 4] = ["serve", "--config", "site.toml", "--once"];

/// A site that offers batch `c` under ids or under its name, whichever `names` says.
fn set_up(names: &str) -> (Bench, Coordinator) {
    let bench = Bench::with_reference();
    let (authority, reference) = (authority(), ReferenceDir::open(&bench.path("reference")).unwrap());
    let coordinator = Coordinator::start(&authority, &reference, |_| {});
    write_site(&bench, &authority, "site/north", &coordinator.address);
    say(&bench, &format!("names = \"{names}\"\n"));
    (bench, coordinator)
}

/// Adds a line to `[data]`, the last section of the configuration.
fn say(bench: &Bench, line: &str) {
    let path = bench.path("site.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap() + line).unwrap();
}

fn names(bench: &Bench) -> BTreeMap<String, Value> {
    let shown = bench.run_json(&["names", "--config", "site.toml"]);
    serde_json::from_value(shown["keys"].clone()).unwrap()
}

/// What was handed in last: keys, and the columns of each.
fn handed_in(coordinator: &Coordinator) -> BTreeMap<ConditionKey, BlobRef> {
    let state = coordinator.state();
    let last = state.submissions.last().unwrap();
    last.conditions.iter().map(|(key, of_key)| (key.clone(), of_key.columns)).collect()
}

#[test]
fn what_leaves_has_ids_and_what_stays_has_the_names() {
    let (bench, coordinator) = set_up("opaque");
    let shown = bench.run_json(&["tasks", "--config", "site.toml"])[0].clone();
    let said = bench.run(&["tasks", "--config", "site.toml"]);
    bench.run(&ONCE);
    let left = handed_in(&coordinator);
    let [key] = &left.keys().collect::<Vec<_>>()[..] else { panic!("one batch leaves") };
    let (key, id) = (key.to_string(), key.batch().to_owned());
    assert_eq!(id.len(), 20, "{key}");
    assert_eq!(shown["data"][0]["cells"][0]["condition"], json!(key), "a person sees the key that leaves");
    assert!(said.contains(&format!("{key} (c), 40 cells")), "and what it stands for: {said}");

    assert_eq!(names(&bench), BTreeMap::from([(key.clone(), json!("north/pbmc/c"))]));
    let one = bench.run(&["names", "--config", "site.toml", "--key", &key]);
    assert_eq!(one.trim(), format!("{key}  c"));
    let unknown = bench.fail(1, &["names", "--config", "site.toml", "--key", "north/pbmc/0123"]);
    assert!(unknown.contains("`north/pbmc/0123` is no key of this site's batches"), "{unknown}");
    for (command, rest) in [("ledger", ["--config", "site.toml"].as_slice()), ("audit", &["state/audit.jsonl"])] {
        let said = bench.run(&[&[command], rest].concat());
        assert!(said.contains(&format!("{key} (c)")), "{said}");
    }

    let mapped = AnnData::read(bench.path("results/task-1/mapped.h5ad")).unwrap();
    let conditions = mapped.obs.column("archipelago_condition").unwrap().to_strings();
    assert!(conditions.iter().all(|condition| condition.as_deref() == Some("north/pbmc/c")), "{conditions:?}");
    for file in ["summary.json", "history.json"] {
        let text = fs::read_to_string(bench.path("results/task-1").join(file)).unwrap();
        assert!(text.contains("\"north/pbmc/c\"") && !text.contains(&id), "{file}: {text}");
    }
    for file in ["noise.key", "names.json"] {
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(bench.path("state").join(file)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o077, 0, "others can read `{file}`");
    }
}

#[test]
fn the_same_name_has_the_same_id_and_the_same_columns_as_long_as_the_secret_is_kept() {
    let (bench, coordinator) = set_up("opaque");
    bench.run(&ONCE);
    let first = handed_in(&coordinator);
    let secret = fs::read(bench.path("state/noise.key")).unwrap();
    let again = |secret: Option<&[u8]>| {
        fs::remove_dir_all(bench.path("state")).unwrap();
        fs::remove_dir_all(bench.path("results")).unwrap();
        if let Some(secret) = secret {
            fs::create_dir(bench.path("state")).unwrap();
            fs::write(bench.path("state/noise.key"), secret).unwrap();
        }
        coordinator.state().task.assignments.clear();
        bench.run(&ONCE);
        handed_in(&coordinator)
    };
    assert_eq!(again(Some(&secret)), first, "a site that is set up again from its backup");
    let other = again(None);
    let (key, columns) = first.first_key_value().unwrap();
    let (other_key, other_columns) = other.first_key_value().unwrap();
    assert!(
        key != other_key && columns != other_columns,
        "another secret makes another key, and columns are of the key"
    );
}

#[test]
fn a_site_that_chooses_ids_later_keeps_the_keys_of_what_has_left() {
    let (bench, coordinator) = set_up("readable");
    bench.run(&ONCE);
    assert_eq!(handed_in(&coordinator).keys().map(ToString::to_string).collect::<Vec<_>>(), ["north/pbmc/c"]);
    let config = fs::read_to_string(bench.path("site.toml")).unwrap();
    let config = config.replace("\"readable\"", "\"opaque\"").replace("[\"c\"]", "[\"a\", \"c\"]");
    fs::write(bench.path("site.toml"), config).unwrap();
    let keys = names(&bench);
    assert_eq!(keys.get("north/pbmc/c"), Some(&json!("north/pbmc/c")), "it is known under its name for ever: {keys:?}");
    let others: Vec<_> = keys.iter().filter(|(key, _)| *key != "north/pbmc/c").collect();
    let [(key, name)] = &others[..] else { panic!("two batches have a key each: {keys:?}") };
    assert_eq!(*name, &json!("north/pbmc/a"));
    assert_eq!(key.rsplit('/').next().unwrap().len(), 20, "{key}");
}

#[test]
fn what_is_no_choice_is_refused_in_words() {
    let (bench, _coordinator) = set_up("hidden");
    let said = bench.fail(2, &ONCE);
    assert!(
        said.contains("site.toml") && said.contains("`hidden`") && said.contains("`readable` or `opaque`"),
        "{said}"
    );
}
