//! Networks of every kind of layer: forward pass, loss, gradients, three steps, schedule.

use std::collections::BTreeMap;

use archipelago_models::{
    nn::{Mode, Pass, SeededNoise},
    zoo::sagenet::{Classifier, Network, network::cross_entropy, schedule},
};
use tch::{Kind, Tensor};

use super::{config, holds, network, single, tolerance};
use crate::case::{Case, Report, Tolerance, run};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("transformer_conv") || name.starts_with("optional_")
}

#[test]
fn networks_are_upstream_s() {
    run("sagenet", is_one, |case, report| {
        if case.json["upstream_error"].is_string() {
            // It has no tensors: upstream could not build it. Its name says which kind it is.
            let kind = case.name.trim_start_matches("optional_");
            assert_eq!(kind, "conv1d");
            holds(report, case, "there is a network", Classifier::of_upstream("Conv1d").is_err());
            return;
        }
        forward(case, report);
        steps(case, report);
        rates(case, report);
    });
}

pub(super) fn logits(network: &Network, x: &Tensor, mode: Mode) -> Tensor {
    network.logits(x, &mut Pass { mode, noise: &mut SeededNoise::new([0; 32]) })
}

fn loss(case: &Case, network: &Network) -> Tensor {
    cross_entropy(&logits(network, &case.tensor("in/X"), Mode::Training), &case.tensor("in/y"))
}

fn forward(case: &Case, report: &mut Report) {
    let (config, x, params) = (config(case).unwrap(), case.tensor("in/X"), case.group("param/"));
    let (double, close) = (tolerance(case, "f64"), tolerance(case, "f32"));
    let built = network(case, &config, &params, "in/adj");
    report.close(case, "in/edge_index", &built.graph().edge_index(), Tolerance { rtol: 0.0, atol: 0.0 });
    report.close(case, "out/logits", &logits(&built, &x, Mode::Evaluation), double);
    if case.find("out/hidden").is_some() {
        report.close(case, "out/hidden", &built.convolved(&x).unwrap(), double);
    }
    let in_single = network(case, &config, &single(&params), "in/adj");
    report.close(case, "out/logits", &logits(&in_single, &x.to_kind(Kind::Float), Mode::Evaluation), close);
    let names: Vec<_> = built.trained().keys().chain(built.buffers().keys()).collect();
    let theirs: Vec<_> = params.iter().map(|(name, _)| name).collect();
    holds(report, case, "has other tensors", {
        let mut ours: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        ours.sort_unstable();
        ours == theirs
    });
}

fn steps(case: &Case, report: &mut Report) {
    let (config, params, double) = (config(case).unwrap(), case.group("param/"), tolerance(case, "f64"));
    let trained = network(case, &config, &params, "in/adj");
    let options = &case.json["options"];
    let option = |name: &str| options[name].as_f64().unwrap();
    let mut momentum = schedule::Momentum::new(option("momentum"));
    for step in 0..3_u64 {
        let of_step = loss(case, &trained);
        report.close(case, &format!("loss/{step}"), &of_step, double);
        of_step.backward();
        if step == 0 {
            report.close(case, "out/loss", &of_step, double);
            gradients(case, &trained, report);
        }
        momentum.step(trained.trained(), schedule::rate(option("lr"), step));
    }
    let moved: BTreeMap<String, Tensor> = trained
        .trained()
        .iter()
        .chain(trained.buffers())
        .map(|(name, tensor)| (name.clone(), tensor.detach()))
        .collect();
    report.group(case, "after3/", &moved, "param/", |_| double);
}

fn gradients(case: &Case, network: &Network, report: &mut Report) {
    let double = tolerance(case, "f64");
    for (name, tensor) in network.trained() {
        let full = format!("grad/{name}");
        match (case.find(&full), tensor.grad()) {
            (Some(_), ours) if ours.defined() => report.close(case, &full, &ours, double),
            // A map for genes of so many neighbours where there is none.
            (Some(theirs), _) => holds(report, case, &full, theirs.abs().max().double_value(&[]) == 0.0),
            (None, ours) => holds(report, case, &full, !ours.defined()),
        }
    }
}

fn rates(case: &Case, report: &mut Report) {
    let start = case.json["options"]["lr"].as_f64().unwrap();
    let n = case.tensor("lr").size()[0] as u64;
    let ours: Vec<f64> = (0..n).map(|step| schedule::rate(start, step)).collect();
    report.close(case, "lr", &Tensor::from_slice(&ours), Tolerance { rtol: 1e-12, atol: 0.0 });
}
