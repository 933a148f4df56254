//! What scGen answers, on a reference that was just trained.

use archipelago_common::{ConditionKey, progress::Silent};
use archipelago_models::{
    Categorical, CellConditions, Config, Device, Error, NoCheckpoints, Reference, Result, Training,
    data::LABELS,
    model::Model as _,
    results::{Answer, Asked, Given, QuestionCard, Value},
    train::FurtherOptions,
    train_reference,
    zoo::scgen::Scgen,
};
use ndarray::{Array2, s};

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
