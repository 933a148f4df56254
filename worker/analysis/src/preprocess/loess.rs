//! Local quadratic regression of one variable on another, as `loess` of Cleveland and Grosse computes it.
//!
//! The exact local fit is made at few places only: the ends of cells that a binary division of the data leaves. In
//! between, a cubic runs through the fitted values and slopes. Ranking genes like scanpy needs the same division and the
//! same cubics, not only the same idea.

use faer::Mat;

use crate::{AnalysisError, Result};

/// Fitted values of `y` at each `x`, each local fit over the share `span` of the points.
///
/// # Shapes   `x`, `y`, returns: `[n_points]`; all finite
/// # Errors   too few points within the span, or a neighbourhood without width
/// # Source   Cleveland & Grosse 1991; checked against `skmisc.loess` (degree 2, Gaussian, interpolating)
pub(super) fn loess(x: &[f64], y: &[f64], span: f64) -> Result<Vec<f64>> {
    let n_local = ((x.len() as f64 * span + 1e-5) as usize).min(x.len());
    if n_local < 3 {
        return Err(AnalysisError::TooFew { step: STEP, unit: "genes that vary", needed: 11, found: x.len() });
    }
    let mut points: Vec<(f64, f64)> = x.iter().copied().zip(y.iter().copied()).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let cells = divide(&points, (x.len() as f64 * span * CELL_SHARE) as usize);
    let vertices: Vec<Vertex> = cells.iter().map(|&at| Vertex::fit(&points, at, n_local)).collect::<Result<_>>()?;
    Ok(x.iter().map(|&at| interpolate(&vertices, at)).collect())
}

/// Ends of the cells in ascending order: the slightly widened range is cut at medians until a cell holds at most
/// `most_points`.
fn divide(points: &[(f64, f64)], most_points: usize) -> Vec<f64> {
    let (first, last) = (points[0].0, points[points.len() - 1].0);
    let margin = 0.005 * (last - first).max(1e-10 * first.abs().max(last.abs()) + 1e-30);
    let mut ends = vec![first - margin, last + margin];
    let mut open = vec![(0, points.len(), ends[0], ends[1])];
    while let Some((from, to, low, high)) = open.pop() {
        if to - from <= most_points {
            continue;
        }
        let last_left = cut_position(points, from, to);
        let cut = points[last_left].0;
        if cut == low || cut == high {
            continue;
        }
        ends.push(cut);
        open.push((from, last_left + 1, low, cut));
        open.push((last_left + 1, to, cut, high));
    }
    ends.sort_by(f64::total_cmp);
    ends
}

/// The last point of the left half: the median, moved alternately right and left until its successor differs.
fn cut_position(points: &[(f64, f64)], from: usize, to: usize) -> usize {
    let median = (from + to - 1) / 2;
    let mut offset = 0isize;
    loop {
        let at = median as isize + offset;
        if at >= to as isize - 1 || at < from as isize {
            return median;
        }
        if points[at as usize].0 != points[at as usize + 1].0 {
            return at as usize;
        }
        offset = if offset > 0 { -offset } else { 1 - offset };
    }
}

/// Value and slope of the local fit at one place.
struct Vertex {
    at: f64,
    value: f64,
    slope: f64,
}

impl Vertex {
    fn fit(points: &[(f64, f64)], at: f64, n_local: usize) -> Result<Self> {
        let mut nearest: Vec<(f64, usize)> =
            points.iter().enumerate().map(|(i, point)| ((point.0 - at) * (point.0 - at), i)).collect();
        nearest.select_nth_unstable_by(n_local - 1, |a, b| a.partial_cmp(b).expect("distances are finite"));
        let reach = nearest[n_local - 1].0;
        if reach <= 0.0 {
            let (needed, found) = (n_local + 1, n_local);
            return Err(AnalysisError::TooFew { step: STEP, unit: "genes of different mean", needed, found });
        }
        let local = &nearest[..n_local];
        let weights: Vec<f64> =
            local.iter().map(|(squared, _)| (1.0 - (squared / reach).sqrt().powi(3)).powi(3).sqrt()).collect();
        let columns = |row: usize| {
            let offset = points[local[row].1].0 - at;
            [weights[row], weights[row] * offset, weights[row] * offset * offset]
        };
        let mut norms = [0.0f64; 3];
        for row in 0..n_local {
            columns(row).iter().zip(&mut norms).for_each(|(value, norm)| *norm += value * value);
        }
        let norms = norms.map(|norm| if norm > 0.0 { norm.sqrt() } else { 1.0 });
        let design = Mat::from_fn(n_local, 3, |row, column| columns(row)[column] / norms[column]);
        let target: Vec<f64> = local.iter().zip(&weights).map(|(&(_, i), weight)| weight * points[i].1).collect();
        let coefficients = pseudo_solve(&design, &target)?;
        Ok(Self { at, value: coefficients[0] / norms[0], slope: coefficients[1] / norms[1] })
    }
}

/// Least squares; directions of negligible singular value are left out.
fn pseudo_solve(design: &Mat<f64>, target: &[f64]) -> Result<[f64; 3]> {
    let svd = design.thin_svd().map_err(|_| AnalysisError::Decomposition)?;
    let (left, values, right) = (svd.U(), svd.S().column_vector(), svd.V());
    let negligible = values[0] * 100.0 * f64::EPSILON;
    let mut solution = [0.0; 3];
    for direction in (0..3).filter(|&direction| values[direction] > negligible) {
        let along: f64 = target.iter().enumerate().map(|(row, value)| left[(row, direction)] * value).sum();
        for (i, sum) in solution.iter_mut().enumerate() {
            *sum += right[(i, direction)] * along / values[direction];
        }
    }
    Ok(solution)
}

/// The cubic with the values and slopes of the two vertices around `at`; a place on a vertex belongs to the left cell.
fn interpolate(vertices: &[Vertex], at: f64) -> f64 {
    let right = vertices.partition_point(|vertex| vertex.at < at).clamp(1, vertices.len() - 1);
    let (low, high) = (&vertices[right - 1], &vertices[right]);
    let width = high.at - low.at;
    let h = (at - low.at) / width;
    let k = 1.0 - h;
    k * k * (1.0 + 2.0 * h) * low.value
        + h * h * (3.0 - 2.0 * h) * high.value
        + (h * k * k * low.slope - h * h * k * high.slope) * width
}

/// A cell is divided while it holds more than this share of a local fit's points.
const CELL_SHARE: f64 = 0.2;

/// What needs the genes, in an error.
pub(crate) const STEP: &str = "the variance trend";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parabola_is_its_own_fit() {
        let x: Vec<f64> = (0..60).map(|i| f64::from(i) / 10.0).collect();
        let y: Vec<f64> = x.iter().map(|x| 1.0 - 2.0 * x + 0.5 * x * x).collect();
        let fitted = loess(&x, &y, 0.3).unwrap();
        assert!(fitted.iter().zip(&y).all(|(a, b)| (a - b).abs() < 1e-9));
    }

    #[test]
    fn ties_are_never_divided() {
        let points: Vec<(f64, f64)> = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0].map(|x| (x, 0.0)).to_vec();
        assert_eq!(cut_position(&points, 0, 7), 5);
        assert_eq!(cut_position(&points, 1, 6), 3);
    }

    #[test]
    fn too_few_points_or_one_place_only_are_refused() {
        assert!(matches!(loess(&[1.0, 2.0], &[0.0, 0.0], 0.3), Err(AnalysisError::TooFew { .. })));
        assert!(matches!(loess(&[1.0; 20], &[0.0; 20], 0.3), Err(AnalysisError::TooFew { .. })));
    }
}
