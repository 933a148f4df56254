//! How a network learns the parts of a section.

use std::time::Instant;

use archipelago_common::progress::{Continue, EpochReport};
use ndarray::ArrayView2;
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::{
    kernel::{Kernel, Sums},
    network::{Network, cross_entropy},
    schedule::{self, Momentum},
};
use crate::{
    device::Engine,
    error::{Error, Result},
    nn::{Mode, Pass, SeededNoise, of_rows},
    train::Seeds,
};

/// Cells of a section, and the part in which each lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lessons<'a> {
    /// Expression, `[n_cells, n_genes]`, row after row.
    pub(super) x: ArrayView2<'a, f32>,
    /// Part of each cell.
    pub(super) parts: &'a [u32],
}

/// Who computes steps.
enum Stepper<'a> {
    Kernel(Box<Kernel>),
    Autograd { network: &'a Network, momentum: Momentum },
}

/// Trains a network. The same cells, tensors and seeds give the same bits.
///
/// # Errors  [`Error::Diverged`], [`Error::Cancelled`]
pub(super) fn train(
    network: &Network,
    lessons: Lessons<'_>,
    seeds: &Seeds,
    engine: Engine,
    progress: &mut dyn FnMut(&EpochReport) -> Continue,
) -> Result<EpochReport> {
    let (start, config) = (Instant::now(), network.config());
    let mut stepper = Stepper::new(network, engine);
    let mut order: Vec<usize> = (0..lessons.parts.len()).collect();
    let n_epochs = config.network_epochs as u32;
    let (mut step, mut last) = (0, None);
    for epoch in 0..n_epochs {
        order.shuffle(&mut ChaCha8Rng::from_seed(seeds.of("order", epoch.into())));
        let mut noise = SeededNoise::new(seeds.of("noise", epoch.into()));
        let (mut loss, mut n_right) = (0.0, 0);
        for cells in order.chunks(config.network_minibatch) {
            let rate = schedule::rate(config.network_rate, step);
            let sums = stepper.step(lessons, cells, (rate, config.network_momentum), &mut noise);
            (loss, n_right, step) = (loss + sums.loss, n_right + sums.n_right, step + 1);
        }
        let n_cells = order.len().max(1) as f64;
        let report = EpochReport {
            epoch: epoch + 1,
            n_epochs,
            loss: loss / n_cells,
            validation_loss: None,
            elapsed_ms: start.elapsed().as_millis() as u64,
            figures: [(ACCURACY.to_owned(), n_right as f64 / n_cells)].into(),
            validation_figures: Default::default(),
        };
        if !report.loss.is_finite() {
            return Err(Error::Diverged { epoch: epoch + 1, loss: report.loss });
        }
        if progress(&report) == Continue::No {
            return Err(Error::Cancelled { last: report });
        }
        last = Some(report);
    }
    if let Stepper::Kernel(kernel) = stepper {
        kernel.store(network);
    }
    Ok(last.expect("there is at least one epoch"))
}

impl<'a> Stepper<'a> {
    fn new(network: &'a Network, engine: Engine) -> Self {
        let kernel = if engine == Engine::Fast { Kernel::new(network) } else { None };
        match kernel {
            Some(kernel) => Self::Kernel(Box::new(kernel)),
            None => Self::Autograd { network, momentum: Momentum::new(network.config().network_momentum) },
        }
    }

    fn step(
        &mut self,
        lessons: Lessons<'_>,
        cells: &[usize],
        (rate, share): (f64, f64),
        noise: &mut SeededNoise,
    ) -> Sums {
        match self {
            Self::Kernel(kernel) => {
                let row = |&cell: &usize| {
                    let row = lessons.x.row(cell).to_slice().expect("rows are in order");
                    (row, lessons.parts[cell])
                };
                kernel.step(cells.iter().map(row), (rate, share), noise)
            }
            Self::Autograd { network, momentum } => {
                let x = of_rows(lessons.x.select(ndarray::Axis(0), cells).view());
                let parts: Vec<i64> = cells.iter().map(|&cell| lessons.parts[cell].into()).collect();
                let parts = Tensor::from_slice(&parts);
                let logits = network.logits(&x, &mut Pass { mode: Mode::Training, noise });
                let loss = cross_entropy(&logits, &parts);
                loss.backward();
                momentum.step(network.trained(), rate);
                let right = logits.argmax(1, false).eq_tensor(&parts).sum(Kind::Int64).int64_value(&[]);
                Sums { loss: loss.double_value(&[]) * cells.len() as f64, n_right: right as usize }
            }
        }
    }
}

/// What share of the cells is put into its part, in training.
pub(super) const ACCURACY: &str = "accuracy";

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::zoo::sagenet::{GeneGraph, SagenetConfig};

    fn lessons() -> (Array2<f32>, Vec<u32>) {
        let parts: Vec<u32> = (0..50).map(|cell| cell % 3).collect();
        let x = Array2::from_shape_fn((50, 7), |(cell, gene)| {
            let own = if gene % 3 == cell % 3 { 2.0 } else { 0.3 };
            own * (1.0 + ((cell * 7 + gene * 5) % 11) as f32 / 11.0)
        });
        (x, parts)
    }

    fn trained(config: &SagenetConfig, engine: Engine) -> (Network, EpochReport) {
        let (x, parts) = lessons();
        let graph = GeneGraph::new(7, &[(0, 1), (1, 2), (0, 3), (4, 5), (2, 3)]).unwrap();
        let seeds = Seeds::new(3, "test");
        let network = Network::fresh(config, graph, 3, seeds.of("weights", 0)).unwrap();
        let lessons = Lessons { x: x.view(), parts: &parts };
        let last = train(&network, lessons, &seeds, engine, &mut |_| Continue::Yes).unwrap();
        (network, last)
    }

    #[test]
    fn the_kernel_and_autograd_learn_the_same() {
        for dropout_gnn in [0.0, 0.2] {
            let config =
                SagenetConfig { network_epochs: 40, network_rate: 5e-2, dropout_gnn, ..SagenetConfig::default() };
            let ((fast, last), (slow, also)) = (trained(&config, Engine::Fast), trained(&config, Engine::Autograd));
            assert!((last.loss - also.loss).abs() < 1e-4, "{} is not {}", last.loss, also.loss);
            assert!(last.loss < 0.5 && last.figures[ACCURACY] > 0.8, "{last:?}");
            for (name, tensor) in fast.trained() {
                let differs = (tensor - &slow.trained()[name]).abs().max().double_value(&[]);
                assert!(differs < 1e-3, "{name} differs by {differs}");
            }
            let (x, _) = lessons();
            let (kernel, rows) = (Kernel::new(&slow).unwrap(), of_rows(x.view()));
            let mut none = SeededNoise::new([0; 32]);
            let logits = slow.logits(&rows, &mut Pass { mode: Mode::Evaluation, noise: &mut none });
            let cells = x.rows().into_iter().map(|row| row.to_slice().unwrap());
            for (cell, ours) in kernel.logits(cells).iter().enumerate() {
                let ours = Tensor::from_slice(ours);
                assert!((ours - logits.get(cell as i64)).abs().max().double_value(&[]) < 1e-5);
            }
        }
    }

    #[test]
    fn a_run_repeats_bit_for_bit_by_every_kind_of_layer() {
        for classifier in ["transformer-conv", "graph-sage", "gen-conv", "mlp"] {
            let options = [("classifier".to_owned(), classifier.into()), ("network_epochs".to_owned(), 3.into())];
            let config = SagenetConfig::parse(&options.into()).unwrap();
            let run = || trained(&config, Engine::Fast).0.state();
            assert_eq!(run(), run(), "{classifier}");
        }
    }

    #[test]
    fn whoever_watches_may_stop_it() {
        let (x, parts) = lessons();
        let config = SagenetConfig::default();
        let network = Network::fresh(&config, GeneGraph::new(7, &[]).unwrap(), 3, [1; 32]).unwrap();
        let lessons = Lessons { x: x.view(), parts: &parts };
        let stopped = train(&network, lessons, &Seeds::new(0, "a"), Engine::Fast, &mut |_| Continue::No);
        assert!(matches!(stopped, Err(Error::Cancelled { last }) if last.epoch == 1));
    }
}
