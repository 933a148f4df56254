//! Files and texts from others: references, columns, pools, versions, names. None of them ends the reader or takes more memory
//! than its length accounts for.

use std::{collections::BTreeMap, path::PathBuf};

use archipelago_common::{
    Base, BlobRef, Columns, ConditionKey, Layout, Name, NodeId, Principal, Section, SiteId, StateDict, TaskId, Version,
    VersionId, check,
    layout::Rule,
    part::Member,
    policy::SitePolicy,
    pool::{Pool, TableSpec},
    tree::{self, Machines, counts},
};
use archipelago_fuzz::Fuzz;

/// References that an earlier version of this program wrote.
fn stored(name: &'static str, ending: &str) -> Fuzz {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/stored/references");
    Fuzz::new(name).with_files(folder, ending)
}

#[test]
fn any_bytes_are_a_reference_with_its_card_or_an_error() {
    stored("bases", "base.safetensors").run(5_000, |bytes| {
        if let Ok(base) = Base::from_bytes(bytes) {
            let again = base.to_bytes().expect("what was read can be written");
            assert_eq!(Base::from_bytes(&again).expect("what was written is read").card, base.card);
        }
    });
}

#[test]
fn any_bytes_are_tensors_or_an_error() {
    stored("tensors", ".safetensors").run(10_000, |bytes| {
        if let Ok((tensors, metadata)) = StateDict::from_safetensors("fuzz", bytes) {
            let again = tensors.to_safetensors(metadata.as_deref());
            assert_eq!(
                StateDict::from_safetensors("fuzz", &again).expect("what was written is read"),
                (tensors, metadata)
            );
        }
    });
}

#[test]
fn any_columns_are_checked_or_refused() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/stored/references/totalvi");
    let base = Base::from_bytes(&std::fs::read(folder.join("base.safetensors")).unwrap()).unwrap();
    let key: ConditionKey = "north/pbmc/a".parse().unwrap();
    Fuzz::new("columns").with_files(folder, ".safetensors").run(5_000, |bytes| {
        if let Ok(columns) = Columns::from_bytes(bytes)
            && check::columns(&key, &columns, &base.card.layout, 1_000.0).is_ok()
        {
            let is_finite = |(_, tensor): (_, &archipelago_common::Tensor)| tensor.numbers().all(f64::is_finite);
            assert!(columns.0.iter().all(is_finite), "columns that pass hold numbers");
        }
    });
}

#[test]
fn any_bytes_are_a_member_of_a_part_or_an_error() {
    let tables = BTreeMap::from([("n".to_owned(), TableSpec::counts(&[3]))]);
    let mut pool = Pool::new(tables.clone());
    for (entry, at) in [("T cell", 0), ("B cell", 2)] {
        pool.add(entry, "n", at, 3.0).unwrap();
    }
    let rules = [Rule::Union, Rule::Pool { tables }];
    stored("members", ".safetensors").with(pool.to_bytes()).run(10_000, |bytes| {
        let _ = Pool::from_bytes(bytes);
        for rule in &rules {
            if let Ok(member) = Member::from_bytes(rule, bytes) {
                let again = Member::from_bytes(rule, &member.to_bytes()).expect("what was written is read");
                assert_eq!(again.to_bytes(), member.to_bytes());
            }
        }
    });
}

#[test]
fn whatever_sites_hand_in_for_a_tree_is_refused_or_makes_one() {
    let mut layout = Layout::of_axes(Vec::new());
    tree::declare(&mut layout, tree::Sharing::Points);
    let north: ConditionKey = "north/pbmc/a".parse().unwrap();
    let of_machines = Section::Part(tree::MACHINES.parse().unwrap());
    let types = [("B".to_owned(), vec![0.5, -1.0]), ("T".to_owned(), vec![-0.5, 1.0])];
    let machines = Machines { place: 0, types: types.into(), components: None }.to_tensors().to_safetensors(None);
    let types = [("b".to_owned(), vec![0.5, -1.0])];
    let points = tree::Points { place: 1, n_dims: 2, types: types.into() }.to_tensors().to_safetensors(None);
    let by: BlobRef = BlobRef::of(&machines);
    let mut pool = counts::empty();
    pool.add(&counts::entry("b", Some("B")), counts::N, 0, 30.0).unwrap();
    pool.add(&counts::entry("odd", None), counts::N, 0, 9.0).unwrap();
    let counted = counts::key(&"south/pbmc/b".parse().unwrap(), tree::COUNTS, &by).unwrap();
    let keys = [
        north.in_section(of_machines.clone()),
        "south/pbmc/b".parse::<ConditionKey>().unwrap().in_section(of_machines),
        counted,
        "south/pbmc/b".parse::<ConditionKey>().unwrap().in_section(Section::Part(tree::POINTS.parse().unwrap())),
    ];
    let fuzz = Fuzz::new("trees").with(machines.clone()).with(points.clone()).with(pool.to_bytes());
    fuzz.run(3_000, |bytes| {
        let mut members = BTreeMap::new();
        for (key, own) in keys.iter().zip([&machines[..], &machines, &pool.to_bytes(), &points]) {
            // Each of them in turn is what somebody else sent, if that passes.
            let given = if check::part(key, bytes, &layout).is_ok() { bytes } else { own };
            let rule = layout.rule(key.section()).expect("its part is declared");
            members.insert(key.clone(), Member::from_bytes(rule, given).expect("what passes is read"));
        }
        let derived = tree::derive(&members).expect("members that pass make a tree");
        assert_eq!(tree::derive(&members).expect("and again"), derived);
    });
}

#[test]
fn any_text_is_a_version_or_a_policy_or_an_error() {
    let policy = serde_json::to_vec(&SitePolicy::default()).unwrap();
    stored("versions", "version.json").with(policy).run(10_000, |bytes| {
        if let Ok(version) = serde_json::from_slice::<Version>(bytes) {
            let _ = version.id();
        }
        let _ = serde_json::from_slice::<SitePolicy>(bytes);
    });
}

#[test]
fn any_text_is_a_name_or_an_error() {
    const GOOD: [&str; 6] =
        ["north/pbmc/10x_5p", "north/pbmc@donor/d-7", "s/d+models/T cell", "site/north", "coordinator/3", "42"];
    GOOD.iter().fold(Fuzz::new("names"), |fuzz, name| fuzz.with(*name)).run(5_000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(key) = text.parse::<ConditionKey>() {
            assert_eq!(key.to_string().parse::<ConditionKey>().expect("a key is read as it is shown"), key);
        }
        if let Ok(name) = text.parse::<Name>() {
            assert!(!name.as_str().contains(['/', '.', '\\']) || !name.as_str().starts_with('.'), "no path: {name}");
        }
        let _ = (text.parse::<Principal>(), text.parse::<SiteId>(), text.parse::<NodeId>(), text.parse::<TaskId>());
        let _ = text.parse::<VersionId>();
    });
}
