//! New terms that sites contribute to a version of expiMap: where they stand, and whose cells they change.

use std::collections::BTreeMap;

use archipelago_anndata::Csr;
use archipelago_common::{
    Name, Section, StateDict, Tensor,
    part::{Contribution, Member},
    progress::Silent,
};
use archipelago_models::{
    CellConditions, Compute, Config, Device, Engine, Extension, NoCheckpoints, Reference,
    data::GeneSets,
    results::{Answer, Asked, Given},
    surgery::{JointQuery, extended_surgery},
    zoo::expimap::Expimap,
};
use ndarray::{Array2, s};
use serde_json::json;

use super::{Batch, N_GENES, batch, cells, key, reference, spec};

/// The columns of a site's condition, what it kept, and what it can contribute.
struct Mapped {
    reference: Reference,
    local: StateDict,
    contribution: Option<Contribution>,
}

/// Terms without a set, and terms with sets of two genes each, in this order.
fn adding(n_ext: usize, names: &[&str]) -> Extension {
    let members = (0..names.len() as u32).map(|at| vec![2 * at, 2 * at + 1]).collect();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let gene_sets = (!names.is_empty()).then(|| GeneSets::new(names, members, N_GENES).unwrap());
    Extension { options: Config::from([("n_ext".to_owned(), json!(n_ext))]), gene_sets }
}

fn map(onto: &Reference, site: &str, batch: &Batch, extension: &Extension) -> Mapped {
    let conditions = CellConditions::single(key(site), batch.labels.len());
    let query = JointQuery { conditions, cells: cells(batch) };
    let none = &mut NoCheckpoints;
    let mut surgery =
        extended_surgery(&onto.base, extension, &query, &spec(3), Device::Cpu, &mut Silent, none).unwrap();
    Mapped {
        reference: onto.with(key(site), surgery.columns.remove(&key(site)).unwrap()).unwrap(),
        contribution: surgery.contributions.remove(&key(site)).unwrap().pop(),
        local: surgery.local,
    }
}

fn part() -> Name {
    "terms".parse().unwrap()
}

/// New terms go through libtorch: to compare bits, all others do too.
const LIBTORCH: Compute = Compute { device: Device::Cpu, engine: Engine::Autograd };

/// A version with what was contributed by a site.
fn with(mut version: Reference, site: &str, mapped: &Mapped) -> Reference {
    let contribution = mapped.contribution.clone().unwrap();
    assert_eq!(contribution.part, part());
    version.parts.insert(key(site).in_section(Section::Part(part())), contribution.value);
    version
}

fn latent(reference: &Reference, site: &str, batch: &Batch) -> Array2<f32> {
    let conditions = CellConditions::single(key(site), batch.labels.len());
    reference.latent(&cells(batch), &conditions, LIBTORCH).unwrap().mean
}

fn elbo(reference: &Reference, site: &str, batch: &Batch) -> f64 {
    let conditions = CellConditions::single(key(site), batch.labels.len());
    reference.evaluate(&cells(batch), &conditions, 5, LIBTORCH).unwrap().elbo()
}

fn names(reference: &Reference) -> Vec<String> {
    let nothing = Csr::zeros(0, N_GENES);
    let asked = Asked::without_cells(reference, &nothing, 0, Device::Cpu).unwrap();
    match asked.answer("terms", &Given::defaults(&[])).unwrap() {
        Answer::Table { rows, .. } => rows,
        other => panic!("{other:?}"),
    }
}

/// North adds terms and contributes them, south adds none.
struct World {
    north_cells: Batch,
    south_cells: Batch,
    north: Mapped,
    without: Reference,
    with: Reference,
}

fn world() -> World {
    let (reference, north_cells, south_cells) = (reference(&Expimap), batch(3, 40), batch(4, 50));
    let north = map(&reference, "north", &north_cells, &adding(2, &["ZED", "ALPHA"]));
    let without = map(&north.reference, "south", &south_cells, &Extension::default()).reference;
    let with = with(without.clone(), "north", &north);
    World { north_cells, south_cells, north, without, with }
}

#[test]
fn a_term_that_a_site_contributes_leaves_cells_of_others_as_they_were() {
    let World { south_cells, north, without, with, .. } = world();
    let (before, after) = (latent(&without, "south", &south_cells), latent(&with, "south", &south_cells));
    assert_eq!((before.ncols(), after.ncols()), (4, 8), "the latent space grows");
    assert_eq!(before, after.slice(s![.., ..4]), "not by one bit");
    assert_eq!(elbo(&without, "south", &south_cells).to_bits(), elbo(&with, "south", &south_cells).to_bits());
    // It is the rule that keeps them: with the terms in their decoder they would be described otherwise.
    let mut acting = without.clone();
    acting.local.insert(key("south"), north.local);
    assert!((elbo(&without, "south", &south_cells) - elbo(&acting, "south", &south_cells)).abs() > 1e-3);
    assert!(after.slice(s![.., 4..]).iter().any(|z| z.abs() > 1e-3), "cells can be placed on terms of others");
}

#[test]
fn cells_of_the_site_itself_are_described_with_its_terms() {
    let World { north_cells, north, without, with, .. } = world();
    let mut at_home = without.clone();
    at_home.local.insert(key("north"), north.local);
    assert_eq!(latent(&at_home, "north", &north_cells), latent(&with, "north", &north_cells), "to the bit");
    let (home, version) = (elbo(&at_home, "north", &north_cells), elbo(&with, "north", &north_cells));
    let lost = elbo(&without, "north", &north_cells);
    // The draws of the latent state differ, and nothing else.
    assert!((home - version).abs() < 0.2 * (home - lost).abs(), "{home} at home, {version} here, {lost} without");
}

#[test]
fn terms_of_sites_stand_beside_each_other_in_one_order_until_they_are_taken_out() {
    let (reference, north_cells, south_cells) = (reference(&Expimap), batch(3, 40), batch(4, 50));
    let north = map(&reference, "north", &north_cells, &adding(2, &["ZED", "ALPHA"]));
    let south = map(&reference, "south", &south_cells, &adding(1, &[]));
    let both = |first: (&str, &Mapped), second: (&str, &Mapped)| {
        let mut version = reference.clone();
        for (site, mapped) in [first, second] {
            version.columns.insert(key(site), mapped.reference.columns[&key(site)].clone());
            version = with(version, site, mapped);
        }
        version
    };
    let (one, other) = (both(("north", &north), ("south", &south)), both(("south", &south), ("north", &north)));
    assert_eq!(one, other);
    let of =
        |site: &str, names: &[&str]| names.iter().map(|name| format!("{name} of {}", key(site))).collect::<Vec<_>>();
    let expected = ["TYPE_0", "TYPE_1", "TYPE_2", "EVEN"].map(str::to_owned).to_vec();
    let of_north = of("north", &["ZED", "ALPHA", "unconstrained_0", "unconstrained_1"]);
    let of_south = of("south", &["unconstrained_0"]);
    assert_eq!(names(&one), [expected.clone(), of_north, of_south.clone()].concat());
    for (site, batch) in [("north", &north_cells), ("south", &south_cells)] {
        assert_eq!(latent(&one, site, batch), latent(&other, site, batch));
    }
    let mut less = one.clone();
    less.parts.remove(&key("north").in_section(Section::Part(part())));
    assert_eq!(names(&less), [expected, of_south].concat());
    let (all, left) = (latent(&one, "south", &south_cells), latent(&less, "south", &south_cells));
    assert_eq!((all.slice(s![.., ..4]), all.slice(s![.., 8..])), (left.slice(s![.., ..4]), left.slice(s![.., 4..])));
    assert_eq!(elbo(&one, "south", &south_cells).to_bits(), elbo(&less, "south", &south_cells).to_bits());
}

#[test]
fn terms_keep_their_names_and_sets_in_the_order_of_the_file_and_may_share_a_name() {
    let (reference, cells) = (reference(&Expimap), batch(3, 40));
    let mapped = map(&reference, "north", &cells, &adding(0, &["ZED", "ALPHA", "ZED"]));
    let mut at_home = mapped.reference.clone();
    at_home.local.insert(key("north"), mapped.local.clone());
    assert_eq!(names(&at_home)[4..], ["ZED", "ALPHA", "ZED"]);
    let with_sets = mapped.local.get("own.decoder.L0.ext_L_m.weight").unwrap().to_f32("weights").unwrap();
    let has_weight = |gene: usize, term: usize| with_sets[3 * gene + term] != 0.0;
    for term in 0..3 {
        let genes: Vec<usize> = (0..N_GENES).filter(|&gene| has_weight(gene, term)).collect();
        assert_eq!(genes, [2 * term, 2 * term + 1], "of term {term}");
    }
}

#[test]
fn cells_behind_terms_are_all_that_they_were_trained_on_and_a_site_without_terms_contributes_nothing() {
    let World { north, without, south_cells, .. } = world();
    assert_eq!(north.contribution.unwrap().cells, BTreeMap::from([(String::new(), (0..40).collect())]));
    let onto = Reference { columns: BTreeMap::new(), ..without };
    assert!(map(&onto, "south", &south_cells, &Extension::default()).contribution.is_none());
}

#[test]
fn what_is_no_term_is_refused_with_the_words_whose_it_is() {
    let World { south_cells, north, with, .. } = world();
    let refused = |change: &dyn Fn(&mut StateDict)| {
        let mut version = with.clone();
        let mut tensors = north.local.clone();
        change(&mut tensors);
        version.parts.insert(key("north").in_section(Section::Part(part())), Member::Tensors(tensors));
        let conditions = CellConditions::single(key("south"), south_cells.labels.len());
        let error = version.latent(&cells(&south_cells), &conditions, Device::Cpu).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("--site site")), "{:?}", error.hint());
        error.to_string()
    };
    let zeros = |shape: &[usize]| Tensor::from_f32(shape, &vec![0.0; shape.iter().product()]);
    let without = |tensors: &StateDict, name: &str| -> StateDict {
        tensors
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(name, tensor)| (name.to_owned(), tensor.clone()))
            .collect()
    };
    let head = "own.encoder.expand_mean_encoder.weight";
    type Change<'a> = &'a dyn Fn(&mut StateDict);
    let cases: [(Change<'_>, &str); 7] = [
        (&|all| *all = StateDict::new(), "it holds no term"),
        (&|all| *all = without(all, head), "`encoder.expand_mean_encoder.weight` is missing"),
        (&|all| drop(all.insert(head, zeros(&[4, 7]))), "`own.encoder.expand_mean_encoder.weight` is F32[4, 7]"),
        (&|all| drop(all.insert("own.gene_set/x/ZED", zeros(&[N_GENES]))), "no place among the terms"),
        (&|all| drop(all.insert("own.gene_set/0/ZED", zeros(&[3]))), "genes, and others of more"),
        (&|all| drop(all.insert("own.decoder.L0.ext_L.weight", zeros(&[3, 2]))), "ext_L.weight"),
        (&|all| drop(all.insert("own.decoder.L0.ext_L.weight", zeros(&[3]))), "1 dimensions"),
    ];
    for (change, words) in cases {
        let said = refused(change);
        assert!(said.contains("`site/data/north`") && said.contains(words) && !said.contains('\n'), "{said}");
    }
}
