//! Stochastic descent of the points: edges pull, random pairs push.

use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::curve::Curve;
use crate::graph::Edge;
use crate::progress::Progress;

/// Moves the points of `start` for `n_epochs` passes; an edge is used the more often the more it weighs.
///
/// # Shapes   `start`, returns: `[n_cells, 2]`
pub(super) fn optimise(
    start: Array2<f32>,
    edges: &[Edge],
    curve: Curve,
    n_epochs: usize,
    seed: u64,
    progress: Progress<'_>,
) -> Array2<f32> {
    let mut points: Vec<[f32; 2]> = start.rows().into_iter().map(|row| [row[0], row[1]]).collect();
    let mut springs = springs(edges, n_epochs);
    let force = Force { a: curve.a as f32, b: curve.b as f32 };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(1);
    for epoch in 0..n_epochs {
        progress(epoch as f64 / n_epochs as f64);
        let rate = 1.0 - epoch as f32 / n_epochs as f32;
        for spring in springs.iter_mut().filter(|spring| spring.next_pull <= epoch as f64) {
            spring.next_pull += spring.period;
            let pull = force.attraction(points[spring.head], points[spring.tail]);
            shift(&mut points[spring.head], pull, rate);
            shift(&mut points[spring.tail], pull, -rate);

            let push_period = spring.period / PUSHES_PER_PULL;
            let n_pushes = ((epoch as f64 - spring.next_push) / push_period).max(0.0) as usize;
            spring.next_push += n_pushes as f64 * push_period;
            for _ in 0..n_pushes {
                let other = rng.random_range(0..points.len());
                if other != spring.head {
                    let push = force.repulsion(points[spring.head], points[other]);
                    shift(&mut points[spring.head], push, rate);
                }
            }
        }
    }
    Array2::from_shape_fn((points.len(), 2), |(cell, axis)| points[cell][axis])
}

/// An edge with the epochs at which it next acts.
struct Spring {
    head: usize,
    tail: usize,
    /// Epochs between two pulls.
    period: f64,
    next_pull: f64,
    next_push: f64,
}

/// Edges too light to act even once are left out.
fn springs(edges: &[Edge], n_epochs: usize) -> Vec<Spring> {
    let heaviest = edges.iter().map(|edge| edge.weight).fold(0.0, f64::max);
    let acting = edges.iter().filter(|edge| edge.weight > 0.0 && edge.weight >= heaviest / n_epochs as f64);
    acting
        .map(|edge| {
            let period = heaviest / edge.weight;
            Spring {
                head: edge.head as usize,
                tail: edge.tail as usize,
                period,
                next_pull: period,
                next_push: period / PUSHES_PER_PULL,
            }
        })
        .collect()
}

/// Gradients of the cross-entropy between wanted and drawn similarity, `1 / (1 + a * d^(2b))`.
struct Force {
    a: f32,
    b: f32,
}

impl Force {
    fn attraction(&self, from: [f32; 2], to: [f32; 2]) -> [f32; 2] {
        let squared = squared_distance(from, to);
        if squared <= 0.0 {
            return [0.0; 2];
        }
        let power = squared.powf(self.b);
        let strength = -2.0 * self.a * self.b * (power / squared) / (self.a * power + 1.0);
        along(from, to, strength)
    }

    fn repulsion(&self, from: [f32; 2], to: [f32; 2]) -> [f32; 2] {
        let squared = squared_distance(from, to);
        if squared <= 0.0 {
            return [0.0; 2];
        }
        let strength = 2.0 * self.b / ((SOFTENING + squared) * (self.a * squared.powf(self.b) + 1.0));
        along(from, to, strength)
    }
}

fn squared_distance(a: [f32; 2], b: [f32; 2]) -> f32 {
    (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)
}

fn along(from: [f32; 2], to: [f32; 2], strength: f32) -> [f32; 2] {
    [0, 1].map(|axis| (strength * (from[axis] - to[axis])).clamp(-LONGEST_STEP, LONGEST_STEP))
}

fn shift(point: &mut [f32; 2], by: [f32; 2], rate: f32) {
    point[0] += by[0] * rate;
    point[1] += by[1] * rate;
}

const PUSHES_PER_PULL: f64 = 5.0;
/// Per axis and step, before the learning rate.
const LONGEST_STEP: f32 = 4.0;
/// Keeps the push between close points finite.
const SOFTENING: f32 = 1e-3;
