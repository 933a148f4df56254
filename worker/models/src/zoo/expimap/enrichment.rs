//! Whether a term is higher in some cells than in others: the probability of that, and its Bayes factor.
//!
//! Cells of both sides are drawn with replacement and compared pair by pair. Exactly, a pair's probability is that of the difference of
//! two normal numbers; by sampling, it is 0 or 1.

use ndarray::{Array2, ArrayView2};

/// The sides of a comparison: latent means (or drawn states) of as many cells, `[n_pairs, n_terms]`, with variances where the
/// probability is to be exact.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// Of the cells that are asked about.
    pub group: ArrayView2<'a, f32>,
    /// Of those that they are compared with.
    pub rest: ArrayView2<'a, f32>,
    /// Variances of both.
    pub vars: Option<(ArrayView2<'a, f32>, ArrayView2<'a, f32>)>,
}

/// What a comparison says of each term.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Enriched {
    /// The probability that it is higher in the group.
    pub p_h0: Vec<f64>,
    /// That it is lower.
    pub p_h1: Vec<f64>,
    /// The logarithm of the ratio of both.
    pub bf: Vec<f64>,
}

/// Compares two sides. With directions, 1, -1 or 0 for each term, "higher" means more of the term's genes, and a term without a
/// direction, or without a number other than 0 on one side, has no answer: 0.
///
/// # Source   Lotfollahi, Rybakov et al. 2023; checked against `latent_enrich` of scArches 0.6.1
pub fn enriched(sides: Sides<'_>, directions: Option<&[f32]>) -> Enriched {
    let directed = |side: ArrayView2<'_, f32>| -> Array2<f32> {
        let mut side = side.to_owned();
        for (mut column, &direction) in side.columns_mut().into_iter().zip(directions.unwrap_or_default()) {
            column *= direction;
        }
        side
    };
    let (group, rest) = (directed(sides.group), directed(sides.rest));
    let mut found = Enriched::default();
    for (term, (a, b)) in group.columns().into_iter().zip(rest.columns()).enumerate() {
        let pair = |row: usize| -> f64 {
            let (a, b) = (f64::from(a[row]), f64::from(b[row]));
            match &sides.vars {
                None => f64::from(u8::from(a > b)),
                Some((va, vb)) => {
                    let var = f64::from(va[[row, term]]) + f64::from(vb[[row, term]]);
                    0.5 * libm::erfc((b - a) / (2.0 * var).sqrt())
                }
            }
        };
        let is_dead = directions.is_some() && (a.iter().all(|&x| x == 0.0) || b.iter().all(|&x| x == 0.0));
        let p = (0..a.len()).map(pair).sum::<f64>() / a.len().max(1) as f64;
        let (p_h0, p_h1, bf) =
            if is_dead { (0.0, 0.0, 0.0) } else { (p, 1.0 - p, (p + TINY).ln() - (1.0 - p + TINY).ln()) };
        found.p_h0.push(p_h0);
        found.p_h1.push(p_h1);
        found.bf.push(bf);
    }
    found
}

/// Upstream's: keeps logarithms finite.
const TINY: f64 = 1e-12;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_sign_follows_the_direction_and_without_one_there_is_no_answer() {
        let (group, rest) = (array![[2.0_f32, 2.0, 2.0]], array![[0.0_f32, 0.0, 1.0]]);
        let vars = array![[1.0_f32, 1.0, 1.0]];
        let sides = Sides { group: group.view(), rest: rest.view(), vars: Some((vars.view(), vars.view())) };
        let plain = enriched(sides, None);
        assert!(plain.bf.iter().all(|&bf| bf > 0.0));
        let directed = enriched(sides, Some(&[-1.0, 0.0, -1.0]));
        // The first has only zeros on one side, as upstream has it.
        assert_eq!((directed.bf[0], directed.bf[1]), (0.0, 0.0));
        assert!((directed.bf[2] + plain.bf[2]).abs() < 1e-9);
        let drawn = enriched(Sides { vars: None, ..sides }, None);
        assert_eq!(drawn.p_h0, [1.0; 3]);
    }
}
