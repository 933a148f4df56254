//! Softmax, scale, log-likelihood of counts and its gradient, one cell at a time and each number once.
//!
//! A row of logits becomes the gradient of the logits, in place, while it is in the first cache. With `q = mu / theta` the
//! negative binomial's terms at a count of 0 are `-theta ln(1 + q)` and, by `ln mu`, `-theta q / (1 + q)`: no `lgamma`, and exact for
//! any dispersion, where `theta (ln theta - ln(theta + mu))` in single precision loses all digits. Every gene is first treated as if its
//! count were 0; then the counts above 0 add their terms, 16 at a time.
//!
//! The value of the negative binomial needs that logarithm of every gene of every cell, but only its sum over cells is asked for, and
//! theta is a gene's: `1 + q` is multiplied over the rows of a block, and [`finish`] takes one logarithm per gene.
//!
//! What depends on a count and a constant dispersion alone is not computed here: see [`constants`].

use super::{
    buffer::{Buffer, padded},
    lanes::{LANES, Lanes, kernel},
    math::{LARGEST, exp, exp_of_negative, lgamma_digamma, ln, ln_1p, reciprocal},
};

/// Which distribution the counts have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Counts {
    /// Negative binomial.
    NegativeBinomial,
    /// Negative binomial with extra zeros.
    ZeroInflated,
    /// Poisson.
    Poisson,
}

/// What follows from the dispersion of each gene alone.
#[derive(Clone, Debug)]
pub(crate) struct Dispersion {
    theta: Buffer,
    /// One over theta, which is kept from 0.
    inverse: Buffer,
    /// Logarithm of theta, which is kept from 0.
    log: Buffer,
    lgamma: Buffer,
    digamma: Buffer,
}

impl Dispersion {
    /// Room for so many genes.
    pub(crate) fn new(n_genes: usize) -> Self {
        let zeros = || Buffer::zeros(padded(n_genes));
        Self { theta: zeros(), inverse: zeros(), log: zeros(), lgamma: zeros(), digamma: zeros() }
    }
}

kernel! {
    /// Fills in what follows from the logarithms of the dispersions.
    pub(crate) fn set_dispersion<V>(log_r: &[f32], dispersion: &mut Dispersion) {
        let chunk = |i: usize| i * LANES..(i + 1) * LANES;
        for (i, log_r) in log_r.as_chunks::<LANES>().0.iter().enumerate() {
            let theta = exp(V::load(log_r));
            let kept = theta.add(V::splat(EPS));
            let (lgamma, digamma) = lgamma_digamma(theta);
            store(theta, &mut dispersion.theta[chunk(i)]);
            store(V::splat(1.0).div(kept), &mut dispersion.inverse[chunk(i)]);
            store(ln(kept), &mut dispersion.log[chunk(i)]);
            store(lgamma, &mut dispersion.lgamma[chunk(i)]);
            store(digamma, &mut dispersion.digamma[chunk(i)]);
        }
    }
}

/// One cell, and what is wanted of it.
pub(crate) struct Row<'a> {
    /// Logits of the shares, padded; becomes their gradient.
    pub(crate) logits: &'a mut [f32],
    /// Logits of an extra zero, like `logits`; becomes their gradient. Empty where there are none.
    pub(crate) dropout: &'a mut [f32],
    /// Number of genes.
    pub(crate) n_genes: usize,
    /// Genes with a count.
    pub(crate) genes: &'a [u32],
    /// Their counts.
    pub(crate) counts: &'a [f32],
    /// Sum of the counts.
    pub(crate) total: f32,
    /// Dispersion of each gene; not looked at for Poisson.
    pub(crate) dispersion: &'a Dispersion,
    /// What the log-likelihood's gradient is multiplied by: -1 over the number of cells, for a mean loss.
    pub(crate) scale: f32,
    /// Where the gradient of the log dispersions is added, if it is wanted.
    pub(crate) of_log_r: Option<&'a mut [f32]>,
}

/// Memory for one row at a time.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    /// `e^(logit - largest)`.
    exps: Buffer,
    /// Counts of the row, dense; zero between rows.
    pub(crate) dense: Buffer,
    /// Gradient by the logarithm of the rate.
    gradient: Buffer,
    /// Of the rows since the last [`finish`], gene by gene: product of `1 + q`, less powers of two before it grows too large.
    product: Buffer,
    /// What the product lacks of the sum of `ln(1 + q)`: those powers, and what rounding lost.
    rest: Buffer,
    /// Sum of `q / (1 + q)`.
    share: Buffer,
    /// Whether there was such a row.
    is_open: bool,
}

impl Scratch {
    /// For rows of so many genes.
    pub(crate) fn new(n_genes: usize) -> Self {
        let zeros = || Buffer::zeros(padded(n_genes));
        let mut product = zeros();
        product.fill(1.0);
        Self {
            exps: zeros(),
            dense: zeros(),
            gradient: zeros(),
            product,
            rest: zeros(),
            share: zeros(),
            is_open: false,
        }
    }
}

/// Log-likelihood of a row without its constants (see [`constants`]) and without what [`finish`] adds for all rows since the last time,
/// in nats; logits become gradients.
pub(crate) fn row(level: super::Level, kind: Counts, row: Row<'_>, scratch: &mut Scratch) -> f32 {
    match kind {
        Counts::NegativeBinomial => negative_binomial(level, row, scratch),
        Counts::ZeroInflated => zero_inflated(level, row, scratch),
        Counts::Poisson => poisson(level, row, scratch),
    }
}

kernel! {
    fn negative_binomial<V>(row: Row<'_>, scratch: &mut Scratch) -> f32 {
        let Row { logits, n_genes, genes, counts, total, dispersion, scale, of_log_r, .. } = row;
        scratch.is_open = true;
        let (factor, _) = softmax::<V>(logits, n_genes, &mut scratch.exps);
        let (rate, one, zero) = (V::splat(total * factor), V::splat(1.0), V::splat(0.0));
        let (largest, bound) = (V::splat(LARGEST), V::splat(LARGEST_PRODUCT));
        let mut slope = zero;
        let thetas = chunks(&dispersion.theta).iter().zip(chunks(&dispersion.inverse));
        let gradients = chunks(&scratch.exps).iter().zip(scratch.gradient.as_chunks_mut::<LANES>().0);
        let sums = scratch.product.as_chunks_mut::<LANES>().0.iter_mut().zip(scratch.rest.as_chunks_mut::<LANES>().0);
        let shares = scratch.share.as_chunks_mut::<LANES>().0;
        for ((((exps, gradient), (theta, inverse)), (product, rest)), sum) in gradients.zip(thetas).zip(sums).zip(shares) {
            let q = largest.min(V::load(exps).mul(rate).mul(V::load(inverse)));
            let u = q.add(one);
            let over = reciprocal(u);
            // What the sum lost of q, as in `ln_1p`.
            let lost = q.sub(u.sub(one));
            let mut more = lost.mul_add(over, V::load(rest));
            let mut grown = u.mul(V::load(product));
            if grown.any_above(bound) {
                let (exponent, mantissa) = grown.exponent_and_mantissa();
                (more, grown) = (exponent.mul_add(V::splat(std::f32::consts::LN_2), more), mantissa);
            }
            more.store(rest);
            grown.store(product);
            let share = q.mul(over);
            if of_log_r.is_some() {
                V::load(sum).add(share).store(sum);
            }
            let by_rate = zero.sub(V::load(theta).mul(share));
            slope = slope.add(by_rate);
            by_rate.store(gradient);
        }
        let (more, steeper) =
            at_counts::<V>(genes, counts, total * factor, scale, dispersion, scratch, of_log_r);
        to_logits::<V>(logits, &scratch.exps, &scratch.gradient, slope.sum() + steeper, factor, scale);
        more
    }
}

/// What all rows since the last time add to the log-likelihood together, in nats, and to the gradient of the log dispersions.
pub(crate) fn finish(
    level: super::Level,
    dispersion: &Dispersion,
    scale: f32,
    of_log_r: Option<&mut [f32]>,
    scratch: &mut Scratch,
) -> f32 {
    if !scratch.is_open { 0.0 } else { finish_rows(level, dispersion, scale, of_log_r, scratch) }
}

kernel! {
    fn finish_rows<V>(dispersion: &Dispersion, scale: f32, of_log_r: Option<&mut [f32]>, scratch: &mut Scratch) -> f32 {
        let mut of_log_r = of_log_r;
        scratch.is_open = false;
        let mut value = V::splat(0.0);
        let thetas = chunks(&dispersion.theta).iter().zip(chunks(&dispersion.inverse));
        let sums = scratch.product.as_chunks_mut::<LANES>().0.iter_mut().zip(scratch.rest.as_chunks_mut::<LANES>().0);
        let shares = scratch.share.as_chunks_mut::<LANES>().0;
        for (i, (((theta, inverse), (product, rest)), share)) in thetas.zip(sums).zip(shares).enumerate() {
            let (theta, inverse) = (V::load(theta), V::load(inverse));
            let log = ln(V::load(product)).add(V::load(rest));
            value = theta.neg_mul_add(log, value);
            if let Some(of_log_r) = of_log_r.as_deref_mut() {
                let sum = &mut of_log_r.as_chunks_mut::<LANES>().0[i];
                let by_theta = theta.mul(inverse).mul(V::load(share)).sub(log).mul(theta);
                by_theta.mul_add(V::splat(scale), V::load(sum)).store(sum);
            }
            V::splat(1.0).store(product);
            V::splat(0.0).store(rest);
            V::splat(0.0).store(share);
        }
        value.sum()
    }
}

kernel! {
    fn zero_inflated<V>(row: Row<'_>, scratch: &mut Scratch) -> f32 {
        let Row { logits, dropout, n_genes, genes, counts, total, dispersion, scale, mut of_log_r } = row;
        let (factor, _) = softmax::<V>(logits, n_genes, &mut scratch.exps);
        dropout[n_genes..].fill(0.0);
        for (&gene, &count) in genes.iter().zip(counts) {
            scratch.dense[gene as usize] = count;
        }
        let (rate, zero, one) = (V::splat(total * factor), V::splat(0.0), V::splat(1.0));
        let (mut value, mut slope) = (zero, zero);
        let thetas = chunks(&dispersion.theta).iter().zip(chunks(&dispersion.inverse));
        let gradients = chunks(&scratch.exps).iter().zip(scratch.gradient.as_chunks_mut::<LANES>().0);
        let inflation = dropout.as_chunks_mut::<LANES>().0.iter_mut().zip(scratch.dense.as_chunks_mut::<LANES>().0);
        for (i, (((exps, gradient), (theta, inverse)), (pi, dense))) in
            gradients.zip(thetas).zip(inflation).enumerate()
        {
            let (theta, inverse, logit) = (V::load(theta), V::load(inverse), V::load(pi));
            let q = V::load(exps).mul(rate).mul(inverse);
            let (log, over) = ln_1p(q);
            let share = q.mul(over);
            let a = zero.sub(theta.mul_add(log, logit));
            // softplus(a) and softplus(-logit), and the logistic functions of both.
            let (e_a, e_logit) = (exp(a.min(zero.sub(a))), exp(logit.min(zero.sub(logit))));
            let (log_a, over_a) = ln_1p(e_a);
            let (log_logit, over_logit) = ln_1p(e_logit);
            let softplus_a = zero.max(a).add(log_a);
            let softplus_logit = zero.max(zero.sub(logit)).add(log_logit);
            let sigmoid_a = a.where_below(zero, e_a.mul(over_a), over_a);
            let not_logit = logit.where_below(zero, over_logit, e_logit.mul(over_logit));
            let count = V::load(dense);
            zero.store(dense);
            // Padding has neither rate nor logit: its two softplus cancel.
            value = value.add(count.where_below(V::splat(EPS), softplus_a, a).sub(softplus_logit));
            let weight = count.where_below(V::splat(EPS), sigmoid_a, one);
            let by_rate = zero.sub(weight.mul(theta).mul(share));
            slope = slope.add(by_rate);
            by_rate.store(gradient);
            not_logit.sub(weight).mul(V::splat(scale)).store(pi);
            if let Some(of_log_r) = of_log_r.as_deref_mut() {
                let sum = &mut of_log_r.as_chunks_mut::<LANES>().0[i];
                let by_theta = theta.mul(inverse).mul(share).sub(log).mul(theta).mul(weight);
                by_theta.mul_add(V::splat(scale), V::load(sum)).store(sum);
            }
        }
        let (more, steeper) =
            at_counts::<V>(genes, counts, total * factor, scale, dispersion, scratch, of_log_r);
        to_logits::<V>(logits, &scratch.exps, &scratch.gradient, slope.sum() + steeper, factor, scale);
        value.sum() + more
    }
}

kernel! {
    fn poisson<V>(row: Row<'_>, scratch: &mut Scratch) -> f32 {
        let Row { logits, n_genes, genes, counts, total, scale, .. } = row;
        let (factor, largest) = softmax::<V>(logits, n_genes, &mut scratch.exps);
        let rate = V::splat(total * factor);
        let mut slope = V::splat(0.0);
        for (exps, gradient) in chunks(&scratch.exps).iter().zip(scratch.gradient.as_chunks_mut::<LANES>().0) {
            let by_rate = V::splat(0.0).sub(V::load(exps).mul(rate));
            slope = slope.add(by_rate);
            by_rate.store(gradient);
        }
        let dense = slope.sum();
        let (mut value, mut steeper) = (V::splat(0.0), V::splat(0.0));
        // From the logit, a rate too small for a number still has its logarithm.
        let shift = ln(rate).sub(V::splat(largest));
        for (genes, counts) in genes.chunks(LANES).zip(counts.chunks(LANES)) {
            let (at, x) = (filled(genes), V::load(&filled(counts)));
            let log = V::gather(logits, &at).add(shift);
            value = value.add(V::splat(0.0).where_below(x, x.mul(log), V::splat(0.0)));
            steeper = steeper.add(x);
            x.scatter_add(&mut scratch.gradient, &at, genes.len());
        }
        to_logits::<V>(logits, &scratch.exps, &scratch.gradient, dense + steeper.sum(), factor, scale);
        dense + value.sum()
    }
}

/// `e^(logit - largest)` of a row; one over their sum, and the largest logit.
#[inline(always)]
fn softmax<V: Lanes>(logits: &mut [f32], n_genes: usize, exps: &mut Buffer) -> (f32, f32) {
    logits[n_genes..].fill(f32::NEG_INFINITY);
    let logits = chunks(logits);
    let mut largest = V::splat(f32::NEG_INFINITY);
    for logits in logits {
        largest = largest.max(V::load(logits));
    }
    let largest = largest.largest();
    let mut sum = V::splat(0.0);
    for (logits, exps) in logits.iter().zip(exps.as_chunks_mut::<LANES>().0) {
        let e = exp_of_negative(V::load(logits).sub(V::splat(largest)));
        sum = sum.add(e);
        e.store(exps);
    }
    (1.0 / sum.sum(), largest)
}

/// The terms of counts above 0: what they add to the log-likelihood, and to the sum of the gradient by the rates' logarithms. With a
/// gradient of the dispersions, the terms that are theirs alone belong to the value too.
#[inline(always)]
fn at_counts<V: Lanes>(
    genes: &[u32],
    counts: &[f32],
    rate: f32,
    scale: f32,
    dispersion: &Dispersion,
    scratch: &mut Scratch,
    mut of_log_r: Option<&mut [f32]>,
) -> (f32, f32) {
    let (mut value, mut slope) = (V::splat(0.0), V::splat(0.0));
    let (rate, eps, zero, one) = (V::splat(rate), V::splat(EPS), V::splat(0.0), V::splat(1.0));
    let largest = V::splat(LARGEST);
    for (genes, counts) in genes.chunks(LANES).zip(counts.chunks(LANES)) {
        // Lanes without a count stand for the first gene and add nothing.
        let (n, at, x) = (genes.len(), filled(genes), V::load(&filled(counts)));
        let inverse = V::gather(&dispersion.inverse, &at);
        let mu = V::gather(&scratch.exps, &at).mul(rate);
        let q = largest.min(mu.mul(inverse));
        let over = reciprocal(q.add(one));
        let kept = largest.min(mu.add(eps));
        let log = ln(kept.mul(over));
        let by_rate = x.mul(mu.mul(reciprocal(kept)).sub(q.mul(over)));
        slope = slope.add(by_rate);
        by_rate.scatter_add(&mut scratch.gradient, &at, n);
        value = x.mul_add(log, value);
        if let Some(of_log_r) = of_log_r.as_deref_mut() {
            let theta = V::gather(&dispersion.theta, &at);
            let (lgamma, digamma) = lgamma_digamma(x.add(theta));
            let gained = zero.where_below(x, lgamma.sub(V::gather(&dispersion.lgamma, &at)), zero);
            value = value.add(x.neg_mul_add(V::gather(&dispersion.log, &at), gained));
            let by_theta = digamma.sub(V::gather(&dispersion.digamma, &at)).sub(x.mul(inverse).mul(over));
            by_theta.mul(theta).mul(V::splat(scale)).scatter_add(of_log_r, &at, n);
        }
    }
    (value.sum(), slope.sum())
}

/// From the gradient by the logarithm of each rate to that by each logit.
#[inline(always)]
fn to_logits<V: Lanes>(logits: &mut [f32], exps: &[f32], gradient: &[f32], slope: f32, factor: f32, scale: f32) {
    let (slope, scale) = (V::splat(slope * factor), V::splat(scale));
    let rows = chunks(exps).iter().zip(chunks(gradient));
    for (logits, (exps, gradient)) in logits.as_chunks_mut::<LANES>().0.iter_mut().zip(rows) {
        V::load(exps).neg_mul_add(slope, V::load(gradient)).mul(scale).store(logits);
    }
}

kernel! {
    /// The terms of a row's log-likelihood that depend on its counts, and on the dispersions unless these train: `-lgamma(x + 1)`,
    /// and `lgamma(x + theta) - lgamma(theta) - x ln theta` where a dispersion is given.
    pub(crate) fn constants<V>(genes: &[u32], counts: &[f32], dispersion: Option<&Dispersion>) -> f64 {
        let mut total = 0.0;
        for (genes, counts) in genes.chunks(LANES).zip(counts.chunks(LANES)) {
            let (mut x, mut theta, mut log, mut lgamma) = ([0.0; LANES], [1.0; LANES], [0.0; LANES], [0.0; LANES]);
            for (i, (&gene, &count)) in genes.iter().zip(counts).enumerate() {
                x[i] = count;
                if let Some(dispersion) = dispersion {
                    let gene = gene as usize;
                    (theta[i], log[i], lgamma[i]) =
                        (dispersion.theta[gene], dispersion.log[gene], dispersion.lgamma[gene]);
                }
            }
            let (x, one, zero) = (V::load(&x), V::splat(1.0), V::splat(0.0));
            let mut terms = zero.sub(lgamma_digamma(x.add(one)).0);
            if dispersion.is_some() {
                let gained = lgamma_digamma(x.add(V::load(&theta))).0.sub(V::load(&lgamma));
                terms = terms.add(x.neg_mul_add(V::load(&log), gained));
            }
            total += f64::from(zero.where_below(x, terms, zero).sum());
        }
        total
    }
}

/// Up to 16 of something, and zeros.
#[inline(always)]
fn filled<T: Copy + Default>(some: &[T]) -> [T; LANES] {
    // Whole chunks, nearly all, are copied without a call.
    some.first_chunk().copied().unwrap_or_else(|| {
        let mut all = [T::default(); LANES];
        all[..some.len()].copy_from_slice(some);
        all
    })
}

#[inline(always)]
fn chunks(values: &[f32]) -> &[[f32; LANES]] {
    values.as_chunks().0
}

#[inline(always)]
fn store<V: Lanes>(value: V, to: &mut [f32]) {
    value.store(to.try_into().expect("a chunk has as many numbers as there are lanes"));
}

/// Above it a product gives its powers of two away; one more factor does not make it infinite.
const LARGEST_PRODUCT: f32 = (1 << 24) as f32;

/// Keeps logarithms finite, as upstream does; also the border between zero and a count.
const EPS: f32 = 1e-8;

#[cfg(test)]
#[path = "likelihood_tests.rs"]
mod tests;
