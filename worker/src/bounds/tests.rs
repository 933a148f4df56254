//! What the default bounds let pass, and that each of them is held.

use std::{collections::BTreeSet, path::Path};

use archipelago_common::{
    Section,
    hash::Digest,
    id::VersionId,
    layout::{Owned, TensorKind},
    state_dict::{DType, TensorSpec},
    task::{EarlyStopping, Stopping, TrainSpec},
};

use super::*;

fn stored(name: &str) -> Base {
    let references = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/stored/references");
    Base::from_bytes(&std::fs::read(references.join(name).join("base.safetensors")).unwrap()).unwrap()
}

fn task(train: TrainSpec) -> SurgeryTask {
    SurgeryTask::new("lung".parse().unwrap(), VersionId(Digest::of(b"version")), train)
}

fn bound_of(checked: Result<()>) -> Option<Bound> {
    match checked {
        Ok(()) => None,
        Err(Error::Declined { bound, .. }) => Some(bound),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn stored_references_pass_and_every_model_as_its_authors_made_it() {
    let bounds = TaskBounds::default();
    for name in ["scvi", "scvi-encoded", "scanvi", "totalvi"] {
        check_reference(&bounds, &stored(name)).unwrap();
    }
    let mut card = stored("scvi").card;
    card.genes = (0..300).map(|gene| format!("g{gene}")).collect();
    for model in zoo::ZOO {
        card.model = model.card().name.to_owned();
        card.config = model.options().into_iter().map(|option| (option.name.to_owned(), option.default)).collect();
        let widest = widest(&card, |size| size != Size::Nothing).unwrap();
        assert!(widest.is_some_and(|w| w.1 <= bounds.max_hidden), "{}: {widest:?}", card.model);
        // Of SageNet nothing is trained by surgery: its sites train networks of sections of their own.
        if card.model == "sagenet" {
            continue;
        }
        // The tutorials' sites have 430 cells, the smallest of the tests 40.
        for n_cells in [40, 430, 100_000] {
            check_training(&bounds, &card, &task(TrainSpec::default()), n_cells).unwrap();
        }
    }
}

#[test]
fn a_reference_is_what_the_zoo_makes_of_its_card_or_it_is_declined() {
    let bounds = TaskBounds::default();
    let declined = |bounds: &TaskBounds, change: &dyn Fn(&mut BaseCard)| {
        let mut base = stored("scvi");
        change(&mut base.card);
        bound_of(check_reference(bounds, &base))
    };
    let option = |name: &'static str, value: u64| {
        move |card: &mut BaseCard| drop(card.config.insert(name.to_owned(), value.into()))
    };
    assert_eq!(declined(&bounds, &option("n_hidden", 65_536)), Some(Bound::Hidden));
    assert_eq!(declined(&bounds, &option("n_latent", 1_000)), Some(Bound::Latent));
    let list = TaskBounds { models: vec!["scanvi".to_owned()], ..bounds.clone() };
    assert_eq!(declined(&list, &|_| ()), Some(Bound::Model));

    let owned = Owned { spec: TensorSpec { dtype: DType::F32, shape: vec![9] }, kind: TensorKind::Fact };
    let more = |card: &mut BaseCard| drop(card.layout.axes[0].tensors.insert("more".to_owned(), owned.clone()));
    assert_eq!(declined(&bounds, &more), Some(Bound::Layout));
    let none = |card: &mut BaseCard| card.layout.axes[0].tensors.clear();
    assert_eq!(declined(&bounds, &none), Some(Bound::Layout));
    let axis = |card: &mut BaseCard| {
        card.layout.axes.push(Axis::new(Section::Axis("donor".parse().unwrap()), Default::default()));
    };
    assert_eq!(declined(&bounds, &axis), Some(Bound::Layout));
    let part = |card: &mut BaseCard| {
        card.layout.parts.insert("cells".parse().unwrap(), archipelago_common::layout::Rule::Union);
    };
    assert_eq!(declined(&bounds, &part), Some(Bound::Layout));
    let tree = |card: &mut BaseCard| tree::declare(&mut card.layout, tree::Sharing::Machines);
    assert_eq!(declined(&bounds, &tree), None, "any reference can have a tree");
}

#[test]
fn each_bound_on_training_is_held() {
    let (bounds, card) = (TaskBounds::default(), stored("scvi").card);
    let declined = |train: TrainSpec, n_cells| bound_of(check_training(&bounds, &card, &task(train), n_cells));
    let usual = TrainSpec::default;
    let stops = |patience| Some(Stopping::After(EarlyStopping { patience, min_delta: 1e9 }));
    for (train, n_cells, expected) in [
        (usual(), 127, None),
        (TrainSpec { learning_rate: Some(1e7), ..usual() }, 127, Some(Bound::LearningRate)),
        (TrainSpec { learning_rate: Some(1e-9), ..usual() }, 127, Some(Bound::LearningRate)),
        (TrainSpec { adam_eps: Some(1e3), ..usual() }, 127, Some(Bound::AdamEps)),
        (TrainSpec { epochs: Some(1), ..usual() }, 127, Some(Bound::Steps)),
        (TrainSpec { epochs: Some(1), ..usual() }, 430, None),
        (TrainSpec { max_steps: Some(1), ..usual() }, 430, Some(Bound::Steps)),
        (TrainSpec { max_steps: Some(2), ..usual() }, 430, None),
        (TrainSpec { early_stopping: stops(0), ..usual() }, 127, Some(Bound::Steps)),
        (TrainSpec { early_stopping: stops(1), ..usual() }, 127, None),
        (TrainSpec { train_size: Some(0.01), ..usual() }, 127, Some(Bound::TrainShare)),
        (TrainSpec { epochs: Some(100_000), ..usual() }, 127, Some(Bound::Travel)),
        (TrainSpec { minibatch: Some(1), ..usual() }, 127, Some(Bound::Minibatch)),
        (TrainSpec { minibatch: Some(1_000), ..usual() }, 1_000, Some(Bound::Minibatch)),
        (TrainSpec { minibatch: Some(1_000), ..usual() }, 10_000, None),
        // The model's own are nobody's choice.
        (TrainSpec { minibatch: Some(128), ..usual() }, 127, None),
    ] {
        assert_eq!(declined(train.clone(), n_cells), expected, "{train:?}");
    }
    let wide = SurgeryTask { max_column_norm: 1e12, ..task(usual()) };
    assert_eq!(bound_of(check_task(&bounds, &wide)), Some(Bound::Norm));
    assert_eq!(bound_of(check_task(&bounds, &SurgeryTask { max_column_norm: f64::NAN, ..wide })), Some(Bound::Norm));
    assert_eq!(bound_of(check_task(&bounds, &task(usual()))), None);
}

#[test]
fn numbers_are_in_proportion_to_cells() {
    let owned = |shape: &[usize]| Owned {
        spec: TensorSpec { dtype: DType::F32, shape: shape.to_vec() },
        kind: TensorKind::Trained,
    };
    let tensors = [("a", owned(&[128])), ("b", owned(&[128])), ("c", owned(&[8, 7]))];
    let axis = Axis::new(Section::Condition, tensors.map(|(name, owned)| (name.to_owned(), owned)).into());
    assert_eq!(numbers(&axis), 312);
    let bounds = TaskBounds::default();
    for (n_cells, expected) in [(430, None), (125, None), (124, Some(Bound::Numbers))] {
        assert_eq!(bound_of(check_numbers(&bounds, &axis, n_cells)), expected, "{n_cells} cells");
    }
}

#[test]
fn what_a_coordinator_is_told_is_one_of_a_few_texts_without_a_number() {
    let texts: BTreeSet<String> = Bound::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), Bound::ALL.len());
    assert!(texts.iter().all(|text| !text.contains(|letter: char| letter.is_ascii_digit())), "{texts:?}");
}
