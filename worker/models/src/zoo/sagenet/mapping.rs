//! Cells without places, mapped by an ensemble: in which part each network puts them, how sure all are together.

use archipelago_analysis::space::{DistanceMap, confidence, entropies};
use ndarray::{Array2, ArrayView2};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tch::Kind;

use super::{SagenetConfig, SectionNetworks, kernel::Kernel, network::Network};
use crate::{
    device::OneThread,
    error::{Error, Result},
    nn::{Mode, Pass, SeededNoise, of_rows},
    train::Seeds,
};

/// What one network says of cells.
#[derive(Clone, PartialEq, Debug)]
pub struct Placed {
    /// Tag of its section and name of its partition.
    pub tag: String,
    /// Name of its partition.
    pub partition: String,
    /// Probability of each part, `[n_cells, n_classes]`.
    pub probabilities: Array2<f64>,
    /// Most probable part of each cell.
    pub parts: Vec<u32>,
    /// Entropy of each cell's probabilities, as a share of the largest one.
    pub entropy: Vec<f64>,
    /// A part of each cell, drawn by its probabilities.
    pub drawn: Vec<usize>,
}

/// What an ensemble says of cells.
#[derive(Clone, PartialEq, Debug)]
pub struct Mapping {
    /// What each network says, in the order of the members.
    pub placed: Vec<Placed>,
    /// One minus the mean entropy of each cell.
    pub confidence: Vec<f64>,
}

impl Placed {
    /// What upstream's columns end in: tag and partition.
    pub fn name(&self) -> String {
        format!("{}_{}", self.tag, self.partition)
    }

    /// What probabilities say of cells; one part of each is drawn by `seed`.
    pub fn new(tag: &str, partition: &str, probabilities: Array2<f64>, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let drawn = probabilities.rows().into_iter().map(|row| {
            let mut left: f64 = rng.random_range(0.0..1.0);
            let beyond = |&p: &f64| {
                left -= p;
                left < 0.0
            };
            row.iter().position(beyond).unwrap_or(row.len().saturating_sub(1))
        });
        let drawn = drawn.collect();
        let parts = probabilities
            .rows()
            .into_iter()
            .map(|row| (1..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best }) as u32);
        Self {
            tag: tag.to_owned(),
            partition: partition.to_owned(),
            parts: parts.collect(),
            entropy: entropies(probabilities.view()),
            drawn,
            probabilities,
        }
    }
}

/// Maps cells by the members of an ensemble, in their order.
///
/// # Shapes  `x`: `[n_cells, n_genes]`, normalised as the sections were
/// # Errors  [`Error::Value`] for an ensemble without a network, tensors that do not fit
pub fn map_query(
    config: &SagenetConfig,
    ensemble: &[(String, SectionNetworks)],
    x: &Array2<f32>,
    seed: u64,
) -> Result<Mapping> {
    let jobs: Vec<_> = ensemble
        .iter()
        .flat_map(|(tag, section)| section.networks.iter().map(move |(name, one)| (tag, section, name, one)))
        .collect();
    let placed: Vec<Result<Placed>> = jobs
        .par_iter()
        .map(|(tag, section, partition, trained)| {
            let network = section.network(config, x.ncols(), trained)?;
            let seed = Seeds::new(seed, format!("{tag}/{partition}")).of("drawn parts", 0);
            Ok(Placed::new(tag, partition, probabilities(&network, x.view()), seed))
        })
        .collect();
    Mapping::new(placed.into_iter().collect::<Result<_>>()?)
}

impl Mapping {
    /// What these networks say together.
    ///
    /// # Errors  [`Error::Value`] where there is none
    pub fn new(placed: Vec<Placed>) -> Result<Self> {
        if placed.is_empty() {
            let (part, found) = ("the ensemble".to_owned(), "no network".to_owned());
            return Err(Error::Value { part, found, expected: "the networks of at least one section".to_owned() });
        }
        let entropies: Vec<Vec<f64>> = placed.iter().map(|one| one.entropy.clone()).collect();
        Ok(Self { confidence: confidence(&entropies)?, placed })
    }

    /// Distances between the cells, the sum over networks in their order. Memory is quadratic in the cells.
    ///
    /// # Errors  none where all networks saw the same cells
    pub fn distances(&self) -> Result<DistanceMap> {
        let mut map = DistanceMap::new(self.confidence.len());
        for one in &self.placed {
            map.add(one.probabilities.view(), &one.drawn)?;
        }
        Ok(map)
    }
}

/// Probability of each part.
///
/// # Shapes  `x`: `[n_cells, n_genes]`; returns `[n_cells, n_classes]`
pub fn probabilities(network: &Network, x: ArrayView2<'_, f32>) -> Array2<f64> {
    let mut logits = Array2::<f64>::zeros((x.nrows(), network.n_classes()));
    match Kernel::new(network) {
        Some(kernel) => {
            let x = x.as_standard_layout();
            let cells = x.rows().into_iter().map(|row| row.to_slice().expect("rows are in order"));
            for (mut row, found) in logits.rows_mut().into_iter().zip(kernel.logits(cells)) {
                row.iter_mut().zip(found).for_each(|(to, from)| *to = from.into());
            }
        }
        None => {
            let _one_thread = OneThread::new();
            let _guard = tch::no_grad_guard();
            let mut none = SeededNoise::new([0; 32]);
            let mut at = 0;
            for cells in x.axis_chunks_iter(ndarray::Axis(0), AT_ONCE) {
                let mut pass = Pass { mode: Mode::Evaluation, noise: &mut none };
                let found = network.logits(&of_rows(cells), &mut pass).to_kind(Kind::Double);
                let values = Vec::<f64>::try_from(found.reshape(-1)).expect("logits are numbers");
                let to = logits.slice_mut(ndarray::s![at..at + cells.nrows(), ..]).into_iter();
                to.zip(values).for_each(|(to, from)| *to = from);
                at += cells.nrows();
            }
        }
    }
    for mut row in logits.rows_mut() {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.mapv_inplace(|logit| (logit - most).exp());
        let total = row.sum();
        row /= total;
    }
    logits
}

/// Cells in one pass of autograd's network.
const AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn parts_are_drawn_by_their_probabilities_and_by_the_seed() {
        let probabilities = Array2::from_shape_fn((4_000, 3), |(_, part)| [0.2, 0.7, 0.1][part]);
        let placed = Placed::new("s", "p", probabilities.clone(), [1; 32]);
        let share = |part| placed.drawn.iter().filter(|drawn| **drawn == part).count() as f64 / 4_000.0;
        assert!([(0, 0.2), (1, 0.7), (2, 0.1)].iter().all(|(part, p)| (share(*part) - p).abs() < 0.03));
        assert_eq!(placed, Placed::new("s", "p", probabilities.clone(), [1; 32]));
        assert_ne!(placed.drawn, Placed::new("s", "p", probabilities, [2; 32]).drawn);
        let sure = Placed::new("s", "p", array![[0.0, 1.0], [1.0, 0.0]], [1; 32]);
        assert_eq!((sure.drawn, sure.parts, sure.entropy), (vec![1, 0], vec![1, 0], vec![0.0, 0.0]));
    }

    #[test]
    fn an_ensemble_without_networks_says_nothing() {
        let refused = map_query(&SagenetConfig::default(), &[], &array![[1.0]], 0).unwrap_err();
        assert!(refused.to_string().contains("no network"));
    }
}
