//! `core_*` once more, in the kernels.

use archipelago_anndata::Csr;
use archipelago_models::{
    data::{Dataset, Encoded},
    fast::{Autoencoder, Purpose},
    model::Module as _,
    nn::{Mode, Trainable},
    train::Adam,
};
use tch::{Kind, Tensor};

use super::setup;
use crate::{
    case::{self, Case, Report},
    noise::FixedNoise,
    scvi::{
        core::{adam, all_tensors, with_noise_floor},
        kernels::{dataset, trained},
        setup as scvi,
    },
};

/// Cases whose options the kernels know when nothing trains; with batch norm, training takes the minibatch's statistics.
const EVALUATED: [&str; 3] = ["core_default_zinb", "core_linear_classifier_genebatch", "core_tutorial_from_scvi"];
const TRAINED: [&str; 1] = ["core_tutorial_from_scvi"];

fn check(cases: &[&str], test: impl Fn(&Case, &mut Report)) {
    case::run("scanvi", |name| cases.contains(&name), test);
}

/// The stored minibatches, one below the other: all cells, then the labelled ones.
struct Cells {
    counts: Csr,
    conditions: Vec<i64>,
    labels: Vec<i64>,
    n: usize,
}

impl Cells {
    fn of(case: &Case) -> Self {
        let both = |name: &str| {
            let tensors = [case.tensor(&format!("input/{name}")), case.tensor(&format!("input_labelled/{name}"))];
            Tensor::cat(&tensors, 0)
        };
        let x = both("x").to_kind(Kind::Float);
        let (rows, columns) = x.size2().unwrap();
        let dense: Vec<f32> = Vec::try_from(x.reshape(-1)).unwrap();
        let codes = |name: &str| Vec::try_from(both(name).reshape(-1).to_kind(Kind::Int64)).unwrap();
        Self {
            counts: Csr::from_dense(rows as usize, columns as usize, &dense).unwrap(),
            conditions: codes("batch"),
            labels: codes("labels"),
            n: case.tensor("input/x").size()[0] as usize,
        }
    }

    fn dataset(&self, case: &Case) -> Dataset<'_> {
        let n = setup::registry(case).labels().len();
        let fields = vec![Encoded::Codes { codes: self.labels.clone(), n }];
        Dataset { conditions: self.conditions.clone(), fields, ..dataset(case, &self.counts) }
    }

    fn all(&self) -> Vec<usize> {
        (0..self.n).collect()
    }

    fn labelled(&self) -> Vec<usize> {
        (self.n..self.conditions.len()).collect()
    }
}

fn weight(case: &Case) -> f64 {
    case.json["kl_weight"].as_f64().unwrap()
}

#[test]
fn evaluation_pass() {
    check(&EVALUATED, |case, report| {
        let module = setup::module(case, "param/", Trainable::Nothing, None);
        let cells = Cells::of(case);
        let dataset = cells.dataset(case);
        let mut fast = Autoencoder::new(&module, &dataset, Purpose::Evaluate, &|_| false).unwrap();
        let terms = fast.evaluate(&cells.all(), weight(case), &mut FixedNoise::new(case));
        let mean = |name: &str| case.tensor(&format!("eval/{name}")).to_kind(Kind::Double).mean(Kind::Double);
        let (reconstruction, kl) = (mean("total_reconstruction_loss"), mean("total_kl_local"));
        let expected = Tensor::stack(&[reconstruction.shallow_clone(), &reconstruction + &kl], 0);
        let ours = Tensor::from_slice(&[terms.reconstruction, terms.negative_elbo]) / cells.n as f64;
        report.tensors(&format!("{}: terms", case.name), &ours, &expected, case.tolerance("loss_per_cell"));
    });
}

#[test]
fn loss_and_gradients() {
    check(&TRAINED, |case, report| {
        let module = setup::module(case, "param/", Trainable::Everything, None);
        let cells = Cells::of(case);
        let dataset = cells.dataset(case);
        let purpose = Purpose::Train(Mode::Training, cells.n);
        let mut fast = Autoencoder::new(&module, &dataset, purpose, &trained(&module)).unwrap();
        let noise = &mut FixedNoise::new(case);
        let (terms, gradients) = fast.gradients(&cells.all(), &cells.labelled(), weight(case), noise);
        let loss = Tensor::from(terms.loss / cells.n as f64);
        report.close(case, "train/loss", &loss, case.tolerance("loss_per_cell"));
        let ours = scvi::joined(&module, &gradients);
        report.group(case, "grad/", &ours, "param/", |name| with_noise_floor(case, "grad", name));
    });
}

#[test]
fn optimiser_steps() {
    check(&TRAINED, |case, report| {
        for n_steps in [1, 3] {
            let module = setup::module(case, "param/", Trainable::Everything, None);
            let cells = Cells::of(case);
            let dataset = cells.dataset(case);
            let purpose = Purpose::Train(Mode::Training, cells.n);
            let mut fast = Autoencoder::new(&module, &dataset, purpose, &trained(&module)).unwrap();
            let mut adam: Adam = adam(&case.json["optimiser"], all_tensors(&module));
            for _ in 0..n_steps {
                let noise = &mut FixedNoise::new(case);
                let _terms = fast.step(&cells.all(), &cells.labelled(), weight(case), noise, adam.options());
            }
            fast.store(module.weights(), &mut adam);
            report.group(case, &format!("step{n_steps}/"), &scvi::upstream(&module), "param/", |_| {
                case.tolerance("step")
            });
            let n_steps = n_steps as i64;
            report.holds(
                &format!("{}: every tensor took every step", case.name),
                adam.slots().iter().all(|slot| slot.n_steps == n_steps),
            );
        }
    });
}
