//! `core_*` once more, through the kernels: nothing here differs from autograd's numbers but the code.

use archipelago_anndata::Csr;
use archipelago_models::{
    data::{Dataset, Encoded},
    fast::{Autoencoder, Purpose},
    model::Module,
    nn::{Mode, Trainable},
};
use tch::{Kind, Tensor};

use super::{
    Golden, PASSES,
    core::{adam, all_tensors, kl_weight, with_noise_floor},
    joined, module, upstream,
};
use crate::{
    case::{self, Case, Report},
    noise::FixedNoise,
};

/// A model that the kernels know.
pub(crate) trait InKernels: Golden {
    /// Cases whose options they know when nothing trains.
    const EVALUATED: &'static [&'static str];
    /// Those that they train too: with batch norm, training takes the minibatch's statistics.
    const TRAINED: &'static [&'static str];

    /// Compares what they say of cells where nothing trains.
    fn compare_evaluation(case: &Case, module: &Self::Module, cells: &StoredCells, report: &mut Report);
}

/// Makes the tests of a model that the kernels know.
macro_rules! kernel_tests {
    ($model:ty) => {
        $crate::runner::golden_tests! { @each $model: kernels
            kernels_evaluate kernels_give_gradients kernels_step
        }
    };
}
pub(crate) use kernel_tests;

/// The stored minibatches, one below the other: all cells, then the labelled ones where the case has such.
pub(crate) struct StoredCells {
    counts: Csr,
    conditions: Vec<i64>,
    /// Codes of labels and how many labels there are, where the case has labelled cells.
    labels: Option<(Vec<i64>, usize)>,
    n: usize,
}

impl StoredCells {
    fn of(case: &Case) -> Self {
        let has_labelled = case.find("input_labelled/x").is_some();
        let all = |name: &str| {
            let first = case.tensor(&format!("input/{name}"));
            if has_labelled { Tensor::cat(&[first, case.tensor(&format!("input_labelled/{name}"))], 0) } else { first }
        };
        let codes = |name: &str| Vec::try_from(all(name).reshape(-1).to_kind(Kind::Int64)).unwrap();
        Self {
            counts: csr(&all("x")),
            conditions: codes("batch"),
            // The last one stands for cells without a label.
            labels: has_labelled
                .then(|| (codes("labels"), case.json["label_categories"].as_array().unwrap().len() - 1)),
            n: case.tensor("input/x").size()[0] as usize,
        }
    }

    pub(crate) fn dataset(&self) -> Dataset<'_> {
        let fields =
            self.labels.iter().map(|(codes, n)| Encoded::Codes { codes: codes.clone(), n: *n, new: vec![] }).collect();
        Dataset { fields, ..dataset(&self.counts, self.conditions.clone()) }
    }

    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.n).collect()
    }

    fn labelled(&self) -> Vec<usize> {
        (self.n..self.conditions.len()).collect()
    }
}

/// A stored matrix of counts as sparse rows.
pub(crate) fn csr(x: &Tensor) -> Csr {
    let (rows, columns) = x.size2().unwrap();
    let dense: Vec<f32> = Vec::try_from(x.to_kind(Kind::Float).reshape(-1)).unwrap();
    Csr::from_dense(rows as usize, columns as usize, &dense).unwrap()
}

/// Cells with counts and conditions only.
pub(crate) fn dataset(counts: &Csr, conditions: Vec<i64>) -> Dataset<'_> {
    Dataset::new(counts, conditions)
}

/// The kernels with everything of a module that trains.
fn training<'a>(module: &'a dyn Module, dataset: &'a Dataset<'a>, n_cells: usize) -> Autoencoder<'a> {
    let trains = |name: &str| module.weights().get(name).is_some_and(Tensor::requires_grad);
    Autoencoder::new(module, dataset, Purpose::Train(Mode::Training, n_cells), &trains).unwrap()
}

pub(crate) fn kernels_evaluate<G: InKernels>() {
    case::run(
        G::MODEL,
        |name| G::EVALUATED.contains(&name),
        |case, report| {
            let module = module::<G>(case, Trainable::Nothing);
            G::compare_evaluation(case, &module, &StoredCells::of(case), report);
        },
    );
}

pub(crate) fn kernels_give_gradients<G: InKernels>() {
    case::run(
        G::MODEL,
        |name| G::TRAINED.contains(&name),
        |case, report| {
            for (group, prefix, masks) in PASSES.into_iter().filter(|(_, prefix, _)| !case.group(prefix).is_empty()) {
                let module = module::<G>(case, Trainable::Everything);
                let cells = StoredCells::of(case);
                let dataset = cells.dataset();
                let mut fast = training(&module, &dataset, cells.n);
                let noise = &mut FixedNoise::of_prefix(case, "noise/".to_owned(), masks);
                let (terms, gradients) = fast.gradients(&cells.all(), &cells.labelled(), kl_weight(case), noise);
                let loss = Tensor::from(terms.loss / cells.n as f64);
                report.close(case, &format!("{group}/loss"), &loss, case.tolerance("loss_per_cell"));
                let ours = joined(&module, &gradients);
                report.group(case, prefix, &ours, "param/", |name| with_noise_floor(case, "grad", name));
            }
        },
    );
}

pub(crate) fn kernels_step<G: InKernels>() {
    case::run(
        G::MODEL,
        |name| G::TRAINED.contains(&name),
        |case, report| {
            for n_steps in [1, 3] {
                let module = module::<G>(case, Trainable::Everything);
                let cells = StoredCells::of(case);
                let dataset = cells.dataset();
                let mut fast = training(&module, &dataset, cells.n);
                let mut adam = adam(&case.json["optimiser"], all_tensors(&module));
                for _ in 0..n_steps {
                    let noise = &mut FixedNoise::new(case);
                    let _terms = fast.step(&cells.all(), &cells.labelled(), kl_weight(case), noise, &[*adam.options()]);
                }
                fast.store(module.weights(), adam.slots_mut());
                let prefix = format!("step{n_steps}/");
                report.group(case, &prefix, &upstream(&module), "param/", |_| case.tolerance("step"));
                let all_steps = adam.slots().iter().all(|slot| slot.n_steps == n_steps);
                report.holds(&format!("{}: every tensor took every step", case.name), all_steps);
            }
        },
    );
}
