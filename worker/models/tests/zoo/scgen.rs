//! What scGen answers, on a reference that was just trained.

use std::collections::BTreeMap;

use archipelago_common::{ConditionKey, Name, Section, part::Member, progress::Silent};
use archipelago_models::{
    Categorical, CellConditions, Config, Device, Error, Moments, NoCheckpoints, Reference, Result, Training,
    data::LABELS,
    model::Model as _,
    results::{Answer, Asked, Given, QuestionCard, Value},
    train::FurtherOptions,
    train_reference,
    zoo::scgen::{Scgen, label_means},
};
use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, s};

use super::{Batch, N_GENES, batch, cells, joined, key, spec, train};

fn question(name: &str) -> &'static QuestionCard {
    Scgen.questions().iter().find(|question| question.name == name).unwrap()
}

fn reference() -> Reference {
    let (a, b) = (batch(1, 60), batch(2, 40));
    train(&Scgen, &[("a", &a), ("b", &b)], &spec(2), &mut NoCheckpoints).unwrap().reference
}

/// The answer for cells of these batches, which the reference need not know.
fn ask(
    reference: &Reference,
    batches: &[(&str, &Batch)],
    question: &QuestionCard,
    given: Given,
) -> Result<Array2<f32>> {
    let all = joined(&batches.iter().map(|(_, batch)| *batch).collect::<Vec<_>>());
    let names: Vec<&str> = batches.iter().flat_map(|(name, batch)| vec![*name; batch.labels.len()]).collect();
    let of_name = |name: &str| -> archipelago_common::Result<ConditionKey> { Ok(key(name)) };
    let conditions = CellConditions::from_batches(&Categorical::from_values(&names), of_name).unwrap();
    let asked = Asked::new(reference, &cells(&all), &conditions, 7, Device::Cpu)?;
    match asked.answer(question.name, &given)? {
        Answer::Cells { columns, values } => {
            assert_eq!(values.dim(), (names.len(), columns.len()));
            Ok(values)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_site_maps_apart_as_it_maps_with_another() {
    let reference = reference();
    let (a, north, south) = (batch(1, 60), batch(3, 30), batch(4, 90));
    let question = question("remove-batch");
    // Codes are of the sorted names: `a` is the first in both.
    let given = || Given::defaults(question.arguments).with("anchor", Value::Conditions(vec![0]));
    let apart = ask(&reference, &[("a", &a), ("north", &north)], question, given()).unwrap();
    let together = ask(&reference, &[("a", &a), ("north", &north), ("south", &south)], question, given()).unwrap();
    assert_eq!(apart, together.slice(s![..90, ..]));
    let alone = ask(&reference, &[("a", &a)], question, Given::defaults(question.arguments)).unwrap();
    assert_eq!(alone, apart.slice(s![..60, ..]), "the anchor does not move");
    let largest = Given::defaults(question.arguments);
    let moved = ask(&reference, &[("a", &a), ("north", &north), ("south", &south)], question, largest).unwrap();
    assert_ne!(moved.slice(s![..60, ..]), alone, "upstream's anchor is the largest batch");
}

#[test]
fn upstreams_mapping_takes_the_statistics_of_the_cells_at_hand() {
    let reference = reference();
    let (a, north) = (batch(1, 60), batch(3, 30));
    let question = question("remove-batch");
    let asked = |flags: &[&'static str], batches: &[(&str, &Batch)]| {
        let given =
            flags.iter().fold(Given::defaults(question.arguments), |given, flag| given.with(flag, Value::Flag(true)));
        ask(&reference, batches, question, given)
    };
    let both = [("a", &a), ("north", &north)];
    let evaluated = asked(&[], &both).unwrap();
    let trained = asked(&["train_mode"], &both).unwrap();
    assert_ne!(trained, evaluated);
    assert_eq!(asked(&["train_mode"], &both).unwrap(), trained, "one seed, the same units dropped");
    assert_eq!(asked(&[], &both).unwrap(), evaluated, "the reference keeps its statistics");
    let alone = asked(&["train_mode"], &both[..1]).unwrap();
    assert_ne!(alone, trained.slice(s![..60, ..]), "whoever is mapped with them moves cells");
    for (flags, batches, word) in [
        (&["train_mode", "onto_reference"][..], &both[..], "nothing with `--onto-reference`"),
        (&["train_mode"], &[("north", &batch(3, 1))], "batch norm needs two"),
    ] {
        let refused = asked(flags, batches).unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
    }
}

fn mapped(reference: &Reference, batches: &[(&str, &Batch)]) -> Array2<f32> {
    let all = joined(&batches.iter().map(|(_, batch)| *batch).collect::<Vec<_>>());
    let names: Vec<&str> = batches.iter().flat_map(|(name, batch)| vec![*name; batch.labels.len()]).collect();
    let conditions = CellConditions::from_batches(&Categorical::from_values(&names), |name| Ok(key(name))).unwrap();
    reference.mapped(&cells(&all), &conditions, Moments::Mean, Device::Cpu).unwrap().mean
}

/// The mean of the cells of one type.
fn mean_of(latent: ArrayView2<'_, f32>, batch: &Batch, label: &str) -> Array1<f64> {
    let of_type: Vec<usize> = (0..batch.labels.len()).filter(|&cell| batch.labels[cell] == label).collect();
    latent.select(Axis(0), &of_type).mapv(f64::from).mean_axis(Axis(0)).unwrap()
}

#[test]
fn a_query_is_laid_onto_the_means_that_the_reference_holds() {
    let reference = reference();
    let held: Vec<String> = reference.parts.keys().map(ToString::to_string).collect();
    assert_eq!(held, ["site/data+label-means/a", "site/data+label-means/b"]);
    let (north, south) = (batch(3, 30), batch(4, 90));
    let apart = mapped(&reference, &[("north", &north)]);
    let together = mapped(&reference, &[("north", &north), ("south", &south)]);
    assert_eq!(apart, together.slice(s![..30, ..]), "a site maps apart as it maps with another");
    // The reference's larger batch stands still.
    let a = batch(1, 60);
    let of_reference = reference.latent(&cells(&a), &CellConditions::single(key("a"), 60), Device::Cpu).unwrap().mean;
    for label in ["type0", "type2"] {
        let apart = mean_of(apart.view(), &north, label) - mean_of(of_reference.view(), &a, label);
        assert!(apart.iter().all(|difference| difference.abs() < 1e-5), "{label}: {apart}");
    }
    // What sites hand in moves nobody.
    let mut grown = reference.clone();
    for (name, cells) in [("north", &north), ("south", &south)] {
        for contribution in super::map(&reference.base, name, cells, &spec(1)).unwrap().contributions {
            grown.parts.insert(key(name).in_section(Section::Part(contribution.part)), contribution.value);
        }
    }
    assert_eq!(grown.parts.len(), 4);
    assert_eq!(apart, mapped(&grown, &[("north", &north)]));
}

#[test]
fn what_sites_contribute_is_what_their_cells_add_up_to_in_one_place() {
    let reference = reference();
    let (north, south) = (batch(3, 30), batch(4, 90));
    let part: Name = label_means::PART.parse().unwrap();
    let mut grown = Reference { parts: BTreeMap::new(), ..reference.clone() };
    for (name, cells) in [("south", &south), ("north", &north)] {
        for contribution in super::map(&reference.base, name, cells, &spec(1)).unwrap().contributions {
            grown.parts.insert(key(name).in_section(Section::Part(contribution.part)), contribution.value);
        }
    }
    // In one place: the latent states of all cells, added up.
    let latent = |name: &str, batch: &Batch| {
        let conditions = CellConditions::single(key(name), batch.labels.len());
        reference.latent(&cells(batch), &conditions, Device::Cpu).unwrap().mean
    };
    let all = concatenate![Axis(0), latent("north", &north), latent("south", &south)];
    let labels = north.labels.iter().chain(&south.labels).map(|label| label.as_ref()).enumerate();
    let Member::Sums(whole) = label_means::contribution(all.view(), labels).unwrap().value else { unreachable!() };
    assert_eq!(grown.pooled(&part).unwrap().unwrap(), whole);
    // A withdrawal leaves no trace.
    grown.parts.remove(&key("south").in_section(Section::Part(part.clone())));
    let labels = north.labels.iter().map(|label| label.as_ref()).enumerate();
    let alone = label_means::contribution(latent("north", &north).view(), labels).unwrap().value;
    assert_eq!(&grown.pooled(&part).unwrap().unwrap(), alone.as_sums().unwrap());
}

#[test]
fn a_type_that_the_reference_lacks_stays_and_is_contributed() {
    let reference = reference();
    let mut north = batch(3, 30);
    north.labels.iter_mut().take(5).for_each(|label| "new".clone_into(label));
    let conditions = CellConditions::single(key("north"), 30);
    let (moved, still) = (
        mapped(&reference, &[("north", &north)]),
        reference.latent(&cells(&north), &conditions, Device::Cpu).unwrap().mean,
    );
    assert_eq!(moved.slice(s![..5, ..]), still.slice(s![..5, ..]));
    assert!((5..30).all(|cell| moved.row(cell) != still.row(cell)));
    let contributed = super::map(&reference.base, "north", &north, &spec(1)).unwrap().contributions;
    assert_eq!(contributed[0].cells["new"], [0, 1, 2, 3, 4]);
    let unlabelled = cells(&north).without(LABELS);
    let refused = reference.mapped(&unlabelled, &conditions, Moments::Mean, Device::Cpu).unwrap_err();
    assert!(matches!(&refused, Error::MissingField { name } if name == LABELS), "{refused}");
    assert!(reference.latent(&unlabelled, &conditions, Device::Cpu).is_ok(), "a place in the encoder needs no type");
}

#[test]
fn a_perturbation_without_effect_leaves_cells_as_they_are_decoded() {
    let reference = reference();
    let a = batch(1, 60);
    let predict = question("predict-perturbation");
    let told = |control: i64, stimulated: i64| {
        let given = Given::defaults(predict.arguments).with("control", Value::Conditions(vec![control]));
        given.with("stimulated", Value::Conditions(vec![stimulated]))
    };
    let batches = [("control", &a), ("stimulated", &batch(9, 50))];
    let predicted = ask(&reference, &batches, predict, told(0, 1)).unwrap();
    assert_eq!(predicted, ask(&reference, &batches, predict, told(0, 1)).unwrap(), "the seed decides");
    assert_ne!(predicted, ask(&reference, &batches, predict, told(1, 0)).unwrap());
    let nobody = Given::defaults(predict.arguments);
    let refused = ask(&reference, &batches, predict, nobody).unwrap_err();
    assert!(matches!(refused, Error::Argument { name: "control", .. }), "{refused}");
}

#[test]
fn cells_without_types_cannot_lose_their_batch() {
    let a = batch(1, 60);
    let names = vec!["a"; a.labels.len()];
    let conditions = CellConditions::from_batches(&Categorical::from_values(&names), |name| Ok(key(name))).unwrap();
    let cells = cells(&a).without(LABELS);
    let genes: Vec<String> = (0..N_GENES).map(|gene| format!("gene{gene}")).collect();
    let training = Training {
        model: &Scgen,
        options: &Config::new(),
        genes: &genes,
        cells: &cells,
        conditions: &conditions,
        batch_key: "batch",
        spec: &spec(1),
        further: &FurtherOptions::default(),
        compute: Device::Cpu.into(),
    };
    let reference = train_reference(&training, &mut Silent, &mut NoCheckpoints).unwrap().reference;
    let asked = Asked::new(&reference, &cells, &conditions, 7, Device::Cpu).unwrap();
    let question = question("remove-batch");
    let refused = asked.answer(question.name, &Given::defaults(question.arguments)).unwrap_err();
    assert!(matches!(&refused, Error::MissingField { name } if name == LABELS), "{refused}");
}
