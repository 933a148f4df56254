//! Models that learn from the labels of some cells and predict those of others.

use archipelago_anndata::Csr;
use archipelago_common::{progress::Silent, task::TrainSpec};
use archipelago_models::{
    Categorical, CellConditions, Cells, Config, Device, Error, NoCheckpoints, PredictFrom, Reference, Result, Trained,
    Training, data::LABELS, train::FurtherOptions, train_reference, train_reference_from, zoo,
};

use crate::{Batch, N_GENES, batch, cells, key, map, reference, spec};

/// The batch with every label hidden that `is_hidden` names.
fn hide(batch: &Batch, is_hidden: impl Fn(usize) -> bool) -> Batch {
    let label = |(cell, label): (usize, &String)| if is_hidden(cell) { "Unknown".to_owned() } else { label.clone() };
    let labels = batch.labels.iter().enumerate().map(label).collect();
    Batch { counts: batch.counts.clone(), labels, proteins: batch.proteins.clone() }
}

/// Trains on two batches, `a` and `b`, with these options on top of small ones.
fn train(
    model: &str,
    pretrained: Option<&Reference>,
    batches: [&Batch; 2],
    options: &[(&str, serde_json::Value)],
    spec: &TrainSpec,
) -> Result<Trained> {
    let counts = Csr::vstack(N_GENES, batches.iter().map(|batch| batch.counts.clone())).unwrap();
    let labels: Vec<&String> = batches.iter().flat_map(|batch| &batch.labels).collect();
    let names: Vec<&str> =
        ["a", "b"].iter().zip(batches).flat_map(|(name, batch)| vec![*name; batch.labels.len()]).collect();
    let conditions = CellConditions::from_batches(&Categorical::from_values(&names), |name| Ok(key(name))).unwrap();
    let labels = Categorical::from_values(&labels);
    let cells = Cells::new(&counts).with(LABELS, labels).found_at(LABELS, "obs/cell_type");
    let genes: Vec<String> = (0..N_GENES).map(|gene| format!("gene{gene}")).collect();
    let model = zoo::model(model).unwrap();
    let mut all: Config = crate::options(model);
    all.extend(options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let training = Training {
        model,
        options: &all,
        genes: &genes,
        cells: &cells,
        conditions: &conditions,
        batch_key: "batch",
        spec,
        further: &FurtherOptions::default(),
        compute: Device::Cpu.into(),
    };
    match pretrained {
        None => train_reference(&training, &mut Silent, &mut NoCheckpoints),
        Some(pretrained) => train_reference_from(pretrained, &training, &mut Silent, &mut NoCheckpoints),
    }
}

/// The share of the cells of condition `a` whose predicted label is the true one.
fn accuracy(reference: &Reference, truth: &Batch, name: &str) -> f64 {
    let conditions = CellConditions::single(key(name), truth.labels.len());
    let cells = cells(truth);
    let predicted = reference.predict_labels(&cells, &conditions, PredictFrom::Mean, 0, Device::Cpu).unwrap();
    assert!(predicted.probabilities.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-4));
    let right = predicted.most_probable().iter().zip(&truth.labels).filter(|(a, b)| **a == b.as_str()).count();
    right as f64 / truth.labels.len() as f64
}

#[test]
fn hidden_labels_are_predicted() {
    let (a, b) = (batch(1, 90), batch(2, 90));
    let (half_a, none_b) = (hide(&a, |cell| cell >= 45), hide(&b, |_| true));
    let reference = train("scanvi", None, [&half_a, &none_b], &[], &spec(60)).unwrap().reference;
    assert_eq!(reference.base.card.labels, ["type2", "type0", "type1"], "the last one takes the place of `Unknown`");
    assert_eq!(reference.base.card.labels_key.as_deref(), Some("cell_type"));
    assert!(accuracy(&reference, &a, "a") > 0.9, "{}", accuracy(&reference, &a, "a"));
    assert!(accuracy(&reference, &b, "b") > 0.8, "{}", accuracy(&reference, &b, "b"));
    let conditions = CellConditions::single(key("a"), 90);
    let draw = |seed| {
        reference.predict_labels(&cells(&a), &conditions, PredictFrom::Draw, seed, Device::Cpu).unwrap().probabilities
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn a_few_cells_of_each_label_train_too() {
    let (a, b) = (batch(1, 60), batch(2, 60));
    let run = |n: Option<usize>| {
        let options = [("n_samples_per_label", serde_json::json!(n))];
        train("scanvi", None, [&a, &b], &options, &spec(3)).unwrap().reference
    };
    assert_eq!(run(Some(4)), run(Some(4)));
    assert_ne!(run(Some(4)).base.tensors, run(None).base.tensors);
    assert!(train("scanvi", None, [&hide(&a, |_| true), &hide(&b, |_| true)], &[], &spec(1)).is_err());
}

#[test]
fn surgery_takes_labelled_and_unlabelled_queries_and_leaves_the_classifier() {
    let reference = reference(zoo::model("scanvi").unwrap());
    let query = batch(3, 40);
    let some = hide(&query, |cell| cell % 4 != 0);
    let only_one_label = hide(&query, |cell| cell % 3 != 0);
    let none = hide(&query, |_| true);
    let columns = |query: &Batch| map(&reference.base, "q", query, &spec(3)).unwrap().columns;
    assert_ne!(columns(&some), columns(&none), "labels take part");
    assert_eq!(columns(&none).0.len(), columns(&only_one_label).0.len(), "no label is added or removed");
    let names: Vec<String> = columns(&some).0.iter().map(|(name, _)| name.to_owned()).collect();
    assert!(names.iter().all(|name| name.starts_with("z_encoder.") || name.starts_with("decoder.")), "{names:?}");
    let mut foreign = batch(3, 40);
    foreign.labels[0] = "neutrophil".to_owned();
    let refused = map(&reference.base, "q", &foreign, &spec(1)).unwrap_err();
    assert!(matches!(refused, Error::UnknownCategory { category, .. } if category == "neutrophil"));
}

#[test]
fn training_starts_from_a_pretrained_scvi() {
    let (a, b) = (batch(1, 60), batch(2, 60));
    let pretrained = train("scvi", None, [&a, &b], &[("dropout_rate", 0.2.into())], &spec(30)).unwrap().reference;
    let unset = TrainSpec { epochs: None, ..spec(1) };
    let options = [("dropout_rate", 0.5.into()), ("classification_ratio", 20.0.into())];
    let started = train("scanvi", Some(&pretrained), [&a, &b], &options, &unset).unwrap();
    assert_eq!(started.history.len(), 10, "upstream's short schedule");
    assert_eq!(started.reference.base.card.config["dropout_rate"], 0.2);
    assert_eq!(started.reference.base.card.config["classification_ratio"], 20.0);
    let fresh = train("scanvi", None, [&a, &b], &options, &spec(1)).unwrap();
    assert!(started.history[0].loss < fresh.history[0].loss, "the start is better than none");

    let refused = |pretrained: &Reference| train("scanvi", Some(pretrained), [&a, &b], &[], &spec(1)).unwrap_err();
    assert!(matches!(refused(&started.reference), Error::Pretrained { .. }));
    let mut other = pretrained.clone();
    other.base.card.genes.reverse();
    assert!(matches!(refused(&other), Error::Pretrained { .. }));
    let mut other = pretrained.clone();
    other.columns.remove(&key("b"));
    assert!(matches!(refused(&other), Error::UnknownCondition { .. }));
}

#[test]
fn a_model_without_labels_predicts_none() {
    let scvi = reference(zoo::model("scvi").unwrap());
    let a = batch(1, 10);
    let conditions = CellConditions::single(key("a"), 10);
    let refused = scvi.predict_labels(&cells(&a), &conditions, PredictFrom::Mean, 0, Device::Cpu).unwrap_err();
    assert_eq!(refused.to_string(), "model `scvi` does not predict labels");
}
