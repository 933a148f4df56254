//! What a reference's card says of what its keys own.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{
    BaseCard, Layout, Section, TensorKind, check, layout::Growth, progress::Silent, reference_dir::ReferenceDir,
};
use archipelago_models::{
    CellConditions, Config, Device, NoCheckpoints, Reference, layout_of,
    nn::Role,
    surgery::{JointQuery, joint_surgery},
    zoo::totalvi::PROTEINS,
};

use super::{batch, cells, every_model, every_model_that_grows, joined, key, map, reference, spec};

#[test]
fn the_card_says_what_conditions_own_and_what_each_tensor_is() {
    every_model(|model| {
        let reference = reference(model);
        let layout = &reference.base.card.layout;
        layout.check().unwrap();
        assert_eq!(reference.base.card.format, layout.card_format());
        assert_eq!(layout_of(&reference.base).unwrap(), *layout);
        for (key, columns) in &reference.columns {
            let axis = layout.axis(key.section()).unwrap();
            assert!(columns.0.iter().map(|(name, _)| name).eq(axis.tensors.keys()), "{}", model.card().name);
            assert_eq!(check::not_a_fact(columns, axis), None, "{}", model.card().name);
        }
        let trains = layout.axes.iter().any(|axis| axis.of_kind(TensorKind::Trained).next().is_some());
        assert_eq!(trains, layout.growth == Growth::Surgery, "{}", model.card().name);
    });
}

#[test]
fn what_a_site_keeps_for_itself_is_in_no_columns_and_in_no_base() {
    every_model(|model| {
        let reference = reference(model);
        let module = reference.module(&[key("a")], Device::Cpu).unwrap();
        let leaves: BTreeSet<&str> = (reference.base.tensors.iter().map(|(name, _)| name))
            .chain(reference.columns.values().flat_map(|columns| columns.0.iter().map(|(name, _)| name)))
            .chain(reference.base.card.layout.axes.iter().flat_map(|axis| axis.tensors.keys().map(String::as_str)))
            .collect();
        let local = module.weights().iter().filter(|(_, weight)| weight.role == Role::Local);
        for (name, _) in local {
            assert!(!leaves.contains(name), "`{name}` of {} leaves the site", model.card().name);
        }
    });
}

#[test]
fn one_key_mapped_as_a_joint_query_is_the_key_mapped_alone() {
    every_model_that_grows(|model| {
        let (reference, query) = (reference(model), batch(3, 40));
        let alone = map(&reference.base, "q", &query, &spec(3)).unwrap();
        let conditions = CellConditions::single(key("q"), 40);
        let joint = JointQuery { conditions, cells: cells(&query) };
        let joint =
            joint_surgery(&reference.base, &joint, &spec(3), Device::Cpu, &mut Silent, &mut NoCheckpoints).unwrap();
        assert_eq!(joint.columns, BTreeMap::from([(key("q"), alone.columns)]), "{}", model.card().name);
        assert_eq!(
            (joint.history.len(), joint.fit[&key("q")].clone(), joint.frozen),
            (3, alone.fit, alone.frozen_after)
        );
    });
}

#[test]
fn keys_that_are_mapped_together_each_get_columns_and_nothing_else_moves() {
    every_model_that_grows(|model| {
        let reference = reference(model);
        let (x, y) = (batch(3, 40), batch(4, 30));
        let both = joined(&[&x, &y]);
        let per_cell: Vec<_> = (0..70).map(|cell| key(if cell < 40 { "x" } else { "y" })).collect();
        let query = JointQuery { conditions: CellConditions::from_keys(&per_cell), cells: cells(&both) };
        let joint =
            joint_surgery(&reference.base, &query, &spec(3), Device::Cpu, &mut Silent, &mut NoCheckpoints).unwrap();
        assert_eq!(joint.columns.keys().cloned().collect::<Vec<_>>(), [key("x"), key("y")]);
        for (key, columns) in &joint.columns {
            check::columns(key, columns, &reference.base.card.layout, 1_000.0).unwrap();
            assert_ne!(*columns, joint.initial[key], "{}", model.card().name);
        }
        assert_eq!(joint.frozen, map(&reference.base, "x", &x, &spec(1)).unwrap().frozen_before);
    });
}

#[test]
fn a_card_from_before_there_were_kinds_still_tells_facts_from_weights() {
    every_model(|model| {
        let reference = reference(model);
        let mut earlier = reference.base.clone();
        earlier.card.layout = Layout::plain(reference.base.card.layout.columns());
        earlier.card.format = BaseCard::PLAIN_FORMAT;
        assert_eq!(layout_of(&earlier).unwrap(), reference.base.card.layout, "{}", model.card().name);
    });
}

#[test]
fn measured_proteins_are_facts() {
    every_model(|model| {
        let layout = reference(model).base.card.layout;
        let facts: Vec<_> = layout.axis(&Section::Condition).unwrap().of_kind(TensorKind::Fact).collect();
        let takes_proteins =
            model.configure(&Config::new()).unwrap().fields().iter().any(|field| field.name == PROTEINS);
        assert_eq!(!facts.is_empty(), takes_proteins, "{}: {facts:?}", model.card().name);
    });
}

#[test]
fn references_that_an_earlier_version_wrote_know_their_facts_and_still_embed_cells() {
    let stored = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/stored/references");
    for (name, facts, statistics) in [
        ("scvi", &[][..], &[][..]),
        ("scvi-encoded", &[], &["library_log_means.condition", "library_log_vars.condition"]),
        ("scanvi", &[], &[]),
        ("totalvi", &["protein_measured.condition"], &[]),
    ] {
        let dir = ReferenceDir::open(&stored.join(name)).unwrap();
        let reference = Reference {
            base: dir.base().unwrap(),
            columns: dir.columns().unwrap(),
            parts: BTreeMap::new(),
            local: BTreeMap::new(),
        };
        let layout = layout_of(&reference.base).unwrap();
        let axis = layout.axis(&Section::Condition).unwrap();
        assert!(axis.of_kind(TensorKind::Fact).eq(facts.iter().copied()), "{name}: {axis:?}");
        assert!(axis.of_kind(TensorKind::Statistic).eq(statistics.iter().copied()), "{name}: {axis:?}");
        for (key, columns) in &reference.columns {
            check::columns(key, columns, &layout, 1_000.0).unwrap();
        }
        let keys: Vec<_> = reference.columns.keys().cloned().collect();
        reference.module(&keys, Device::Cpu).unwrap();
    }
}
