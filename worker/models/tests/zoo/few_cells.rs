//! Minibatches and conditions of next to no cells.

use archipelago_common::task::TrainSpec;
use archipelago_models::{CellConditions, Config, Device, Error, NoCheckpoints, zoo};

use crate::{Batch, batch, cells, every_model, grows, key, learns_nothing, map, options, spec, train, train_as};

#[test]
fn a_minibatch_of_one_cell_leaves_batch_statistics_finite() {
    every_model(|model| {
        // 33 training cells in minibatches of 32 leave one over.
        let spec = TrainSpec { train_size: Some(1.0), ..spec(2) };
        let a = batch(1, 33);
        let reference = train(model, &[("a", &a)], &spec, &mut NoCheckpoints).unwrap().reference;
        let conditions = CellConditions::single(key("a"), 33);
        match reference.latent(&cells(&a), &conditions, Device::Cpu) {
            Err(Error::NotEmbedder { .. }) => assert!(learns_nothing(&reference)),
            latent => assert!(latent.unwrap().mean.iter().all(|value| value.is_finite())),
        }
        let single = batch(1, 1);
        let refused = train(model, &[("a", &single)], &spec, &mut NoCheckpoints);
        assert!(matches!(refused, Err(Error::TooFewCells { .. })));
        assert!(!grows(model) || map(&reference.base, "q", &single, &spec).is_ok());
    });
}

#[test]
fn minibatches_of_one_cell_are_refused_in_words() {
    every_model(|model| {
        let alone = TrainSpec { minibatch: Some(1), ..spec(1) };
        match train(model, &[("a", &batch(1, 40))], &alone, &mut NoCheckpoints) {
            Err(error) => assert!(error.to_string().contains("`1` is not a valid minibatch size"), "{error}"),
            Ok(trained) => assert!(learns_nothing(&trained.reference), "{}", model.card().name),
        }
    });
}

#[test]
fn a_condition_whose_cells_give_a_latent_library_size_no_prior_is_named() {
    for name in ["scvi", "scanvi", "totalvi"] {
        let model = zoo::model(name).unwrap();
        let latent = Config::from([("use_observed_lib_size".to_owned(), false.into())]);
        let options = options(model).into_iter().chain(latent).collect();
        let train = |a: &Batch, b: &Batch| {
            train_as(model, &options, &[("a", a), ("b", b)], &spec(1), Device::Cpu.into(), &mut NoCheckpoints)
        };
        let trained = train(&batch(1, 40), &batch(2, 40)).unwrap();
        let refused = map(&trained.reference.base, "q", &batch(3, 1), &spec(1)).unwrap_err().to_string();
        assert!(refused.contains("the 1 cells of `site/data/q` have the same total count"), "{refused}");
        let refused = train(&batch(1, 40), &batch(3, 1)).unwrap_err().to_string();
        assert!(refused.contains("the 1 cells of `site/data/b` have the same total count"), "{refused}");
    }
}
