//! What holds of every model that takes several condition keys.

use std::collections::BTreeMap;

use archipelago_anndata::Csr;
use archipelago_common::{
    Base, BlobRef, Columns, ConditionKey, Layout, SiteId, Version, check,
    condition::{merge, withdraw},
    progress::Silent,
    task::{ColumnInit, TrainSpec},
};
use serde_json::json;

use super::NAME;
use crate::{
    Categorical, CellConditions, Cells, Compute, Config, Device, Error, Latent, NoCheckpoints, Reference, Result,
    Training,
    data::CellNames,
    surgery::{JointQuery, JointSurgery, Placement, UpstreamSurgery, joint_surgery, upstream::Flags, upstream_surgery},
    train::FurtherOptions,
    train_reference, zoo,
};

const N_GENES: usize = 6;

/// Cells of donors and tissues, ten of each pair.
struct Sample {
    counts: Csr,
    names: CellNames,
}

impl Sample {
    fn of(pairs: &[(&str, &str)]) -> Self {
        let per_cell: Vec<_> = pairs.iter().flat_map(|pair| std::iter::repeat_n(*pair, 10)).collect();
        let count = |cell: usize, gene: usize| {
            let (donor, tissue) = per_cell[cell];
            let effect = donor.len() + usize::from(tissue.as_bytes()[0] % 5) + gene;
            ((cell * 7 + gene * 3) % 4 + effect % 3) as f32
        };
        let dense: Vec<f32> = (0..per_cell.len())
            .flat_map(|cell| (0..N_GENES).map(move |gene| (cell, gene)))
            .map(|(c, g)| count(c, g))
            .collect();
        let column = |of: &dyn Fn(&(&str, &str)) -> String| {
            Categorical::from_values(&per_cell.iter().map(of).collect::<Vec<_>>())
        };
        let names = CellNames {
            batch: column(&|(donor, tissue)| format!("{donor}_{tissue}")),
            axes: vec![
                ("donor".parse().unwrap(), column(&|(donor, _)| (*donor).to_owned())),
                ("tissue".parse().unwrap(), column(&|(_, tissue)| (*tissue).to_owned())),
            ],
        };
        Self { counts: Csr::from_dense(per_cell.len(), N_GENES, &dense).unwrap(), names }
    }

    fn cells(&self) -> Cells<'_> {
        Cells::new(&self.counts).found_at("donor", "obs/Donor").found_at("tissue", "obs/tissue")
    }

    fn at(&self, site: &str, layout: &Layout) -> CellConditions {
        self.names.of_query(&site.parse().unwrap(), &"cells".parse().unwrap(), layout).unwrap()
    }

    fn map(&self, site: &str, base: &Base) -> JointSurgery {
        let conditions = self.at(site, &base.card.layout);
        let query = JointQuery { conditions, cells: self.cells() };
        joint_surgery(base, &query, &spec(), Device::Cpu, &mut Silent, &mut NoCheckpoints).unwrap()
    }

    fn latent(&self, site: &str, reference: &Reference) -> Result<Latent> {
        reference.latent(&self.cells(), &self.at(site, &reference.base.card.layout), Device::Cpu)
    }
}

fn spec() -> TrainSpec {
    TrainSpec { epochs: Some(4), minibatch: Some(8), init: ColumnInit::Mean, ..TrainSpec::default() }
}

fn key(text: &str) -> ConditionKey {
    text.parse().unwrap()
}

fn options(common: &[&str]) -> Config {
    let keys = ["donor", "tissue"];
    [("condition_keys", json!(keys)), ("common_condition_keys", json!(common))].map(|(n, v)| (n.to_owned(), v)).into()
}

fn train(options: &Config) -> Result<Reference> {
    let sample = Sample::of(&[("a", "blood"), ("a", "lung"), ("bb", "lung")]);
    let conditions = sample.names.of_reference(&"r".parse().unwrap(), &"atlas".parse().unwrap())?;
    let genes: Vec<String> = (0..N_GENES).map(|gene| format!("g{gene}")).collect();
    let training = Training {
        model: zoo::model(NAME)?,
        options,
        genes: &genes,
        cells: &sample.cells(),
        conditions: &conditions,
        batch_key: "donor_tissue",
        spec: &spec(),
        further: &FurtherOptions::default(),
        compute: Compute::from(Device::Cpu),
    };
    Ok(train_reference(&training, &mut Silent, &mut NoCheckpoints)?.reference)
}

fn reference() -> Reference {
    train(&options(&["tissue"])).unwrap()
}

fn texts<'a>(keys: impl Iterator<Item = &'a ConditionKey>) -> Vec<String> {
    keys.map(ToString::to_string).collect()
}

#[test]
fn a_reference_has_a_key_for_every_name_of_every_axis_and_its_card_says_which_are_shared() {
    let reference = reference();
    let expected = [
        "r/atlas/a_blood",
        "r/atlas/a_lung",
        "r/atlas/bb_lung",
        "r/atlas@donor/a",
        "r/atlas@donor/bb",
        "r/atlas@tissue/blood",
        "r/atlas@tissue/lung",
    ];
    assert_eq!(texts(reference.columns.keys()), expected);
    let layout = &reference.base.card.layout;
    layout.check().unwrap();
    let shared: Vec<Vec<String>> = layout.axes.iter().map(|axis| texts(axis.shared.iter())).collect();
    assert_eq!(shared, [vec![], vec![], vec!["r/atlas@tissue/blood".to_owned(), "r/atlas@tissue/lung".to_owned()]]);
    let kept = Reference::of_base(reference.base.clone()).unwrap().columns;
    assert_eq!(texts(kept.keys()), shared[2], "the base keeps what is shared and nothing of a donor");
    for (key, columns) in &kept {
        assert_eq!(columns, &reference.columns[key], "{key}");
    }
    for (key, columns) in &reference.columns {
        check::columns(key, columns, layout, 1_000.0).unwrap();
    }
    let base = Base::from_bytes(&reference.base.to_bytes().unwrap()).unwrap();
    assert_eq!((&base.card.layout, &base.tensors), (layout, &reference.base.tensors));
}

#[test]
fn a_query_trains_its_own_names_and_the_references_stay_as_they_are() {
    let base = reference().base;
    let sample = Sample::of(&[("x", "lung"), ("x", "spleen")]);
    let mapped = sample.map("berlin", &base);
    let own = ["berlin/cells/x_lung", "berlin/cells/x_spleen", "berlin/cells@donor/x", "berlin/cells@tissue/spleen"];
    assert_eq!(texts(mapped.columns.keys()), own);
    assert_eq!(texts(mapped.fit.keys()), own[..2], "conditions have figures, and names of one axis have none");
    for (key, columns) in &mapped.columns {
        check::columns(key, columns, &base.card.layout, 1_000.0).unwrap();
        assert_ne!(*columns, mapped.initial[key], "{key}");
    }
    assert_eq!(sample.map("berlin", &base).columns, mapped.columns, "a repetition gives the same bits");
    assert_ne!(sample.map("oslo", &base).columns[&key("oslo/cells@donor/x")], mapped.columns[&key(own[2])]);
}

#[test]
fn what_a_shared_name_is_to_the_reference_moves_a_querys_cells() {
    let reference = reference();
    let sample = Sample::of(&[("x", "lung")]);
    let mapped = sample.map("berlin", &reference.base);
    let seen = |base: Base| {
        let mut grown = Reference::of_base(base).unwrap();
        grown.columns.extend(mapped.columns.clone());
        sample.latent("berlin", &grown).unwrap()
    };
    let as_it_is = seen(reference.base.clone());
    let mut other = reference.base.clone();
    let rows = archipelago_common::Tensor::from_f32(&[2, 2], &[0.0; 4]);
    other.tensors.insert("embeddings.1.shared", rows);
    assert_ne!(seen(other.clone()).mean, as_it_is.mean);
    assert_ne!(sample.map("berlin", &other).columns, mapped.columns);
}

#[test]
fn two_sites_that_bring_the_same_name_have_a_key_each_and_neither_moves_the_other() {
    let reference = reference();
    let (here, there) = (Sample::of(&[("x", "spleen")]), Sample::of(&[("y", "spleen"), ("y", "blood")]));
    let (one, two) = (here.map("berlin", &reference.base), there.map("oslo", &reference.base));
    let both = merge(&one.columns, &two.columns).unwrap();
    assert!(
        both.contains_key(&key("berlin/cells@tissue/spleen")) && both.contains_key(&key("oslo/cells@tissue/spleen"))
    );
    let grown = |columns: &BTreeMap<_, _>| Reference {
        columns: merge(&reference.columns, columns).unwrap(),
        ..reference.clone()
    };
    let alone = here.latent("berlin", &grown(&one.columns)).unwrap();
    assert_eq!(here.latent("berlin", &grown(&both)).unwrap(), alone);
    let id = |columns: &BTreeMap<ConditionKey, Columns>| {
        let blobs = columns.iter().map(|(key, columns)| (key.clone(), BlobRef::of(&columns.to_bytes())));
        Version { base: BlobRef::of(&reference.base.to_bytes().unwrap()), columns: blobs.collect() }.id()
    };
    assert_eq!(id(&merge(&two.columns, &one.columns).unwrap()), id(&both));
    assert_eq!(id(&withdraw(&both, two.columns.keys()).unwrap()), id(&one.columns));
}

#[test]
fn without_names_in_common_every_name_is_new() {
    let reference = train(&options(&[])).unwrap();
    let conditions = Sample::of(&[("a", "lung")]).at("berlin", &reference.base.card.layout);
    assert_eq!(
        texts(conditions.all_keys().iter()),
        ["berlin/cells/a_lung", "berlin/cells@donor/a", "berlin/cells@tissue/lung"]
    );
    assert!(!reference.base.tensors.iter().any(|(name, _)| name.ends_with(".shared")));
}

#[test]
fn all_names_may_be_shared_but_those_of_the_conditions() {
    let base = train(&options(&["donor", "tissue"])).unwrap().base;
    let mapped = Sample::of(&[("bb", "blood")]).map("berlin", &base);
    assert_eq!(texts(mapped.columns.keys()), ["berlin/cells/bb_blood"], "a pair that the reference never saw");
}

#[test]
fn cells_without_a_key_or_with_one_too_many_are_refused() {
    let reference = reference();
    let sample = Sample::of(&[("x", "lung")]);
    let (site, dataset): (SiteId, _) = ("berlin".parse().unwrap(), "cells".parse().unwrap());
    let refused = |axes: &[usize]| {
        let axes = axes.iter().map(|&axis| sample.names.axes[axis].clone()).collect();
        let names = CellNames { batch: sample.names.batch.clone(), axes };
        let conditions = names.of_query(&site, &dataset, &reference.base.card.layout).unwrap();
        let query = JointQuery { conditions, cells: sample.cells() };
        joint_surgery(&reference.base, &query, &spec(), Device::Cpu, &mut Silent, &mut NoCheckpoints)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(&[0]), "the model takes `tissue`, which the data lack");
    assert_eq!(refused(&[1]), "the model takes `donor`, which the data lack");
    assert_eq!(
        refused(&[1, 0]),
        "the cells have keys on axis `tissue`, axis `donor`, expected axis `donor`, axis `tissue`"
    );
    let scvi = [("n_hidden", json!(4))].map(|(n, v)| (n.to_owned(), v)).into();
    let error = train(&scvi).unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error}");
}

#[test]
fn a_key_in_common_is_one_of_the_keys() {
    let error = train(&options(&["assay"])).unwrap_err().to_string();
    assert!(error.contains("`common_condition_keys` names `assay`"), "{error}");
}

#[test]
fn upstreams_surgery_grows_every_table_and_its_base_shares_what_it_has_learnt() {
    let reference = reference();
    let sample = Sample::of(&[("x", "lung"), ("x", "spleen")]);
    let conditions = sample.at("berlin", &reference.base.card.layout);
    for placement in [Placement::OwnBlock, Placement::End] {
        let ask = UpstreamSurgery {
            extension: &crate::Extension::default(),
            cells: &sample.cells(),
            conditions: &conditions,
            spec: &spec(),
            flags: Flags { unfrozen: true, ..Flags::default() },
            placement,
            device: Device::Cpu,
        };
        let grown = upstream_surgery(&reference, &ask, &mut Silent, &mut NoCheckpoints).unwrap().reference;
        assert_eq!(grown.columns.len(), reference.columns.len() + 4);
        let shared = texts(grown.base.card.layout.axes[2].shared.iter());
        assert_eq!(shared, ["r/atlas@tissue/blood", "r/atlas@tissue/lung", "berlin/cells@tissue/spleen"]);
        sample.latent("berlin", &grown).unwrap();
    }
}
