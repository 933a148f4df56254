//! Surgery that draws the latent states of a query to where cells of the reference lie.

use archipelago_common::{progress::Silent, task::TrainSpec};
use archipelago_models::{
    CellConditions, Compute, Device, Engine, Error, NoCheckpoints, Query, Reference, Surgery, aggregate::Aggregate,
    nn::Posterior, surgery, zoo,
};
use ndarray::Array2;
use tch::{Kind, Tensor};

use crate::{Batch, batch, cells, every_model_that_grows, key, map, reference, spec};

fn pulled(pull: Option<f64>) -> TrainSpec {
    TrainSpec { reference_pull: pull, ..spec(4) }
}

fn scvi() -> Reference {
    reference(zoo::model("scvi").unwrap())
}

/// How far posteriors of mapped cells lie from the reference's, in nats.
fn distance(reference: &Reference, mapped: &Surgery, query: &Batch) -> f64 {
    let aggregate = Aggregate::of_base(&reference.base.tensors).unwrap().unwrap();
    let mut grown = reference.clone();
    grown.columns.insert(key("q"), mapped.columns.clone());
    let conditions = CellConditions::single(key("q"), query.labels.len());
    let (means, vars) = grown.posterior(&cells(query), &conditions, Device::Cpu).unwrap();
    let shape = [means.nrows() as i64, means.ncols() as i64];
    let tensor = |values: Array2<f32>| Tensor::from_slice(&values.iter().copied().collect::<Vec<_>>()).view(shape);
    let posterior = Posterior { mean: tensor(means), var: tensor(vars) };
    aggregate.divergence(&posterior).mean(Kind::Double).double_value(&[])
}

#[test]
fn a_query_is_drawn_to_the_reference_unless_nobody_wants_it() {
    let (reference, query) = (scvi(), batch(3, 60));
    let by = |pull| map(&reference.base, "q", &query, &pulled(pull)).unwrap();
    let (usual, off, strong) = (by(None), by(Some(0.0)), by(Some(100.0)));
    assert_eq!(usual.columns, by(Some(2.0)).columns, "this is how strong it usually is");
    assert_ne!(usual.columns, off.columns);
    let [off_by, usual_by, strong_by] = [&off, &usual, &strong].map(|mapped| distance(&reference, mapped, &query));
    assert!(strong_by < usual_by && usual_by < off_by, "{strong_by} {usual_by} {off_by}");

    let mut without = reference.base.clone();
    for name in ["aggregate.means", "aggregate.variances"] {
        without.tensors.remove(name).unwrap();
    }
    let plain = |pull| map(&without, "q", &query, &pulled(pull));
    assert_eq!(plain(None).unwrap().columns, off.columns, "what nobody asked for is left out where there is no table");
    assert_eq!(plain(Some(0.0)).unwrap().columns, off.columns);
    let refused = plain(Some(10.0)).unwrap_err();
    assert!(refused.to_string().contains("it keeps none") && refused.hint().unwrap().contains("--reference-pull 0"));
}

#[test]
fn autograd_draws_as_the_kernels_do() {
    let (reference, query) = (scvi(), batch(3, 60));
    let by = |engine| {
        let query = Query { key: key("q"), cells: cells(&query) };
        let compute = Compute { device: Device::Cpu, engine };
        let mapped =
            surgery(&reference.base, &query, &pulled(Some(10.0)), compute, &mut Silent, &mut NoCheckpoints).unwrap();
        assert_eq!(mapped.engine, engine);
        mapped.columns
    };
    let (fast, autograd) = (by(Engine::Fast), by(Engine::Autograd));
    for (name, tensor) in fast.0.iter() {
        let (ours, theirs) = (tensor.to_f32(name).unwrap(), autograd.0.get(name).unwrap().to_f32(name).unwrap());
        let off = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{name}: {off}");
    }
}

#[test]
fn only_where_nothing_else_shapes_the_latent_state() {
    every_model_that_grows(|model| {
        let (reference, query, name) = (reference(model), batch(3, 40), model.card().name);
        let keeps = Aggregate::of_base(&reference.base.tensors).unwrap().is_some();
        assert_eq!(keeps, name == "scvi", "{name}");
        let mapped = map(&reference.base, "q", &query, &TrainSpec { epochs: Some(1), ..pulled(Some(1.0)) });
        match mapped {
            Ok(_) => assert!(keeps, "{name}"),
            Err(refused) => assert!(!keeps && matches!(refused, Error::Aggregate { .. }), "{name}: {refused}"),
        }
    });
}
