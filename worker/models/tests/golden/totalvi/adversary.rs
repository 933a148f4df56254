//! `adv/*` of a core case: one step of the model against a classifier of batches, then one step of the classifier.

use archipelago_common::StateDict;
use archipelago_models::{
    model::Module as _,
    nn::{Builder, ConditionSource, Mode, Pass, Source, Trainable, from_tch},
    zoo::totalvi::Adversary,
};
use tch::Device;

use super::{Totalvi, config, registry};
use crate::{
    case::{self, Case, Report},
    noise::FixedNoise,
    runner::{
        Golden as _,
        core::{adam, adam_options, all_tensors, is_one, kl_weight, with_noise_floor},
        gradients, module, upstream,
    },
};

fn classifier(case: &Case) -> Adversary {
    let options = adam_options(&case.json["adversarial"]["classifier_optimiser"]);
    let stored: StateDict = case.group("adv/classifier_param/");
    let conditions = ConditionSource::Fresh(0);
    let builder = Builder::new(Source::Stored(&stored), conditions, Trainable::Everything, [0; 32], Device::Cpu);
    let n_conditions = Totalvi::n_conditions(case, "param/");
    Adversary::build(config(case).n_latent, n_conditions, options, builder).unwrap()
}

/// Gradients (`adv/grad/`), the model after its step (`adv/step1/`), the classifier after its own.
fn check_case(case: &Case, report: &mut Report) {
    let kappa = case.json["adversarial"]["kappa"].as_f64().unwrap();
    let module = module::<Totalvi>(case, Trainable::Everything);
    let mut classifier = classifier(case);
    let mut adam = adam(&case.json["optimiser"], all_tensors(&module));
    let minibatch = case.minibatch("input", &registry(case));
    let condition = &minibatch.covariates.condition;
    let mut noise = FixedNoise::new(case);
    let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
    let terms = module.loss(&minibatch, kl_weight(case), &mut pass);
    let latent = terms.latent.unwrap();
    let fool = classifier.fool_loss(&latent, condition, &mut pass);
    let per_cell = case.tolerance("loss_per_cell");
    report.close(case, "adv/loss_fool", &fool, per_cell);
    let total = terms.loss + fool * kappa;
    report.close(case, "adv/loss_total", &total, per_cell);
    adam.minimise(&total);
    let ours = gradients(&module);
    report.group(case, "adv/grad/", &ours, "param/", |name| with_noise_floor(case, "grad", name));
    let ours = upstream(&module);
    report.group(case, "adv/step1/", &ours, "param/", |_| case.tolerance("step"));
    let mut noise = FixedNoise::new(case);
    let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
    classifier.learn(&latent, condition, kappa, &mut pass);
    let expected = case.group("adv/classifier_step1/");
    for (name, weight) in classifier.weights().iter() {
        report.close(case, &format!("adv/classifier_step1/{name}"), &weight.tensor, case.tolerance("step"));
    }
    report.holds("the classifier has upstream's tensors", expected.len() == classifier.weights().iter().count());
}

/// The loss that the classifier learns from, as its first pass in training mode gives it.
fn check_loss(case: &Case, report: &mut Report) {
    let module = module::<Totalvi>(case, Trainable::Nothing);
    let minibatch = case.minibatch("input", &registry(case));
    let mut noise = FixedNoise::new(case);
    let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
    let latent = module.loss(&minibatch, 1.0, &mut pass).latent.unwrap();
    let classifier = classifier(case);
    let before = from_tch(classifier.weights().get("classifier.1.bias").unwrap());
    let loss = classifier.loss(&latent, &minibatch.covariates.condition, &mut pass);
    report.close(case, "adv/loss_true", &loss, case.tolerance("loss_per_cell"));
    let after = from_tch(classifier.weights().get("classifier.1.bias").unwrap());
    report.holds("a loss alone moves nothing", before == after);
}

#[test]
fn a_step_against_the_classifier_and_one_of_it() {
    let has_one = |case: &Case| is_one(&case.name) && !case.json["adversarial"].is_null();
    case::run_those("totalvi", has_one, |case, report| {
        check_case(case, report);
        check_loss(case, report);
    });
}
