//! Proteins: denoised, told apart from background, imputed where they were not measured.
//!
//! To impute, ask for expression as it would be in conditions that were stained: see [`CountResults::best_stained`].

use ndarray::{Array2, Axis, concatenate};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::{CountResults, ExpressionAsk, LibraryAsk, to_vec};
use crate::{
    data::Minibatch,
    distributions::{ProteinParameters, protein},
    error::{Error, Result},
    model::{Decoded, ProteinModel},
    nn::{Mode, Pass},
    reference::to_array,
};

/// Which protein expression is asked for, with the RNA of the same draws.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ProteinAsk {
    /// Conditions, draws, and what the RNA of a cell adds up to.
    pub expression: ExpressionAsk,
    /// Adds the background to the foreground.
    pub include_background: bool,
    /// Draws whether a count is background, where the expectation would be taken otherwise.
    pub sample_mixing: bool,
    /// Divides a cell's proteins by their sum.
    pub scale: bool,
}

/// Denoised RNA and proteins of the same draws.
#[derive(Clone, PartialEq, Debug)]
pub struct JointExpression {
    /// `[n_cells, n_genes]`
    pub rna: Array2<f32>,
    /// `[n_cells, n_proteins]`
    pub proteins: Array2<f32>,
}

/// RNA, `[n, n_genes]`, and proteins, `[n, n_proteins]`, of some cells: means over conditions and draws. Efficiencies of conditions
/// are not part of it.
pub fn protein_expression_of(
    model: &dyn ProteinModel,
    minibatch: &Minibatch,
    ask: &ProteinAsk,
    rng: &mut ChaCha8Rng,
    pass: &mut Pass<'_>,
) -> (Tensor, Tensor) {
    let (mut rna, mut proteins) = (Mean::default(), Mean::default());
    each_draw(model, minibatch, &ask.expression, pass, |decoded, parameters| {
        rna.add(match ask.expression.library {
            LibraryAsk::Scaled(size) => decoded.scale * size,
            LibraryAsk::Latent => decoded.counts.rate,
        });
        let background =
            if ask.sample_mixing { drawn_background(&parameters, rng) } else { parameters.mixing.sigmoid() };
        let foreground = &parameters.rate_fore * (1.0 - &background);
        let expression =
            if ask.include_background { foreground + &parameters.rate_back * background } else { foreground };
        proteins.add(if ask.scale { protein::shares(&expression) } else { expression });
    });
    (rna.value(), proteins.value())
}

/// Probability of each protein count's being foreground, `[n, n_proteins]`, the mean over conditions and draws.
pub fn foreground_probability_of(
    model: &dyn ProteinModel,
    minibatch: &Minibatch,
    ask: &ExpressionAsk,
    pass: &mut Pass<'_>,
) -> Tensor {
    let mut mean = Mean::default();
    each_draw(model, minibatch, ask, pass, |_, parameters| mean.add(parameters.foreground_probability()));
    mean.value()
}

impl CountResults<'_> {
    /// The protein model inside.
    ///
    /// # Errors  [`Error::NotProteinModel`]
    pub(super) fn protein_model(&self) -> Result<&dyn ProteinModel> {
        self.module.as_protein_model().ok_or_else(|| Error::NotProteinModel { model: self.name.clone() })
    }

    /// Normalised expression of RNA and proteins of every cell.
    ///
    /// # Errors  [`Error::NotProteinModel`]
    pub fn joint_expression(&self, ask: &ProteinAsk) -> Result<JointExpression> {
        let cells: Vec<usize> = (0..self.dataset.n_cells()).collect();
        self.joint_expression_of_cells(&cells, ask, "joint expression")
    }

    /// Probability that a protein count is no background, `[n_cells, n_proteins]`.
    ///
    /// # Errors  [`Error::NotProteinModel`]
    pub fn foreground_probability(&self, ask: &ExpressionAsk) -> Result<Array2<f32>> {
        let model = self.protein_model()?;
        Ok(self.by_chunk("foreground", |minibatch, pass| foreground_probability_of(model, minibatch, ask, pass)))
    }

    /// Expected background of each protein, `[n_cells, n_proteins]`.
    ///
    /// # Errors  [`Error::NotProteinModel`]
    pub fn background_mean(&self, ask: &ExpressionAsk) -> Result<Array2<f32>> {
        let model = self.protein_model()?;
        Ok(self.by_chunk("background", |minibatch, pass| {
            let mut mean = Mean::default();
            each_draw(model, minibatch, ask, pass, |_, parameters| mean.add(parameters.rate_back));
            mean.value()
        }))
    }

    /// Mean of the library size of each cell as the encoder sees it, upstream's latent library size. With an observed library
    /// size nothing trains it; [`Self::library_size`] is the total count then.
    ///
    /// # Errors  [`Error::NotProteinModel`], [`Error::Minified`] without counts
    pub fn latent_library_size(&self) -> Result<Vec<f32>> {
        let model = self.protein_model()?;
        if self.dataset.minified.is_some() {
            return Err(Error::Minified { what: "the library size that an encoder sees" });
        }
        let sizes = self.by_chunk("latent library", |minibatch, pass| {
            let posterior = model.library_posterior(minibatch, pass);
            (posterior.mean + posterior.var / 2.0).exp()
        });
        Ok(sizes.iter().copied().collect())
    }

    /// Codes of the conditions that were stained for the most proteins: what to impute from.
    ///
    /// # Errors  [`Error::NotProteinModel`]
    pub fn best_stained(&self) -> Result<Vec<i64>> {
        let measured = to_array(self.protein_model()?.measured());
        let totals: Vec<f32> = measured.rows().into_iter().map(|row| row.sum()).collect();
        let most = totals.iter().copied().fold(0.0, f32::max);
        Ok((0..).zip(&totals).filter(|(_, total)| **total == most).map(|(code, _)| code).collect())
    }

    /// Normalised expression of some cells, a cell as often as it is named.
    pub(super) fn joint_expression_of_cells(
        &self,
        cells: &[usize],
        ask: &ProteinAsk,
        purpose: &str,
    ) -> Result<JointExpression> {
        let model = self.protein_model()?;
        let _guard = tch::no_grad_guard();
        let mut noise = self.noise(purpose);
        let mut rng = ChaCha8Rng::from_seed(self.seeds.of(purpose, 1));
        let (mut rna, mut proteins) = (Vec::new(), Vec::new());
        for cells in cells.chunks(super::EVALUATION_MINIBATCH) {
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            let (r, p) = protein_expression_of(model, &self.minibatch(cells), ask, &mut rng, &mut pass);
            rna.push(to_array(&r));
            proteins.push(to_array(&p));
        }
        Ok(JointExpression { rna: stacked(&rna), proteins: stacked(&proteins) })
    }

    fn by_chunk(&self, purpose: &str, values: impl Fn(&Minibatch, &mut Pass<'_>) -> Tensor) -> Array2<f32> {
        let _guard = tch::no_grad_guard();
        let mut noise = self.noise(purpose);
        let chunk = |cells: &Vec<usize>| {
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            to_array(&values(&self.minibatch(cells), &mut pass))
        };
        stacked(&self.chunks().iter().map(chunk).collect::<Vec<_>>())
    }
}

/// Decodes draw after draw: a fresh one for every condition and sample.
fn each_draw(
    model: &dyn ProteinModel,
    minibatch: &Minibatch,
    ask: &ExpressionAsk,
    pass: &mut Pass<'_>,
    mut take: impl FnMut(Decoded, ProteinParameters),
) {
    for code in ask.codes() {
        let draw = model.draw(minibatch, pass);
        let transformed = code.map(|code| minibatch.covariates.with_condition(code));
        let covariates = transformed.as_ref().unwrap_or(&minibatch.covariates);
        let (decoded, parameters) = model.decode_both(&draw, minibatch, covariates, pass);
        take(decoded, parameters);
    }
}

/// 1 where a count is drawn to be background, else 0.
pub(super) fn drawn_background(parameters: &ProteinParameters, rng: &mut ChaCha8Rng) -> Tensor {
    let probability = parameters.mixing.sigmoid();
    let bits: Vec<f32> = to_vec(&probability).iter().map(|&p| f32::from(u8::from(rng.random::<f32>() < p))).collect();
    Tensor::from_slice(&bits).reshape_as(&probability).to_device(probability.device())
}

fn stacked(parts: &[Array2<f32>]) -> Array2<f32> {
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    concatenate(Axis(0), &views).expect("all parts have the same columns")
}

/// A mean that grows.
#[derive(Default)]
struct Mean {
    sum: Option<Tensor>,
    n: f64,
}

impl Mean {
    fn add(&mut self, value: Tensor) {
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum + value,
            None => value,
        });
        self.n += 1.0;
    }

    fn value(self) -> Tensor {
        self.sum.expect("there is at least one draw") / self.n
    }
}
