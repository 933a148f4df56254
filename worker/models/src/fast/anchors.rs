//! Points that draw latent states to them, and the gradient of the distances. How many cells of a minibatch a point has decides what each of
//! them counts: their latent states have to be drawn before.

use super::{block::Block, spec::AnchorSpec, terms::Terms};
use crate::{data::Dataset, kernels::padded};

/// The points, and what they say of a minibatch.
#[derive(Debug)]
pub(super) struct Anchors {
    spec: AnchorSpec,
    /// Cells of each group.
    n_of_group: Vec<usize>,
    /// Sum of distances to each of the other points from the cells that it is the nearest of, and how many these are.
    nearest: Vec<(f64, usize)>,
    /// The nearest of the other points, and its distance, cell by cell.
    of_cells: Vec<(usize, f32)>,
    /// Groups of a cell.
    groups: Vec<usize>,
    of_groups: f64,
    of_nearest: f64,
}

impl Anchors {
    pub(super) fn new(spec: AnchorSpec) -> Self {
        Self {
            n_of_group: vec![0; spec.of_groups.len()],
            nearest: vec![(0.0, 0); spec.others.as_ref().map_or(0, Vec::len)],
            of_cells: Vec::new(),
            groups: Vec::new(),
            of_groups: 0.0,
            of_nearest: 0.0,
            spec,
        }
    }

    /// Computes all distances of the blocks' cells, and leaves their gradient by the latent states.
    pub(super) fn draw(&mut self, n_latent: usize, dataset: &Dataset<'_>, blocks: &mut [Block]) {
        blocks.iter_mut().for_each(|block| block.further.by_z.fill(0.0));
        self.count(dataset, blocks);
        self.find_nearest(n_latent, blocks);
        self.draw_to_groups(n_latent, dataset, blocks);
        self.draw_to_nearest(n_latent, blocks);
    }

    /// Sets the groups of a cell that have a point.
    fn set_groups(&mut self, dataset: &Dataset<'_>, cell: usize) {
        self.groups.clear();
        for (slot, of_codes) in &self.spec.groups {
            let Some(&group) = of_codes.get(dataset.codes(*slot)[cell] as usize) else { continue };
            if self.spec.of_groups[group].is_some() && !self.groups.contains(&group) {
                self.groups.push(group);
            }
        }
    }

    fn count(&mut self, dataset: &Dataset<'_>, blocks: &[Block]) {
        self.n_of_group.fill(0);
        for &cell in blocks.iter().flat_map(|block| &block.cells) {
            self.set_groups(dataset, cell);
            self.groups.iter().for_each(|&group| self.n_of_group[group] += 1);
        }
    }

    fn draw_to_groups(&mut self, n_latent: usize, dataset: &Dataset<'_>, blocks: &mut [Block]) {
        self.of_groups = 0.0;
        let width = padded(n_latent);
        for block in blocks {
            let rows = block.z.chunks_exact(width).zip(block.further.by_z.chunks_exact_mut(width));
            for (&cell, (z, by_z)) in block.cells.iter().zip(rows) {
                self.set_groups(dataset, cell);
                for &group in &self.groups {
                    let Some(point) = &self.spec.of_groups[group] else { continue };
                    let share = 1.0 / self.n_of_group[group] as f64;
                    let distance = distance(&z[..n_latent], point, self.spec.norm);
                    self.of_groups += share * f64::from(distance);
                    add_gradient(&z[..n_latent], point, self.spec.norm, distance, share * self.spec.weight, by_z);
                }
            }
        }
    }

    fn find_nearest(&mut self, n_latent: usize, blocks: &[Block]) {
        self.of_cells.clear();
        self.nearest.fill((0.0, 0));
        let Some(others) = &self.spec.others else { return };
        for block in blocks {
            for z in block.z.chunks_exact(padded(n_latent)).take(block.n()) {
                let distances = others.iter().map(|point| distance(&z[..n_latent], point, self.spec.norm)).enumerate();
                let Some(nearest) = distances.min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
                self.nearest[nearest.0].0 += f64::from(nearest.1);
                self.nearest[nearest.0].1 += 1;
                self.of_cells.push(nearest);
            }
        }
    }

    fn draw_to_nearest(&mut self, n_latent: usize, blocks: &mut [Block]) {
        let Some(others) = &self.spec.others else { return };
        let occupied = self.nearest.iter().filter(|(_, n)| *n > 0);
        let n_occupied = occupied.clone().count().max(1) as f64;
        self.of_nearest = occupied.map(|(sum, n)| sum / *n as f64).sum::<f64>() / n_occupied;
        let (width, mut of_cells) = (padded(n_latent), self.of_cells.iter());
        for block in blocks {
            let n = block.n();
            let rows = block.z.chunks_exact(width).zip(block.further.by_z.chunks_exact_mut(width)).take(n);
            for ((z, by_z), &(point, distance)) in rows.zip(&mut of_cells) {
                let share = 1.0 / (n_occupied * self.nearest[point].1 as f64);
                let factor = share * self.spec.weight * self.spec.nearest_weight;
                add_gradient(&z[..n_latent], &others[point], self.spec.norm, distance, factor, by_z);
            }
        }
    }

    /// Adds what a minibatch of so many cells says, once for each of them.
    pub(super) fn add_to(&self, terms: &mut Terms, n_cells: f64) {
        let total = (self.of_groups + self.spec.nearest_weight * self.of_nearest) * n_cells;
        let names = self.spec.figures;
        terms.loss += total * self.spec.weight;
        terms.further.add(names.unweighted, terms.negative_elbo + total);
        terms.further.add(names.weighted, total * self.spec.weight);
        terms.further.add(names.of_groups, self.of_groups * n_cells);
        if self.spec.others.is_some() {
            terms.further.add(names.nearest, self.of_nearest * n_cells);
        }
    }
}

/// The norm of order `p` of a difference.
fn distance(z: &[f32], point: &[f32], p: f64) -> f32 {
    let differences = z.iter().zip(point).map(|(z, point)| z - point);
    if p == EUCLIDEAN {
        return differences.map(|difference| difference * difference).sum::<f32>().sqrt();
    }
    differences.map(|difference| f64::from(difference.abs()).powf(p)).sum::<f64>().powf(1.0 / p) as f32
}

/// Adds the gradient of a distance times a factor. A cell on its point has none.
fn add_gradient(z: &[f32], point: &[f32], p: f64, distance: f32, factor: f64, by_z: &mut [f32]) {
    if distance == 0.0 {
        return;
    }
    for ((z, point), by_z) in z.iter().zip(point).zip(by_z).filter(|((z, point), _)| z != point) {
        let share = (z - point) / distance;
        let slope = if p == EUCLIDEAN { share } else { share.signum() * share.abs().powf((p - 1.0) as f32) };
        *by_z += slope * factor as f32;
    }
}

/// The order of the Euclidean norm: computed without powers.
const EUCLIDEAN: f64 = 2.0;
