//! The epochs in which prototypes draw cells to them.

use archipelago_common::{StateDict, Tensor as Stored};
use ndarray::Array2;
use tch::{Device, Tensor};

use super::{
    ScpoliModule,
    prototypes::{Drawing, Statistics, cluster, unlabelled_loss},
};
use crate::{
    data::Dataset,
    error::{Error, Result},
    model::Module as _,
    nn::{Mode, Pass, SeededNoise, from_tch, of_rows, to_tch},
    reference::to_array,
    train::{Adam, AdamOptions, EVALUATION_MINIBATCH, Epoch, GradientUse, Hook, Run, Seen},
    zoo::family::recipe::KeepBest,
};

/// Before some epoch prototypes are made of the training cells' latent states; after it and every later one they are renewed. Upstream
/// draws these states, and so does this.
pub(super) struct PrototypePhase<'a> {
    module: &'a ScpoliModule,
    dataset: &'a Dataset<'a>,
    /// The epoch before which they are made.
    first: u32,
    /// Types whose prototypes are made of the cells; those that a reference brought stay.
    own_types: Vec<bool>,
    adam: AdamOptions,
    /// What moves the prototypes of clusters, while there are some.
    clusters: Option<ClusterPrototypes>,
    /// Keeps the best state, prototypes of types included.
    best: Option<KeepBest<'a>>,
}

/// The prototypes of clusters as parameters: one step at the end of every epoch, towards the cells.
pub struct ClusterPrototypes {
    means: Tensor,
    optimiser: Adam,
}

impl ClusterPrototypes {
    /// Prototypes that start here, `[n_clusters, n_latent]`.
    pub fn new(means: &Tensor, adam: AdamOptions) -> Self {
        let means = means.detach().copy().set_requires_grad(true);
        let parameter = (MEANS.to_owned(), means.shallow_clone(), GradientUse::Applied);
        Self { means, optimiser: Adam::new(adam, [parameter]) }
    }

    /// Where they are, `[n_clusters, n_latent]`.
    pub fn means(&self) -> &Tensor {
        &self.means
    }

    /// A step towards cells, `[n_cells, n_latent]`. The network is no part of it.
    pub fn step(&mut self, latent: &Tensor, p: f64) {
        self.optimiser.minimise(&unlabelled_loss(&latent.detach(), &self.means, p));
    }

    fn state(&self) -> StateDict {
        let slot = &self.optimiser.slots()[0];
        let moments = [(MEAN, &slot.mean), (SQUARE, &slot.square), (MEANS, &self.means)];
        let steps = (STEPS.to_owned(), Stored::from_i64(&[], &[slot.n_steps]));
        moments.into_iter().map(|(name, tensor)| (name.to_owned(), from_tch(tensor))).chain([steps]).collect()
    }

    fn of_state(state: &StateDict, adam: AdamOptions, device: Device) -> Result<Self> {
        let read = |name: &str| Ok::<_, Error>(to_tch(name, state.require(WHAT, name)?)?.to_device(device));
        let mut clusters = Self::new(&read(MEANS)?, adam);
        let (mean, square, steps) = (read(MEAN)?, read(SQUARE)?, read(STEPS)?.int64_value(&[]));
        let slot = &mut clusters.optimiser.slots_mut()[0];
        (slot.mean, slot.square, slot.n_steps) = (mean, square, steps);
        Ok(clusters)
    }
}

impl<'a> PrototypePhase<'a> {
    pub(super) fn new(module: &'a ScpoliModule, run: Run<'a, '_>, best: Option<KeepBest<'a>>) -> Self {
        let own_types = module.prototypes().are_present().into_iter().map(|is_present| !is_present).collect();
        Self {
            module,
            dataset: run.dataset,
            first: module.config().pretraining(run.plan.n_epochs),
            own_types,
            adam: run.plan.adam,
            clusters: None,
            best,
        }
    }

    /// One draw of the latent state of each training cell, in evaluation mode.
    fn latent(&self, epoch: Epoch<'_>, round: u64) -> Array2<f32> {
        let _guard = tch::no_grad_guard();
        let mut noise = SeededNoise::new(epoch.seeds.of("prototypes", round));
        let chunk = |cells: &[usize]| {
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            self.module.inference(&epoch.minibatches.of(cells), &mut pass).z
        };
        to_array(&Tensor::cat(&epoch.split.train.chunks(EVALUATION_MINIBATCH).map(chunk).collect::<Vec<_>>(), 0))
    }

    /// Prototypes of types from the training cells' latent states.
    fn renew(&self, epoch: Epoch<'_>, latent: &Array2<f32>) {
        let levels = self.module.levels();
        let mut statistics = Statistics::new(levels.types().len(), latent.ncols());
        for (z, &cell) in latent.rows().into_iter().zip(&epoch.split.train) {
            let mut types: Vec<usize> = levels.of_cell(self.dataset, cell).collect();
            types.dedup();
            types.into_iter().for_each(|of_type| statistics.add(of_type, z));
        }
        self.module.prototypes().set(&statistics, &self.own_types);
    }

    fn begin(&mut self, epoch: Epoch<'_>) -> Result<()> {
        let latent = self.latent(epoch, u64::from(epoch.number));
        self.renew(epoch, &latent);
        let config = self.module.config();
        let lacks_type = |cell: &usize| self.module.levels().of_cell(self.dataset, *cell).next().is_none();
        if config.unlabeled_prototype_training && epoch.split.train.iter().any(lacks_type) {
            let seed = epoch.seeds.of("clusters", 0);
            let seed = u64::from_le_bytes(seed[..8].try_into().expect("a seed has 32 bytes"));
            let means = cluster(latent.view(), config, seed)?.means;
            let means = of_rows(means.view()).to_device(self.module.weights().device());
            self.clusters = Some(ClusterPrototypes::new(&means, self.adam));
        }
        Ok(())
    }
}

impl Hook for PrototypePhase<'_> {
    fn is_in_kernels(&self) -> bool {
        true
    }

    fn looks_at_tensors(&self) -> bool {
        true
    }

    fn before_epoch(&mut self, epoch: Epoch<'_>) -> Result<()> {
        if epoch.number == self.first {
            self.begin(epoch)?;
        }
        let clusters = self.clusters.as_ref().map(|clusters| clusters.means.detach());
        self.module.prototypes().draw((epoch.number >= self.first).then_some(Drawing { clusters }));
        Ok(())
    }

    fn after_epoch(&mut self, epoch: Epoch<'_>, seen: &mut Seen) -> Result<()> {
        if epoch.number < self.first {
            return Ok(());
        }
        // Draws of the beginning and of an epoch's end are not the same ones.
        let latent = self.latent(epoch, LAST | u64::from(epoch.number));
        self.renew(epoch, &latent);
        if let Some(clusters) = &mut self.clusters {
            let latent = of_rows(latent.view()).to_device(clusters.means.device());
            clusters.step(&latent, self.module.config().p_prototype_loss);
        }
        self.best.as_mut().map_or(Ok(()), |best| best.after_epoch(epoch, seen))
    }

    fn after_training(&mut self) {
        self.module.prototypes().draw(None);
        if let Some(best) = &mut self.best {
            best.after_training();
        }
        if let Some(clusters) = &self.clusters {
            self.module.prototypes().set_unlabelled(clusters.means());
        }
    }

    fn state(&self) -> StateDict {
        let best = self.best.as_ref().map(Hook::state).unwrap_or_default();
        let clusters = self.clusters.as_ref().map(ClusterPrototypes::state).unwrap_or_default();
        best.iter().chain(clusters.iter()).map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        if let Some(best) = &mut self.best {
            best.restore(state)?;
        }
        if state.get(MEANS).is_some() {
            let device = self.module.weights().device();
            self.clusters = Some(ClusterPrototypes::of_state(state, self.adam, device)?);
        }
        Ok(())
    }
}

/// Sets the rounds of draws at ends of epochs apart from those at the beginning.
const LAST: u64 = 1 << 32;
const WHAT: &str = "the hook's state";
/// Names in a checkpoint.
const MEANS: &str = "means";
const MEAN: &str = "mean";
const SQUARE: &str = "square";
const STEPS: &str = "steps";
