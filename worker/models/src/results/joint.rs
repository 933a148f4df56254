//! Results over genes and proteins together: drawn counts, correlations, differential expression.

use archipelago_anndata::Csr;
use ndarray::{Array2, Axis, concatenate};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::{
    CountResults, ExpressionAsk, GroupAsk, LibraryAsk, ProteinAsk, RawStatistics,
    correlation::{Correlation, DENOISED_LIBRARY, correlate},
    differential_expression::{DifferentialExpression, Draws, decide},
    predictive::{draw_counts, gamma, poisson},
    proteins::drawn_background,
    to_vec,
};
use crate::{
    distributions::ProteinParameters,
    error::Result,
    nn::{Mode, Pass},
};

/// Counts drawn from the posterior predictive distribution of the same latent state.
#[derive(Clone, PartialEq, Debug)]
pub struct JointSample {
    /// Cells × genes.
    pub rna: Csr,
    /// `[n_cells, n_proteins]`
    pub proteins: Array2<f32>,
}

/// Which correlation of features is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct CorrelationAsk {
    /// Condition codes that cells are decoded as, averaged over; empty decodes every cell as its own.
    pub transform: Vec<i64>,
    /// Draws per cell; upstream takes 10.
    pub n_samples: usize,
    /// How features are compared.
    pub kind: Correlation,
    /// Whether logarithms are compared: of RNA, and of one more than a protein count.
    pub log: bool,
}

impl Default for CorrelationAsk {
    fn default() -> Self {
        Self { transform: vec![], n_samples: 10, kind: Correlation::default(), log: false }
    }
}

impl CountResults<'_> {
    /// Draws RNA and protein counts of every cell, `n_samples` times. Efficiencies of conditions are not part of it.
    ///
    /// # Errors  [`crate::Error::NotProteinModel`], [`crate::Error::Anndata`]
    pub fn joint_predictive(&self, n_samples: usize) -> Result<Vec<JointSample>> {
        let model = self.protein_model()?;
        let _guard = tch::no_grad_guard();
        let mut noise = self.noise("joint predictive");
        let mut rng = ChaCha8Rng::from_seed(self.seeds.of("joint counts", 0));
        let (n_genes, n_proteins) = (self.dataset.counts.n_cols(), self.n_proteins());
        let mut samples = Vec::with_capacity(n_samples);
        for _ in 0..n_samples {
            let (mut rna, mut proteins) = (Vec::new(), Vec::new());
            for cells in self.chunks() {
                let minibatch = self.minibatch(&cells);
                let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
                let draw = model.draw(&minibatch, &mut pass);
                let (decoded, parameters) = model.decode_both(&draw, &minibatch, &minibatch.covariates, &mut pass);
                let counts = draw_counts(&decoded, model.likelihood(), &mut rng);
                rna.push(Csr::from_dense(cells.len(), n_genes, &counts)?);
                proteins.extend(draw_proteins(&parameters, &mut rng));
            }
            let proteins = Array2::from_shape_vec((self.dataset.n_cells(), n_proteins), proteins);
            let proteins = proteins.expect("every cell has a draw per protein");
            samples.push(JointSample { rna: Csr::vstack(n_genes, rna)?, proteins });
        }
        Ok(samples)
    }

    /// Correlation of every gene and protein with each other, genes first, `[n_features, n_features]`, over denoised draws
    /// without library size effects; the mean over the conditions asked for.
    ///
    /// # Errors  [`crate::Error::NotProteinModel`]
    pub fn joint_correlation(&self, ask: &CorrelationAsk) -> Result<Array2<f64>> {
        let codes: Vec<Option<i64>> =
            if ask.transform.is_empty() { vec![None] } else { ask.transform.iter().copied().map(Some).collect() };
        let n_features = self.dataset.counts.n_cols() + self.n_proteins();
        let mut sum = Array2::zeros((n_features, n_features));
        for (round, &code) in codes.iter().enumerate() {
            sum += &correlate(self.joint_denoised(code, ask, round as u64)?, ask.kind);
        }
        Ok(sum / codes.len() as f64)
    }

    /// Gamma draws, feature by feature; a protein drawn to be background is 0.
    fn joint_denoised(&self, code: Option<i64>, ask: &CorrelationAsk, round: u64) -> Result<Vec<Vec<f64>>> {
        let model = self.protein_model()?;
        let _guard = tch::no_grad_guard();
        let mut noise = crate::nn::SeededNoise::new(self.seeds.of("joint correlation", round));
        let mut rng = ChaCha8Rng::from_seed(self.seeds.of("joint gamma", round));
        let (n_genes, n_proteins) = (self.dataset.counts.n_cols(), self.n_proteins());
        let mut columns = vec![Vec::new(); n_genes + n_proteins];
        let log_of = |log: fn(f64) -> f64| if ask.log { log } else { std::convert::identity };
        let (log_rna, log_protein) = (log_of(|value| (value + SMALLEST).ln()), log_of(f64::ln_1p));
        for _ in 0..ask.n_samples.max(1) {
            for cells in self.chunks() {
                let minibatch = self.minibatch(&cells);
                let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
                let draw = model.draw(&minibatch, &mut pass);
                let transformed = code.map(|code| minibatch.covariates.with_condition(code));
                let covariates = transformed.as_ref().unwrap_or(&minibatch.covariates);
                let (decoded, parameters) = model.decode_both(&draw, &minibatch, covariates, &mut pass);
                let r = decoded.counts.r.as_ref().expect("genes have a dispersion");
                let shapes = to_vec(&r.expand_as(&decoded.scale).contiguous());
                for (i, &mean) in to_vec(&(&decoded.scale * DENOISED_LIBRARY)).iter().enumerate() {
                    columns[i % n_genes].push(log_rna(gamma(f64::from(shapes[i]), f64::from(mean), &mut rng)));
                }
                let shapes = to_vec(&parameters.r.expand_as(&parameters.rate_fore).contiguous());
                let background = to_vec(&drawn_background(&parameters, &mut rng));
                for (i, &mean) in to_vec(&parameters.rate_fore).iter().enumerate() {
                    let drawn = gamma(f64::from(shapes[i]), f64::from(mean), &mut rng);
                    let value = drawn * f64::from(1.0 - background[i]);
                    columns[n_genes + i % n_proteins].push(log_protein(value));
                }
            }
        }
        Ok(columns)
    }

    /// Compares two groups of cells, gene by gene and then protein by protein. Upstream decides by change, with a pseudocount
    /// of 1e-5: [`Change::of_proteins`](super::differential_expression::Change::of_proteins).
    ///
    /// # Errors  [`crate::Error::NotProteinModel`], and those of [`Self::differential_expression`]
    pub fn joint_differential_expression(
        &self,
        ask: &GroupAsk,
        proteins: &ProteinAsk,
    ) -> Result<DifferentialExpression> {
        self.check_groups(ask)?;
        self.protein_model()?;
        let expression = |cells: &[usize], one: &ExpressionAsk, purpose: &str| {
            let library = LibraryAsk::Scaled(1.0);
            let ask = ProteinAsk { expression: ExpressionAsk { library, ..one.clone() }, ..proteins.clone() };
            let joint = self.joint_expression_of_cells(cells, &ask, purpose).expect("it was checked above");
            let proteins = joint.proteins + PRIOR_COUNT;
            concatenate(Axis(1), &[joint.rna.view(), proteins.view()]).expect("both have a row per cell")
        };
        let first = self.draws(&ask.first, ask, "first group", &expression);
        let second = self.draws(&ask.second, ask, "second group", &expression);
        let means =
            |cells: &[usize]| -> Vec<f64> { self.joint_raw_statistics(cells).iter().map(|raw| raw.mean).collect() };
        let draws = Draws { first: first.view(), second: second.view() };
        decide(draws, (&means(&ask.first), &means(&ask.second)), &ask.decision)
    }

    /// Raw statistics of every gene and then of every protein over some cells. Proteins have no normalised mean: it is not a
    /// number.
    pub fn joint_raw_statistics(&self, cells: &[usize]) -> Vec<RawStatistics> {
        let n = cells.len().max(1) as f64;
        let mut sums = vec![(0.0, 0.0); self.n_proteins()];
        if let Ok(model) = self.protein_model() {
            let proteins = self.dataset.matrix(model.proteins());
            for &cell in cells {
                let (columns, counts) = proteins.row(cell);
                for (&protein, &count) in columns.iter().zip(counts).filter(|(_, count)| **count > 0.0) {
                    let sum = &mut sums[protein as usize];
                    *sum = (sum.0 + f64::from(count), sum.1 + 1.0);
                }
            }
        }
        let of_protein = |(sum, n_seen): (f64, f64)| RawStatistics {
            mean: sum / n,
            non_zero: n_seen / n,
            normalised_mean: f64::NAN,
        };
        self.raw_statistics(cells).into_iter().chain(sums.into_iter().map(of_protein)).collect()
    }

    /// Number of proteins of the panel; none for a model of RNA alone.
    pub(super) fn n_proteins(&self) -> usize {
        self.protein_model().map_or(0, |model| model.proteins().width())
    }
}

/// One draw for every cell and protein, row by row.
fn draw_proteins(parameters: &ProteinParameters, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let background = drawn_background(parameters, rng);
    let means = to_vec(&(&parameters.rate_fore * (1.0 - &background) + &parameters.rate_back * &background));
    let shapes = to_vec(&parameters.r.expand_as(&parameters.rate_fore).contiguous());
    means.iter().zip(shapes).map(|(&mean, r)| poisson(gamma(f64::from(r), f64::from(mean), rng), rng)).collect()
}

/// Added to the expression of proteins before fold changes are taken, upstream's.
const PRIOR_COUNT: f32 = 0.1;
/// Keeps logarithms finite.
const SMALLEST: f64 = 1e-8;
