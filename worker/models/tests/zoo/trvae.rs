//! trVAE: the state that training ends with, and what surgery leaves of the pull between conditions.

use archipelago_common::{
    progress::Silent,
    task::{EarlyStopping, Stopping, TrainSpec, Warmup},
};
use archipelago_models::{
    Categorical, CellConditions, Compute, Config, Device, Engine, NoCheckpoints, Trained, Training,
    train::{FurtherOptions, Kept, Sampling},
    train_reference, zoo,
};
use serde_json::json;

use crate::{N_GENES, batch, cells, joined, key, map, reference};

fn options() -> Config {
    [("hidden_layer_sizes", json!([8, 6])), ("latent_dim", json!(3))]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// Trains on two batches of unequal size.
fn train(spec: &TrainSpec, further: &FurtherOptions, engine: Engine) -> Trained {
    let (a, b) = (batch(1, 90), batch(2, 30));
    let all = joined(&[&a, &b]);
    let names: Vec<&str> = [vec!["a"; 90], vec!["b"; 30]].concat();
    let conditions = CellConditions::from_batches(&Categorical::from_values(&names), |name| Ok(key(name))).unwrap();
    let genes: Vec<String> = (0..N_GENES).map(|gene| format!("gene{gene}")).collect();
    let training = Training {
        model: zoo::model("trvae").unwrap(),
        options: &options(),
        genes: &genes,
        cells: &cells(&all),
        conditions: &conditions,
        batch_key: "batch",
        spec,
        further,
        compute: Compute { device: Device::Cpu, engine },
    };
    train_reference(&training, &mut Silent, &mut NoCheckpoints).unwrap()
}

/// A rate at which the validation loss soon rises again.
fn spec() -> TrainSpec {
    let stopping = Stopping::After(EarlyStopping { patience: 4, min_delta: 0.0 });
    TrainSpec {
        epochs: Some(60),
        minibatch: Some(32),
        learning_rate: Some(0.03),
        kl_warmup: Some(Warmup::Off),
        early_stopping: Some(stopping),
        ..TrainSpec::default()
    }
}

#[test]
fn training_ends_with_the_state_of_the_best_epoch_or_with_the_last() {
    for engine in [Engine::Fast, Engine::Autograd] {
        let best = train(&spec(), &FurtherOptions::default(), engine);
        assert_eq!(best.engine, engine);
        let n_epochs = best.history.len();
        assert!(n_epochs < 60, "training stops early");
        let value = |epoch: usize| best.history[epoch].validation_loss.unwrap();
        let first_best = (0..n_epochs).min_by(|&a, &b| value(a).total_cmp(&value(b))).unwrap();
        assert!(first_best + 1 < n_epochs, "the last epoch is not the best");
        let until =
            |epochs: usize| TrainSpec { epochs: Some(epochs as u32), early_stopping: Some(Stopping::Never), ..spec() };
        let same = |a: &Trained, b: &Trained| {
            (&a.reference.base.tensors, &a.reference.columns) == (&b.reference.base.tensors, &b.reference.columns)
        };
        let plain = FurtherOptions::default();
        assert!(same(&best, &train(&until(first_best + 1), &plain, engine)));
        let last = train(&spec(), &FurtherOptions { kept: Kept::Last, ..plain.clone() }, engine);
        assert!(same(&last, &train(&until(n_epochs), &plain, engine)) && !same(&last, &best));
    }
}

#[test]
fn what_is_drawn_and_cut_changes_the_result() {
    let spec = TrainSpec { epochs: Some(2), ..spec() };
    let run = |further: FurtherOptions| train(&spec, &further, Engine::Fast);
    let usual = run(FurtherOptions::default());
    let plain =
        run(FurtherOptions { sampling: Sampling { balances: Some(false), n_draws: None }, ..Default::default() });
    let few = run(FurtherOptions { sampling: Sampling { balances: None, n_draws: Some(32) }, ..Default::default() });
    let cut = run(FurtherOptions { clip: Some(1e-3), ..Default::default() });
    assert_eq!((usual.engine, cut.engine), (Engine::Fast, Engine::Autograd));
    for other in [plain, few, cut] {
        assert_ne!(usual.reference.base.tensors, other.reference.base.tensors);
    }
}

#[test]
fn a_condition_maps_the_same_whatever_pulls_its_reference_together() {
    let reference = reference(zoo::model("trvae").unwrap());
    let query = batch(5, 40);
    let mut base = reference.base.clone();
    let map = |base: &_| map(base, "q", &query, &TrainSpec { epochs: Some(3), ..spec() }).unwrap().columns;
    let pulled = map(&base);
    base.card.config.insert("use_mmd".to_owned(), false.into());
    assert_eq!(pulled, map(&base));
}
