//! `core_*` and the separability case once more, through the kernels: nothing here differs from autograd's numbers but the code.

use archipelago_anndata::Csr;
use archipelago_models::{
    data::Dataset,
    fast::{Autoencoder, Purpose},
    model::Module,
    nn::{Mode, Trainable},
    train::{AdamOptions, Decay},
};
use tch::{Kind, Tensor};

use super::{core, setup};
use crate::{
    case::{self, Case, Report},
    noise::{FixedNoise, Masks},
};

/// Cases whose options the kernels know when nothing trains; with batch norm, training takes the minibatch's statistics.
const EVALUATED: [&str; 4] = ["core_default_zinb", "core_genebatch_deep", "core_poisson", "core_tutorial_nb_layernorm"];
const TRAINED: [&str; 1] = ["core_tutorial_nb_layernorm"];

fn check(cases: &[&str], test: impl Fn(&Case, &mut Report)) {
    case::run("scvi", |name| cases.contains(&name), test);
}

/// The stored minibatch as sparse rows.
pub(super) fn counts(case: &Case) -> Csr {
    let x = case.tensor("input/x").to_kind(Kind::Float);
    let (rows, columns) = x.size2().unwrap();
    let dense: Vec<f32> = Vec::try_from(x.reshape(-1)).unwrap();
    Csr::from_dense(rows as usize, columns as usize, &dense).unwrap()
}

pub(crate) fn dataset<'a>(case: &Case, counts: &'a Csr) -> Dataset<'a> {
    let conditions = Vec::try_from(case.tensor("input/batch").squeeze_dim(1).to_kind(Kind::Int64)).unwrap();
    Dataset::new(counts, conditions)
}

/// Whether a tensor trains.
pub(crate) fn trained(module: &dyn Module) -> impl Fn(&str) -> bool {
    |name| module.weights().get(name).is_some_and(Tensor::requires_grad)
}

fn all(case: &Case) -> Vec<usize> {
    (0..case.tensor("input/x").size()[0] as usize).collect()
}

fn options(case: &Case) -> AdamOptions {
    let value = |name: &str| case.json["optimiser"][name].as_f64().unwrap();
    AdamOptions { rate: value("lr"), eps: value("eps"), weight_decay: value("weight_decay"), decay: Decay::L2 }
}

#[test]
fn posteriors_and_likelihoods() {
    check(&EVALUATED, |case, report| {
        let module = setup::module(case, "param/", Trainable::Nothing, None);
        let counts = counts(case);
        let dataset = dataset(case, &counts);
        let nothing = |_: &str| false;
        let (mean, var) = Autoencoder::new(&module, &dataset, Purpose::Embed, &nothing).unwrap().embed();
        let forward = case.tolerance("forward");
        report.close(case, "api/latent_qzm", &Tensor::from_slice(&mean), forward);
        report.close(case, "api/latent_qzv", &Tensor::from_slice(&var), forward);
        let mut fast = Autoencoder::new(&module, &dataset, Purpose::Evaluate, &nothing).unwrap();
        for (cell, (elbo, error)) in
            per_cell(case, "api/elbo_per_cell").zip(per_cell(case, "api/reconstruction_error_per_cell")).enumerate()
        {
            let noise = case.tensor("noise/z").get(cell as i64).unsqueeze(0);
            let terms = fast.evaluate(&[cell], 1.0, &mut Fixed(noise));
            let tolerance = case.tolerance("loss_per_cell");
            let (ours, theirs) =
                (Tensor::from_slice(&[-terms.negative_elbo, terms.reconstruction]), Tensor::from_slice(&[elbo, error]));
            report.tensors(&format!("{}: cell {cell}", case.name), &ours, &theirs, tolerance);
        }
    });
}

fn per_cell(case: &Case, name: &str) -> impl Iterator<Item = f64> {
    Vec::<f64>::try_from(case.tensor(name).to_kind(Kind::Double).reshape(-1)).unwrap().into_iter()
}

#[test]
fn gradients_with_and_without_dropout() {
    check(&TRAINED, |case, report| {
        for (prefix, masks) in [("grad/", Masks::Off), ("dropgrad/", Masks::Stored)] {
            let module = setup::module(case, "param/", Trainable::Everything, None);
            let counts = counts(case);
            let dataset = dataset(case, &counts);
            let cells = all(case);
            let purpose = Purpose::Train(Mode::Training, cells.len());
            let mut fast = Autoencoder::new(&module, &dataset, purpose, &trained(&module)).unwrap();
            let mut noise = FixedNoise::of_prefix(case, "noise/".to_owned(), masks);
            let weight = case.json["kl_weight"].as_f64().unwrap();
            let (terms, gradients) = fast.gradients(&cells, &[], weight, &mut noise);
            let group = if masks == Masks::Off { "train" } else { "drop" };
            let loss = Tensor::from(terms.loss / cells.len() as f64);
            report.close(case, &format!("{group}/loss"), &loss, case.tolerance("loss_per_cell"));
            let ours = setup::joined(&module, &gradients);
            report.group(case, prefix, &ours, "param/", |name| core::with_noise_floor(case, "grad", name));
        }
    });
}

#[test]
fn optimiser_steps() {
    check(&TRAINED, |case, report| {
        for n_steps in [1, 3] {
            let module = setup::module(case, "param/", Trainable::Everything, None);
            let counts = counts(case);
            let dataset = dataset(case, &counts);
            let cells = all(case);
            let purpose = Purpose::Train(Mode::Training, cells.len());
            let mut fast = Autoencoder::new(&module, &dataset, purpose, &trained(&module)).unwrap();
            let weight = case.json["kl_weight"].as_f64().unwrap();
            for _ in 0..n_steps {
                let _terms = fast.step(&cells, &[], weight, &mut FixedNoise::new(case), &options(case));
            }
            let ours = setup::joined(&module, &fast.values());
            report.group(case, &format!("step{n_steps}/"), &ours, "param/", |_| case.tolerance("step"));
        }
    });
}

/// One row of noise.
pub(super) struct Fixed(pub(super) Tensor);

impl archipelago_models::nn::Noise for Fixed {
    fn normal(&mut self, _: &'static str, _: &[i64], _: tch::Device) -> Tensor {
        self.0.shallow_clone()
    }

    fn keep(&mut self, _: &str, _: &[i64], _: f64, _: tch::Device) -> Option<Tensor> {
        None
    }
}
