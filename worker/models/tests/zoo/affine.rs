//! What conditions add to the decoder's batch norm: part of their columns, and of nothing else.

use archipelago_common::{Columns, StateDict};
use archipelago_models::{CellConditions, Config, Device, NoCheckpoints, Reference, upstream, zoo};

use crate::{batch, cells, key, map, options, spec, train_as};

/// scVI and scANVI with batch norm, trained on the same cells.
fn references(affine: &str) -> Vec<Reference> {
    let (a, b) = (batch(1, 60), batch(2, 60));
    let models: [&dyn archipelago_models::model::Model; 2] = [&zoo::scvi::Scvi, &zoo::scanvi::Scanvi];
    let of = |model: &dyn archipelago_models::model::Model| {
        let options: Config =
            options(model).into_iter().chain([("batch_norm_affine".to_owned(), affine.into())]).collect();
        let batches = [("a", &a), ("b", &b)];
        train_as(model, &options, &batches, &spec(3), Device::Cpu.into(), &mut NoCheckpoints).unwrap().reference
    };
    models.into_iter().map(of).collect()
}

fn added(columns: &Columns) -> Vec<(&str, Vec<f32>)> {
    let tensors = columns.0.iter().filter(|(name, _)| name.contains(".1.") && name.ends_with(".condition"));
    tensors.map(|(name, tensor)| (name, tensor.to_f32(name).unwrap())).collect()
}

fn without_added(columns: &Columns) -> StateDict {
    let added: Vec<&str> = added(columns).into_iter().map(|(name, _)| name).collect();
    columns.0.iter().filter(|(name, _)| !added.contains(name)).map(|(name, t)| (name.to_owned(), t.clone())).collect()
}

#[test]
fn a_reference_trains_as_without_and_its_own_conditions_add_nothing() {
    for (shared, own) in references("shared").iter().zip(references("conditions")) {
        for (key, columns) in &own.columns {
            assert_eq!(
                added(columns).len(),
                4,
                "scale and shift of two layers of the decoder, and of none of the encoder's"
            );
            assert!(added(columns).iter().all(|(_, numbers)| numbers.iter().all(|number| *number == 0.0)));
            assert!(added(&shared.columns[key]).is_empty());
            assert_eq!(without_added(columns), shared.columns[key].0);
        }
        let of_base = |name: &str| own.base.tensors.get(name) == shared.base.tensors.get(name);
        assert!(shared.base.tensors.iter().all(|(name, _)| of_base(name)));
    }
}

#[test]
fn a_query_adds_what_is_its_own_and_no_other_condition_is_moved_by_it() {
    for reference in references("conditions") {
        let (q, r) = (batch(3, 40), batch(4, 50));
        let [of_q, of_r] =
            [("q", &q), ("r", &r)].map(|(name, cells)| map(&reference.base, name, cells, &spec(5)).unwrap());
        for mapped in [&of_q, &of_r] {
            let moved = added(&mapped.columns);
            assert!(moved.len() == 4 && moved.iter().all(|(_, numbers)| numbers.iter().any(|number| *number != 0.0)));
            assert!(mapped.deterministic && mapped.frozen_before == mapped.frozen_after);
        }
        assert_eq!(map(&reference.base, "q", &q, &spec(5)).unwrap().columns, of_q.columns, "one seed, one result");
        let alone = reference.with(key("q"), of_q.columns.clone()).unwrap();
        let both = alone.with(key("r"), of_r.columns.clone()).unwrap();
        let in_other_order = reference.with(key("r"), of_r.columns).unwrap().with(key("q"), of_q.columns).unwrap();
        assert_eq!(both, in_other_order);
        let bits = |reference: &Reference, name: &str, batch: &crate::Batch| {
            let conditions = CellConditions::single(key(name), batch.labels.len());
            let fit = reference.evaluate(&cells(batch), &conditions, 7, Device::Cpu).unwrap();
            (fit.elbo().to_bits(), fit.reconstruction().to_bits())
        };
        // Withdrawing a condition is leaving it out.
        let mut withdrawn = both.clone();
        withdrawn.columns.remove(&key("r"));
        assert_eq!(bits(&withdrawn, "q", &q), bits(&alone, "q", &q));
        assert_eq!(bits(&both, "q", &q), bits(&alone, "q", &q));
        let a = batch(1, 60);
        assert_eq!(bits(&both, "a", &a), bits(&reference, "a", &a));
    }
}

#[test]
fn scvi_tools_takes_the_reference_and_not_what_a_query_adds() {
    for reference in references("conditions") {
        upstream::from_reference(&reference).unwrap();
        let mapped = map(&reference.base, "q", &batch(3, 40), &spec(2)).unwrap();
        let refused =
            upstream::from_reference(&reference.with(key("q"), mapped.columns).unwrap()).unwrap_err().to_string();
        assert!(refused.contains("site/data/q") && refused.contains("batch_norm_affine"), "{refused}");
    }
}
