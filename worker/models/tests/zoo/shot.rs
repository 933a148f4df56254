//! Surgery without training, for every model whose conditions own something.

use std::collections::BTreeMap;

use archipelago_common::{Columns, ConditionKey, Section, TensorKind, progress::Silent};
use archipelago_models::{
    CellConditions, Device, Error, Extension, NoCheckpoints, Reference,
    surgery::{JointQuery, JointSurgery, Start, likeness, surgery_from},
    zoo,
};

use crate::{batch, cells, every_model_that_grows, key, reference, spec};

type Given = BTreeMap<ConditionKey, Columns>;

fn map(reference: &Reference, start: Start<'_>) -> Result<JointSurgery, Error> {
    let query = batch(3, 40);
    let query = JointQuery { conditions: CellConditions::single(key("q"), 40), cells: cells(&query) };
    let onto = (&reference.base, &Extension::default());
    surgery_from(start, onto, &query, &spec(1), Device::Cpu, &mut Silent, &mut NoCheckpoints)
}

/// What is computed from a condition's own cells, or said of them, is no part of what it takes over.
fn taken_over(reference: &Reference, columns: &Given) -> Columns {
    let axis = reference.base.card.layout.axis(&Section::Condition).unwrap();
    let is_trained = |name: &str| axis.kind(name) == TensorKind::Trained;
    let trained = columns[&key("q")].0.iter().filter(|(name, _)| is_trained(name));
    Columns(trained.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect())
}

#[test]
fn a_condition_takes_over_what_the_likest_one_owns_and_keeps_it_or_is_trained_from_there() {
    every_model_that_grows(|model| {
        let (reference, query, name) = (reference(model), batch(3, 40), model.card().name);
        let found = likeness(&reference, &cells(&query), 0, Device::Cpu).unwrap();
        assert!(found.losses.keys().eq(reference.columns.keys()), "{name}: {found:?}");
        assert!(found.losses.values().all(|loss| *loss >= found.losses[&found.nearest]), "{name}: {found:?}");
        let given = Given::from([(key("q"), reference.columns[&found.nearest].clone())]);
        let expected = taken_over(&reference, &given);

        let kept = map(&reference, Start::Untrained(&given)).unwrap();
        assert_eq!((kept.history.len(), taken_over(&reference, &kept.columns)), (0, expected.clone()), "{name}");
        let trained = map(&reference, Start::At(&given)).unwrap();
        let n_parts = |surgery: &JointSurgery| surgery.contributions[&key("q")].len();
        assert_eq!(n_parts(&kept), n_parts(&trained), "{name}: its cells contribute as those of any condition");
        assert_eq!((trained.history.len(), taken_over(&reference, &trained.initial)), (1, expected.clone()), "{name}");
        assert_ne!(taken_over(&reference, &trained.columns), expected, "{name}");
    });
}

#[test]
fn what_no_condition_can_be_taken_from_is_refused() {
    let scpoli = reference(zoo::model("scpoli").unwrap());
    assert!(matches!(map(&scpoli, Start::At(&Given::new())), Err(Error::UnknownCondition { .. })));
    let query = batch(3, 40);
    let refused = |reference: &Reference| likeness(reference, &cells(&query), 0, Device::Cpu).unwrap_err();
    let nobody = Reference { columns: Given::new(), ..scpoli };
    assert!(refused(&nobody).to_string().ends_with("the reference has no condition"));
    assert!(matches!(refused(&reference(zoo::model("scgen").unwrap())), Error::NoSurgery { .. }));
}
