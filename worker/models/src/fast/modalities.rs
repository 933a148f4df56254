//! Several modalities of the same cells. Each has an encoder and a decoder of its own, as if it were alone; what the encoders say is mixed
//! to one posterior, and all decoders take draws of that.
//!
//! The first modality lies where a model of one has it, in [`Network`] and [`Block`]; the others are networks and blocks inside.

use archipelago_anndata::Stored;

use super::{
    block::{Block, Pass, Reach},
    network::Network,
    part::Part,
    spec::{Measured, Mix, ModalitiesSpec},
    terms::Terms,
    walk::{self, Point},
};
use crate::{
    data::{Dataset, Slot, slot::Number},
    kernels::{Buffer, experts, layer, padded},
};

/// The networks of the other modalities, and what is said of all.
#[derive(Debug)]
pub(super) struct Modalities {
    pub(super) others: Vec<Network>,
    mix: Mix,
    /// Weight of the sum of all reconstructions in the loss.
    weight: f32,
    /// Weight of each in that sum, and the name of its figure.
    of_each: Vec<(f32, &'static str)>,
    measured: Measured,
    /// What stands for the total count of cells, where something does.
    pub(super) totals: Option<Slot<Number>>,
}

/// What is computed once of one modality of the cells.
#[derive(Debug)]
pub(super) struct OfCells {
    /// What the first layer makes of each cell without its column, where that is constant.
    pub(super) first_layer: Option<Stored<f32>>,
    /// Terms of each cell's log-likelihood that do not change.
    pub(super) constants: Vec<f32>,
    /// The lowest layer of the encoder that trains.
    pub(super) lowest: Option<usize>,
    /// Whether the dispersions train.
    pub(super) trains: bool,
    /// Whether each cell's encoder counts; all do where there is none said.
    encoded: Vec<bool>,
    /// Whether each cell is compared with what is decoded; all are where there is none said.
    pub(super) measured: Vec<bool>,
}

/// What a block holds of several modalities.
#[derive(Debug)]
pub(super) struct Joint {
    /// The cells' other modalities.
    pub(super) others: Vec<Block>,
    /// Mean of the posterior.
    pub(super) mean: Buffer,
    /// Logarithm of its variance, then the variance.
    pub(super) var: Buffer,
    of_mean: Buffer,
    of_log_var: Buffer,
}

impl Modalities {
    pub(super) fn new(spec: &ModalitiesSpec, others: Vec<Network>) -> Self {
        let of_each = spec.of_each.iter().map(|each| (each.weight as f32, each.figure)).collect();
        let (mix, measured, totals) = (spec.mix, spec.measured, spec.totals);
        Self { others, mix, weight: spec.weight as f32, of_each, measured, totals }
    }

    /// What the reconstruction of one counts in the loss.
    pub(super) fn weight(&self, m: usize) -> f32 {
        self.weight * self.of_each[m].0
    }

    /// Adds what the blocks say of reconstructions, which are sums over cells without weights.
    pub(super) fn add_to(&self, terms: &mut Terms, blocks: &[Block]) {
        let mut sum = 0.0;
        for (m, &(weight, figure)) in self.of_each.iter().enumerate() {
            let of_modality = blocks.iter().map(|block| block.of_modality(m).sums.reconstruction);
            let weighted = f64::from(weight) * of_modality.sum::<f64>();
            terms.further.add(figure, weighted);
            sum += weighted;
        }
        terms.reconstruction += sum;
        terms.negative_elbo += sum;
        terms.loss += f64::from(self.weight) * sum;
    }
}

impl Network {
    /// Of one modality; the first is its own.
    pub(super) fn of_modality(&self, m: usize) -> &Network {
        match (&self.modalities, m) {
            (Some(modalities), 1..) => &modalities.others[m - 1],
            _ => self,
        }
    }

    /// How many modalities there are.
    pub(super) fn n_modalities(&self) -> usize {
        1 + self.modalities.as_ref().map_or(0, |modalities| modalities.others.len())
    }
}

impl OfCells {
    /// Which cells a modality is there of, by the sum of their values, and what trains.
    pub(super) fn new(whole: &Network, m: usize, parts: &[Part], dataset: &Dataset<'_>) -> Self {
        let network = whole.of_modality(m);
        let sums = whole.modalities.as_ref().map(|all| (all.measured, dataset.values_of(network.slot).row_sums()));
        let (encoded, measured) = match sums {
            None => (Vec::new(), Vec::new()),
            Some((rule, sums)) => {
                let is_measured = |&sum: &f64| if rule == Measured::WhereNotZero { sum != 0.0 } else { sum > 0.0 };
                (sums.iter().map(|&sum| sum > 0.0).collect(), sums.iter().map(is_measured).collect())
            }
        };
        let trains = network.log_r.is_some_and(|part| parts[part].moments.is_some());
        let lowest = network.lowest_trained(parts);
        Self { first_layer: None, constants: Vec::new(), lowest, trains, encoded, measured }
    }
}

impl Joint {
    pub(super) fn new(network: &Network, modalities: &Modalities, parts: &[Part], reach: Reach) -> Self {
        let rows = || Buffer::zeros(super::block::ROWS * padded(network.n_latent));
        let others = modalities.others.iter().map(|other| Block::new(other, parts, reach)).collect();
        Self { others, mean: rows(), var: rows(), of_mean: rows(), of_log_var: rows() }
    }
}

impl Block {
    /// Of one modality; the first is its own.
    pub(super) fn of_modality(&self, m: usize) -> &Block {
        match (&self.joint, m) {
            (Some(joint), 1..) => &joint.others[m - 1],
            _ => self,
        }
    }

    /// The same, to change it.
    pub(super) fn of_modality_mut(&mut self, m: usize) -> &mut Block {
        match m {
            0 => self,
            _ => &mut self.joint.as_mut().expect("a block has as many modalities as its network").others[m - 1],
        }
    }

    /// Means of the posteriors, of all modalities together.
    pub(super) fn joint_mean(&self) -> &[f32] {
        self.joint.as_ref().map_or(&self.mean, |joint| &joint.mean)
    }

    /// Their variances.
    pub(super) fn joint_var(&self) -> &[f32] {
        self.joint.as_ref().map_or(&self.var, |joint| &joint.var)
    }

    /// Decodes the cells' other modalities, to the gradients of what their decoders take where these are wanted.
    pub(super) fn decode_others(&mut self, pass: &Pass<'_>) {
        for (m, other) in (1..).zip(self.joint.iter_mut().flat_map(|joint| &mut joint.others)) {
            let pass = pass.of_modality(m);
            other.decode(&pass, Point::Begin);
            if pass.differentiates {
                other.decoder_gradient(&pass, Point::Begin);
            }
        }
    }

    /// Encodes the cells' other modalities, mixes what all encoders say and draws from the joint posterior.
    pub(super) fn mix(&mut self, pass: &Pass<'_>, modalities: &Modalities) {
        let Self { joint: Some(joint), mean, var, noise, z, cells, .. } = self else { return };
        for (m, other) in (1..).zip(&mut joint.others) {
            other.posterior(&pass.of_modality(m), Point::Begin);
        }
        let (level, width) = (pass.network.level, padded(pass.network.n_latent));
        for (i, &cell) in cells.iter().enumerate() {
            let row = i * width..(i + 1) * width;
            let (sum, spread) = (&mut joint.mean[row.clone()], &mut joint.var[row.clone()]);
            sum.fill(0.0);
            let experts =
                [(&*mean, &*var)].into_iter().chain(joint.others.iter().map(|other| (&other.mean, &other.var)));
            let experts = experts.enumerate().filter(|(m, _)| pass.of_cells[*m].encoded[cell]);
            let experts = experts
                .map(|(_, (mean, var))| experts::Normal { mean: &mean[row.clone()], log_var: &var[row.clone()] });
            match modalities.mix {
                Mix::Product => {
                    // The prior is an expert that every cell has.
                    spread.fill(1.0);
                    experts.for_each(|expert| experts::add_factor(level, expert, sum, spread));
                    experts::finish_product(level, sum, spread);
                }
                Mix::Mean => {
                    let share = share(pass, cell);
                    // A cell without any modality is where the prior has it.
                    spread.fill(if share.is_none() { 1.0 } else { 0.0 });
                    experts.for_each(|expert| experts::add_term(level, expert, share.unwrap_or(0.0), sum, spread));
                    experts::ln_of(level, spread);
                }
            }
        }
        let n = cells.len();
        self.sums.kl = walk::draw(pass.network, (&joint.mean, &mut joint.var), noise, z, n);
        for other in &mut joint.others {
            other.z[..n * width].copy_from_slice(&z[..n * width]);
        }
    }

    /// From the gradients of the draw, one of each decoder, to those of what each encoder says, and down the encoders.
    pub(super) fn modalities_gradient(&mut self, pass: &Pass<'_>, modalities: &Modalities) {
        let Self { joint: Some(joint), mean, var, noise, of_mean, of_var, cells, .. } = self else { return };
        let (network, level, width) = (pass.network, pass.network.level, padded(pass.network.n_latent));
        let Joint { others, mean: joint_mean, var: joint_var, of_mean: by_mean, of_log_var: by_var } = joint;
        for (i, &cell) in cells.iter().enumerate() {
            let row = i * width..(i + 1) * width;
            by_mean[row.clone()].copy_from_slice(&of_mean[row.clone()]);
            others.iter().for_each(|other| layer::add(level, &mut by_mean[row.clone()], &other.of_mean[row.clone()]));
            layer::draw_gradient(
                level,
                layer::DrawGradient {
                    mean: &joint_mean[row.clone()],
                    var: &joint_var[row.clone()],
                    noise: &noise[row.clone()],
                    of_mean: &mut by_mean[row.clone()],
                    of_var: &mut by_var[row.clone()],
                    mask: &network.latent_mask,
                    kl_weight: pass.kl_weight * pass.scale,
                    floor: network.variance_floor,
                },
            );
            let joint = experts::Joint {
                mean: &joint_mean[row.clone()],
                var: &joint_var[row.clone()],
                of_mean: &by_mean[row.clone()],
                of_log_var: &by_var[row.clone()],
            };
            let share = share(pass, cell);
            let others =
                others.iter_mut().map(|other| (&*other.mean, &*other.var, &mut *other.of_mean, &mut *other.of_var));
            let own = (&**mean, &**var, &mut **of_mean, &mut **of_var);
            for (m, (mean, var, of_mean, of_var)) in std::iter::once(own).chain(others).enumerate() {
                let (of_mean, of_var) = (&mut of_mean[row.clone()], &mut of_var[row.clone()]);
                let expert = experts::Normal { mean: &mean[row.clone()], log_var: &var[row.clone()] };
                match (pass.of_cells[m].encoded[cell], modalities.mix, share) {
                    (true, Mix::Product, _) => experts::factor_gradient(level, expert, joint, of_mean, of_var),
                    (true, Mix::Mean, Some(share)) => {
                        experts::term_gradient(level, expert, share, joint, of_mean, of_var);
                    }
                    _ => [of_mean, of_var].into_iter().for_each(|of| of.fill(0.0)),
                }
            }
        }
        for m in 0..network.n_modalities() {
            let pass = pass.of_modality(m);
            if let Some(lowest) = pass.lowest {
                self.of_modality_mut(m).below_latent(&pass, lowest, Point::Begin);
            }
        }
    }
}

/// What each of a cell's modalities counts in a mean of them; nothing of a cell that has none.
fn share(pass: &Pass<'_>, cell: usize) -> Option<f32> {
    let n = pass.of_cells.iter().filter(|of_cells| of_cells.encoded[cell]).count();
    (n > 0).then(|| 1.0 / n as f32)
}
