//! Steps, evaluations and embeddings of one module on one data set.

use std::{collections::BTreeMap, ops::Range};

use archipelago_anndata::Stored;
use rayon::prelude::*;
use tch::Tensor;

use super::{
    anchors::Anchors,
    batch_norm::Statistics,
    block::{Block, BlockSums, Dispersions, Pass, ROWS, Reach},
    discrepancy::Discrepancy,
    first_layer::Inputs,
    gradient::{self, Differentiated, Source},
    modalities::OfCells,
    network::{Head, Network, Refresh},
    part::{Part, Which},
    pull::Pull,
    spec::{AnchorSpec, Divergence, Reconstruction, Shrinking, Unsupported},
    terms::{Further, Objective, Terms},
    walk::Point,
};
use crate::{
    aggregate::Aggregate,
    data::Dataset,
    kernels::{Buffer, Team, likelihood, padded},
    model::{Module, Moments},
    nn::{Mode, Noise},
    train::{AdamOptions, EVALUATION_MINIBATCH},
};

/// A module inside the kernels. It holds its own copy of the tensors; [`Autoencoder::store`] gives them back.
#[derive(Debug)]
pub struct Autoencoder<'a> {
    pub(super) dataset: &'a Dataset<'a>,
    pub(super) network: Network,
    pub(super) parts: Vec<Part>,
    /// Where all parts that train are.
    trained: Range<usize>,
    team: Team,
    pub(super) blocks: Vec<Block>,
    /// What is known of the cells, of each modality.
    of_cells: Vec<OfCells>,
    totals: Vec<f32>,
    /// How a step is computed.
    steps_as: Manner,
    /// What pulls the latent states of conditions together.
    discrepancy: Option<Discrepancy>,
    /// What draws latent states to points, in the epochs in which something does.
    anchors: Option<Anchors>,
    /// What draws latent states to where cells of the reference lie, if something does.
    pull: Option<Pull>,
    pub(super) n_steps: i64,
    pub(super) draws: Vec<f32>,
    /// Shape of each tensor.
    pub(super) shapes: BTreeMap<String, Vec<i64>>,
}

/// How cells are computed.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// Whether dropout drops.
    drops: bool,
    dispersions: Dispersions,
    statistics: Statistics,
}

impl Manner {
    /// Nothing trains, and nothing is ever drawn but latent states.
    const STILL: Self = Self { drops: false, dispersions: Dispersions::Constant, statistics: Statistics::Running };
}

/// What it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Steps in this mode, in minibatches of so many cells, and evaluations.
    Train(Mode, usize),
    /// Evaluations.
    Evaluate,
    /// Embeddings, of which so much is wanted.
    Embed(Moments),
}

impl<'a> Autoencoder<'a> {
    /// One that moves the tensors of which `trains` says so.
    ///
    /// # Errors  what the kernels cannot compute
    pub fn new(
        module: &'a dyn Module,
        dataset: &'a Dataset<'a>,
        purpose: Purpose,
        trains: &dyn Fn(&str) -> bool,
    ) -> Result<Self, Unsupported> {
        let spec = match purpose {
            Purpose::Train(..) | Purpose::Evaluate => module.train_spec(),
            Purpose::Embed(_) => match module.as_embedder() {
                Some(embedder) => embedder.posterior_spec(),
                None => Err(Unsupported("the model embeds no cells")),
            },
        }?;
        if module.weights().device() != tch::Device::Cpu {
            return Err(Unsupported("the kernels are for the processor"));
        }
        if dataset.minified.is_some() {
            return Err(Unsupported("the cells are minified"));
        }
        let (mode, minibatch) = match purpose {
            Purpose::Train(mode, n) => (mode, n),
            Purpose::Evaluate | Purpose::Embed(_) => (Mode::Evaluation, 0),
        };
        let (drops, statistics) = match mode {
            Mode::Training => (true, Statistics::OfMinibatch),
            Mode::Evaluation => (false, Statistics::Running),
        };
        let reach = match purpose {
            Purpose::Train(..) | Purpose::Evaluate => Reach::Likelihood,
            Purpose::Embed(Moments::MeanAndVariance) => Reach::Posterior,
            // What several encoders say is weighed by their variances.
            Purpose::Embed(Moments::Mean) if spec.modalities.is_some() => Reach::Posterior,
            Purpose::Embed(Moments::Mean) => Reach::Mean,
        };
        let (network, mut parts) = Network::new(&spec, module.weights(), trains, statistics, reach)?;
        let in_parts = |name: &str| parts.iter().any(|part| part.name == name);
        if module.weights().iter().any(|(name, _)| trains(name) && !in_parts(name)) {
            return Err(Unsupported("something trains that is not part of the autoencoder"));
        }
        let n_blocks = minibatch.max(EVALUATION_MINIBATCH).min(dataset.n_cells()).div_ceil(ROWS);
        // Labelled cells of a step come behind the others.
        let n_labelled = if network.labels.is_some() { minibatch.min(dataset.n_cells()).div_ceil(ROWS) } else { 0 };
        let n_blocks = n_blocks.max(minibatch.min(dataset.n_cells()).div_ceil(ROWS) + n_labelled);
        // Embedding, each thread takes a few runs of cells: enough that none waits long for another.
        let n_blocks = if reach != Reach::Likelihood { 4 * rayon::current_num_threads() } else { n_blocks };
        let blocks = (0..n_blocks).map(|_| Block::new(&network, &parts, reach)).collect();
        let n_modalities = network.n_modalities();
        let of_cells: Vec<OfCells> = (0..n_modalities).map(|m| OfCells::new(&network, m, &parts, dataset)).collect();
        let trains = of_cells.iter().any(|of_cells| of_cells.trains);
        let dispersions = if trains { Dispersions::Train } else { Dispersions::Constant };
        let discrepancy = network.discrepancy.map(Discrepancy::new);
        let sources = gradient::sources(&network, parts.len());
        for (part, source) in parts.iter_mut().zip(sources) {
            part.source = source;
        }
        let moves = |part: &Part| part.moments.is_some();
        let trained =
            parts.iter().position(moves).unwrap_or(0)..parts.iter().rposition(moves).map_or(0, |last| last + 1);
        let team = Team::new(n_blocks);
        let mut whole = Self {
            dataset,
            network,
            parts,
            trained,
            team,
            blocks,
            of_cells,
            totals: Vec::new(),
            steps_as: Manner { drops, dispersions, statistics },
            discrepancy,
            anchors: None,
            pull: None,
            n_steps: 0,
            draws: Vec::new(),
            shapes: module.weights().iter().map(|(name, weight)| (name.to_owned(), weight.tensor.size())).collect(),
        };
        if reach == Reach::Likelihood {
            whole.set_anchors(spec.anchors);
            whole.set_totals();
            (0..n_modalities).for_each(|m| whole.set_constants(m));
        }
        if matches!(purpose, Purpose::Train(..)) {
            (0..n_modalities).for_each(|m| whole.cache_first_layer(m));
        }
        Ok(whole)
    }

    /// Says which of the optimiser's groups moves each tensor; the first one does if nothing is said.
    pub fn assign(&mut self, group_of: impl Fn(&str) -> Option<usize>) {
        for part in self.parts.iter_mut().filter(|part| part.group.is_some()) {
            part.group = group_of(&part.name).or(part.group);
        }
    }

    /// Takes from the module what its description says otherwise in another epoch: what draws cells.
    pub fn renew(&mut self, module: &dyn Module) {
        self.set_anchors(module.train_spec().ok().and_then(|spec| spec.anchors));
    }

    /// Draws the latent states of all further steps to this mixture, with this weight in their loss.
    ///
    /// # Panics  for labels or several modalities, which shape the latent state in other ways: our own defect
    pub fn draw_to(&mut self, aggregate: &Aggregate, weight: f64) {
        assert!(
            self.network.labels.is_none() && self.network.modalities.is_none(),
            "nothing else shapes the latent state"
        );
        let pull = Pull::new(aggregate, weight);
        self.blocks.iter_mut().for_each(|block| block.shares = Buffer::zeros(pull.width()));
        self.pull = Some(pull);
    }

    fn set_anchors(&mut self, spec: Option<AnchorSpec>) {
        self.anchors = spec.map(Anchors::new);
    }

    /// One step on some cells, and where labels are learned on `labelled` ones, by an Adam for each group of tensors; gives sums over the
    /// cells from before the step.
    pub fn step(
        &mut self,
        cells: &[usize],
        labelled: &[usize],
        kl_weight: f64,
        noise: &mut dyn Noise,
        adams: &[AdamOptions],
    ) -> Terms {
        let terms = self.differentiate(cells, labelled, kl_weight, noise);
        self.n_steps += 1;
        let n_steps = self.n_steps;
        let mut steps = [adams[0].kernel_step(n_steps); MOST_GROUPS];
        steps.iter_mut().zip(adams).for_each(|(step, adam)| *step = adam.kernel_step(n_steps));
        let (level, network, dataset) = (self.network.level, &self.network, self.dataset);
        let blocks = Differentiated::new(&self.blocks, cells.len(), labelled.len());
        let update = |part: &mut Part| {
            if part.moments.is_some() {
                gradient::collect(network, dataset, blocks, part);
                if part.source != Source::Embedding {
                    part.step(level, &steps);
                }
            }
        };
        let parts = &mut self.parts[self.trained.clone()];
        if parts.iter().filter(|part| part.moments.is_some()).count() <= FEW_PARTS {
            parts.iter_mut().for_each(update);
        } else {
            self.team.for_each(parts, update);
        }
        if let Some(embeddings) = &self.network.embeddings {
            embeddings.collect(level, &mut self.parts);
            let embedding = self.parts.iter_mut().filter(|part| part.source == Source::Embedding);
            embedding.for_each(|part| part.step(level, &steps));
        }
        self.network.refresh(&mut self.parts, Refresh::Trained);
        terms
    }

    /// Gradients of the mean loss of some cells, left in the blocks; sums over the cells.
    fn differentiate(&mut self, cells: &[usize], labelled: &[usize], kl_weight: f64, noise: &mut dyn Noise) -> Terms {
        let n_blocks = cells.len().div_ceil(ROWS);
        let kl_weight = self.kl_weight(kl_weight, cells.len());
        self.place(cells, noise, self.steps_as.drops);
        self.place_labelled(n_blocks, labelled, noise, self.steps_as.drops);
        let all = n_blocks + labelled.len().div_ceil(ROWS);
        let ratio = self.network.labels.as_ref().map_or(0.0, |labels| labels.classification_ratio);
        let objective = Objective {
            cells: 1.0 / cells.len() as f32,
            labelled: ratio / labelled.len().max(1) as f32,
            kl_weight,
            differentiates: true,
        };
        self.walk((n_blocks, all), self.steps_as, objective);
        let mut terms = self.terms(n_blocks, kl_weight);
        let cross_entropy: f64 = self.blocks[n_blocks..all].iter().map(|block| block.sums.cross_entropy).sum();
        terms.loss += cross_entropy * f64::from(objective.labelled) * cells.len() as f64;
        if let Some(pull) = &self.pull {
            terms.loss += pull.weight * self.blocks[..n_blocks].iter().map(|block| block.sums.pull).sum::<f64>();
        }
        terms
    }

    /// What the divergence of one of so many cells counts in their mean loss.
    fn kl_weight(&self, kl_weight: f64, n_cells: usize) -> f64 {
        match self.network.divergence {
            Divergence::Times(factor) => kl_weight * factor,
            Divergence::Summed => kl_weight * n_cells as f64,
        }
    }

    /// Shrinks elements of a map that is held to sets, after a step.
    pub fn shrink(&mut self, shrinking: &Shrinking<'_>) {
        if let Head::Masked(masked) = &self.network.head
            && masked.name == shrinking.tensor
        {
            masked.shrink(&mut self.parts, shrinking.threshold, shrinking.what);
        }
    }

    /// Whether something depends on the latent states of several cells together.
    fn meets(&self) -> bool {
        self.discrepancy.is_some() || self.anchors.is_some()
    }

    /// Takes all blocks, of which the first `n` are decoded, from one place where they wait for each other to the next, up to the end.
    fn walk(&mut self, (n, all): (usize, usize), manner: Manner, objective: Objective) {
        let mut at = Point::Begin;
        while at != Point::End {
            let (mut blocks, mut team) = (std::mem::take(&mut self.blocks), std::mem::take(&mut self.team));
            let pass = self.pass(manner, objective);
            team.for_each(&mut blocks[..all], |block| block.advance(&pass, at));
            (self.blocks, self.team) = (blocks, team);
            at = self.blocks[0].reached;
            self.meet(at, n);
        }
    }

    /// What the first `n` blocks say together where they wait.
    fn meet(&mut self, at: Point, n: usize) {
        let Self { network, parts, blocks, dataset, anchors, discrepancy, .. } = self;
        let (level, blocks) = (network.level, &mut blocks[..n]);
        match at {
            Point::Begin | Point::End => {}
            Point::Meeting => {
                if let Some(anchors) = anchors {
                    anchors.draw(network.n_latent, dataset, blocks);
                }
                if let Some(discrepancy) = discrepancy {
                    discrepancy.gather(network, dataset, blocks);
                }
            }
            Point::Encoder(l) => {
                let shares = blocks.iter().map(|block| (&block.encoder[l], block.n()));
                if let Some(norm) = &mut network.encoder[l].batch_norm {
                    norm.take_statistics(level, parts, shares);
                }
            }
            Point::Decoder(l) => {
                let shares = blocks.iter().map(|block| (&block.decoder[l], block.n()));
                if let Some(norm) = &mut network.decoder[l].batch_norm {
                    norm.take_statistics(level, parts, shares);
                }
            }
            Point::DecoderGradient(l) => {
                if let Some(norm) = &mut network.decoder[l].batch_norm {
                    norm.take_gradients(level, blocks.iter().map(|block| &block.decoder[l]));
                }
            }
            Point::EncoderGradient(l) => {
                if let Some(norm) = &mut network.encoder[l].batch_norm {
                    norm.take_gradients(level, blocks.iter().map(|block| &block.encoder[l]));
                }
            }
        }
    }

    /// Sums over some cells and the gradients of their mean loss, without a step.
    pub fn gradients(
        &mut self,
        cells: &[usize],
        labelled: &[usize],
        kl_weight: f64,
        noise: &mut dyn Noise,
    ) -> (Terms, BTreeMap<String, Tensor>) {
        let terms = self.differentiate(cells, labelled, kl_weight, noise);
        let blocks = Differentiated::new(&self.blocks, cells.len(), labelled.len());
        for part in &mut self.parts {
            gradient::collect(&self.network, self.dataset, blocks, part);
        }
        if let Some(embeddings) = &self.network.embeddings {
            embeddings.collect(self.network.level, &mut self.parts);
        }
        (terms, self.trained(Which::Gradient))
    }

    /// Sums over some cells, without dropout and without a step.
    pub fn evaluate(&mut self, cells: &[usize], kl_weight: f64, noise: &mut dyn Noise) -> Terms {
        self.evaluate_minibatches(cells.chunks(EVALUATION_MINIBATCH), kl_weight, noise)
    }

    /// The same, minibatch by minibatch as given.
    pub fn evaluate_minibatches<'c>(
        &mut self,
        minibatches: impl Iterator<Item = &'c [usize]>,
        kl_weight: f64,
        noise: &mut dyn Noise,
    ) -> Terms {
        let dispersions = match self.steps_as.dispersions {
            Dispersions::Constant => Dispersions::Constant,
            Dispersions::Train | Dispersions::Rest => Dispersions::Rest,
        };
        self.network.refresh_norms(&self.parts);
        let mut total = Terms::default();
        for cells in minibatches {
            self.place(cells, noise, false);
            let (n_blocks, kl_weight) = (cells.len().div_ceil(ROWS), self.kl_weight(kl_weight, cells.len()));
            let objective = Objective { kl_weight, ..Objective::default() };
            self.walk((n_blocks, n_blocks), Manner { dispersions, ..Manner::STILL }, objective);
            total.add(self.terms(n_blocks, kl_weight));
        }
        total
    }

    /// Means of the posteriors of all cells, `[n_cells, n_latent]`, row by row; and variances, none if they were not computed.
    pub fn embed(&mut self) -> (Vec<f32>, Vec<f32>) {
        self.embed_cells(&(0..self.dataset.n_cells()).collect::<Vec<_>>())
    }

    /// The same of these cells, in their order.
    pub fn embed_cells(&mut self, cells: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let (n_cells, n_latent) = (cells.len(), self.network.n_latent);
        let n_vars = if self.network.reach == Reach::Mean { 0 } else { n_latent };
        let (mut means, mut vars) = (vec![0.0; n_cells * n_latent], vec![0.0; n_cells * n_vars]);
        let (mut blocks, mut team) = (std::mem::take(&mut self.blocks), std::mem::take(&mut self.team));
        let pass = self.pass(Manner::STILL, Objective::default());
        // Each block takes a run of cells.
        let run = n_cells.div_ceil(blocks.len().max(1)).next_multiple_of(ROWS).max(ROWS);
        let places = means.chunks_mut(run * n_latent).zip(pieces(&mut vars, run * n_latent));
        let mut runs: Vec<_> = places.zip(&mut blocks).zip(cells.chunks(run)).collect();
        team.for_each(&mut runs, |(((means, vars), block), cells)| {
            let groups = means.chunks_mut(ROWS * n_latent).zip(pieces(vars, ROWS * n_latent));
            for ((means, vars), cells) in groups.zip(cells.chunks(ROWS)) {
                block.put(cells);
                block.encode(&pass, Point::Begin);
                let width = padded(n_latent);
                for (from, to) in [(block.joint_mean(), means), (block.joint_var(), vars)] {
                    let rows = from.chunks_exact(width).zip(to.chunks_exact_mut(n_latent));
                    rows.for_each(|(from, to)| to.copy_from_slice(&from[..n_latent]));
                }
            }
        });
        drop(runs);
        self.team = team;
        self.blocks = blocks;
        (means, vars)
    }

    fn pass(&self, Manner { drops, dispersions, statistics }: Manner, objective: Objective) -> Pass<'_> {
        let whole = Pass {
            network: &self.network,
            parts: &self.parts,
            dataset: self.dataset,
            values: self.dataset.counts,
            of_cells: &self.of_cells,
            measured: &[],
            first_layer: None,
            totals: &self.totals,
            constants: &[],
            drops,
            dispersions,
            trained: dispersions,
            scale: objective.cells,
            weight: 1.0,
            kl_weight: objective.kl_weight as f32,
            label_scale: objective.labelled,
            differentiates: objective.differentiates,
            statistics,
            lowest: None,
            meets: self.meets(),
            discrepancy: self.discrepancy.as_ref(),
            pull: self.pull.as_ref(),
        };
        whole.of_modality(0)
    }

    fn terms(&self, n_blocks: usize, kl_weight: f64) -> Terms {
        let sum = |of: fn(&BlockSums) -> f64| self.blocks[..n_blocks].iter().map(|block| of(&block.sums)).sum::<f64>();
        // Those of several modalities are added with their weights.
        let reconstruction = match &self.network.modalities {
            None => sum(|sums| sums.reconstruction),
            Some(_) => 0.0,
        };
        let kl = sum(|sums| sums.kl);
        let blocks = &self.blocks[..n_blocks];
        let n_cells = blocks.iter().map(Block::n).sum::<usize>() as f64;
        let (loss, further) = (reconstruction + kl_weight * kl, Further::default());
        let mut terms = Terms { loss, negative_elbo: reconstruction + kl, reconstruction, further };
        if let Some(modalities) = &self.network.modalities {
            modalities.add_to(&mut terms, blocks);
        }
        // These are added to a mean over cells.
        if let Some(discrepancy) = &self.discrepancy {
            discrepancy.add_to(&mut terms, blocks, n_cells);
        }
        if let Some(anchors) = &self.anchors {
            anchors.add_to(&mut terms, n_cells);
        }
        terms
    }

    fn set_totals(&mut self) {
        let given = self.network.modalities.as_ref().and_then(|modalities| modalities.totals);
        self.totals = match given {
            Some(slot) => self.dataset.numbers(slot).iter().copied().collect(),
            None => self.dataset.counts.row_sums().into_iter().map(|sum| sum as f32).collect(),
        };
    }

    fn set_constants(&mut self, m: usize) {
        let (network, conditions) = (self.network.of_modality(m), &self.dataset.conditions);
        let (level, counts) = (network.level, self.dataset.values_of(network.slot));
        let constant = !self.of_cells[m].trains && network.log_r.is_some();
        if let Reconstruction::Squared(..) = network.reconstruction {
            return;
        }
        let of_cell = |cell: usize| {
            let (genes, values) = counts.row(cell);
            let own = if network.dispersions.len() > 1 { conditions[cell] as usize } else { 0 };
            let dispersion = constant.then(|| &network.dispersions[own]);
            likelihood::constants(level, genes, values, dispersion) as f32
        };
        self.of_cells[m].constants = (0..counts.n_rows()).into_par_iter().map(of_cell).collect();
    }

    /// What the first layer makes of each cell without its column, where nothing of that trains.
    fn cache_first_layer(&mut self, m: usize) {
        let first = &self.network.of_modality(m).encoder[0].matrix;
        if first.panels.clone().chain([first.bias]).any(|part| self.parts[part].moments.is_some()) {
            return;
        }
        let width = first.width();
        let n_cells = self.dataset.n_cells();
        let pass = self.pass(Manner::STILL, Objective::default()).of_modality(m);
        let mut some = Buffer::zeros(CACHED_AT_ONCE.min(n_cells) * width);
        // Where the counts lie there is room for this as well, in memory or in a scratch file.
        let mut cache = self.dataset.counts.storage().growing(n_cells * width);
        let filled = (0..n_cells).step_by(CACHED_AT_ONCE).try_for_each(|from| {
            let some = &mut some[..CACHED_AT_ONCE.min(n_cells - from) * width];
            let blocks = some.par_chunks_mut(ROWS * width).enumerate();
            blocks.for_each_with(Inputs::default(), |inputs, (at, rows)| {
                let first = from + at * ROWS;
                inputs.multiply(&pass, first..first + rows.len() / width, rows);
            });
            cache.extend(some)
        });
        match filled.and_then(|()| cache.finish()) {
            Ok(cache) => self.of_cells[m].first_layer = Some(cache),
            // It is the same number by number when it is computed in each step.
            Err(error) => {
                tracing::warn!(%error, "no room for what surgery computes once per cell: it is computed in every step")
            }
        }
    }

    /// What is kept of each cell where it is constant, and how many numbers that is: see [`crate::train`].
    pub(crate) fn kept_rows(&self) -> Option<(Stored<f32>, usize)> {
        Some((self.of_cells[0].first_layer.clone()?, self.network.encoder[0].matrix.width()))
    }
}

/// Pieces of so many numbers, and behind the last one pieces of none.
fn pieces(numbers: &mut [f32], n: usize) -> impl Iterator<Item = &mut [f32]> {
    numbers.chunks_mut(n).chain(std::iter::repeat_with(Default::default))
}

/// Cells whose first layer is computed before it is put away; whole blocks.
const CACHED_AT_ONCE: usize = 256 * ROWS;

/// Groups that an optimiser has at most.
pub(crate) const MOST_GROUPS: usize = 4;

/// Parts that one thread updates sooner than another one hears of them.
const FEW_PARTS: usize = 4;
