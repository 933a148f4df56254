//! A query mapped by an ensemble of three networks, with the parts that upstream drew.

use archipelago_models::zoo::sagenet::mapping::{Mapping, Placed, probabilities};
use ndarray::Array2;
use tch::{Kind, Tensor};

use super::{config, network, single, tolerance};
use crate::case::{Case, Tolerance, run};

pub(super) fn is_one(name: &str) -> bool {
    name == "query_mapping"
}

#[test]
fn a_query_is_mapped_as_upstream_maps_it() {
    run("sagenet", is_one, |case, report| {
        let (double, close) = (tolerance(case, "f64"), tolerance(case, "f32"));
        let tags: Vec<String> = serde_json::from_value(case.json["model_order"].clone()).unwrap();
        let x = case.tensor("in/X");
        let mut placed = Vec::new();
        for tag in &tags {
            let params = case.group(&format!("model/{tag}/"));
            let network = |params| network(case, &config(case).unwrap(), params, &format!("model/{tag}/adj"));
            let in_double = {
                let network = network(&params);
                let mut noise = archipelago_models::nn::SeededNoise::new([0; 32]);
                let mut pass =
                    archipelago_models::nn::Pass { mode: archipelago_models::nn::Mode::Evaluation, noise: &mut noise };
                network.logits(&x, &mut pass).softmax(1, Kind::Double)
            };
            report.close(case, &format!("out/{tag}/prob"), &in_double, double);
            // The kernel, in single precision.
            let rows = rows(&x.to_kind(Kind::Float)).mapv(|value| value as f32);
            let found = probabilities(&network(&single(&params)), rows.view());
            report.close(case, &format!("out/{tag}/prob"), &tensor(&found), close);

            let drawn = case.tensor(&format!("draw/{tag}")).argmax(1, false);
            let mut one = Placed::new(tag, "", self::rows(&in_double), [0; 32]);
            one.drawn = Vec::<i64>::try_from(drawn).unwrap().into_iter().map(|part| part as usize).collect();
            let parts: Vec<i64> = one.parts.iter().map(|part| i64::from(*part)).collect();
            report.close(
                case,
                &format!("out/{tag}/pred"),
                &Tensor::from_slice(&parts),
                Tolerance { rtol: 0.0, atol: 0.0 },
            );
            report.close(case, &format!("out/{tag}/ent"), &Tensor::from_slice(&one.entropy), double);
            placed.push(one);
        }
        let mapping = Mapping::new(placed).unwrap();
        report.close(case, "out/confidence", &Tensor::from_slice(&mapping.confidence), double);
        let distances = mapping.distances().unwrap();
        report.close(case, "out/dist_map", &tensor(&distances.distances().to_owned()), double);
        every_tensor_is_looked_at(case);
    });
}

/// The one-sided divergences and mixed probabilities are compared in `archipelago-analysis`, the rest here.
fn every_tensor_is_looked_at(case: &Case) {
    let is_known = |name: &str| {
        ["in/", "model/", "draw/", "out/confidence", "out/dist_map"].iter().any(|start| name.starts_with(start))
            || ["prob", "pred", "ent", "mixed_prob", "kl_one_sided"].contains(&name.rsplit('/').next().unwrap())
    };
    assert!(case.tensors.iter().all(|(name, _)| is_known(name)));
}

fn rows(x: &Tensor) -> Array2<f64> {
    let (n_rows, n_columns) = x.size2().unwrap();
    let values = Vec::<f64>::try_from(x.to_kind(Kind::Double).reshape(-1)).unwrap();
    Array2::from_shape_vec((n_rows as usize, n_columns as usize), values).unwrap()
}

fn tensor(rows: &Array2<f64>) -> Tensor {
    Tensor::from_slice(rows.as_standard_layout().as_slice().unwrap())
}
