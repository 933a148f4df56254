//! The network of mvTCR: inference, generative, loss.

use tch::Tensor;

use super::{
    config::{MvtcrConfig, Variant},
    loss::MvtcrLoss,
    network::{Decoded, Latent, Network, product},
    questions, recipe,
};
use crate::{
    data::{
        Covariates, Dataset, LABELS, Minibatch, Registry, Slot,
        slot::{Labels, Receptor},
    },
    error::{Error, Result},
    losses::LossTerms,
    model::{Embedder, Module},
    nn::{Builder, Init, Pass, Posterior, Role, Weights},
    results::{Answer, Asked, Given},
    train::{Recipe, Run},
};

/// The network of mvTCR.
#[derive(Debug)]
pub struct MvtcrModule {
    config: MvtcrConfig,
    receptor: Option<Slot<Receptor>>,
    labels: Option<Slot<Labels>>,
    states: Option<States>,
    network: Network,
    weights: Weights,
}

/// States before and after a perturbation.
#[derive(Clone, Copy, Debug)]
pub(super) struct States {
    slot: Slot<Labels>,
    /// The code of those before.
    before: i64,
}

/// What the network makes of cells.
#[derive(Debug)]
pub struct Inference {
    /// Posteriors: of expression, receptor and, in a product, both; or the one there is.
    pub latents: Vec<Latent>,
    /// A draw from each, `[n, zdim]`.
    pub z: Vec<Tensor>,
}

impl MvtcrModule {
    /// Builds the network.
    ///
    /// # Errors  cells without receptors, stored tensors that do not fit
    pub fn new(config: MvtcrConfig, registry: &Registry, n_genes: usize, mut b: Builder<'_>) -> Result<Self> {
        let receptor = if config.variant.has_tcr() { Some(registry.slot::<Receptor>(RECEPTOR)?) } else { None };
        let length = receptor.map_or(0, |slot| slot.width() / config.chains.list().len());
        let network = Network::new(&mut b, &config, (n_genes, length))?;
        if config.variant.has_rna() {
            // Upstream has it for another likelihood of expression, and never uses it.
            let _ = b.tensor("theta", &[n_genes], Role::Buffer, Init::Normal)?;
        }
        let (labels, states) = (registry.find(LABELS)?, States::of(&config, registry)?);
        Ok(Self { config, receptor, labels, states, network, weights: b.finish() })
    }

    /// The options it was built with.
    pub fn config(&self) -> &MvtcrConfig {
        &self.config
    }

    /// Where receptors are, of a network that takes them.
    pub fn receptor(&self) -> Option<Slot<Receptor>> {
        self.receptor
    }

    /// Where labels are, of cells that have some.
    pub fn labels(&self) -> Option<Slot<Labels>> {
        self.labels
    }

    /// States before and after a perturbation, of cells that have some.
    pub(super) fn states(&self) -> Option<States> {
        self.states
    }

    /// The posteriors of the cells, the joint one of a product last.
    pub fn latents(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Vec<Latent> {
        let tokens = self.receptor.map(|slot| minibatch.get(slot));
        let mut latents = self.network.encode(&minibatch.x, tokens, &minibatch.covariates, pass);
        if self.config.variant == Variant::Poe {
            latents.push(product(&latents[0], &latents[1]));
        }
        latents
    }

    /// Posteriors of the cells and one draw from each, in order.
    pub fn inference(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Inference {
        let latents = self.latents(minibatch, pass);
        let draw = |latent: &Latent| {
            let noise = pass.noise.normal("z", &latent.mean.size(), latent.mean.device());
            &latent.mean + (&latent.log_var * 0.5).exp() * noise.to_kind(latent.mean.kind())
        };
        let z = latents.iter().map(draw).collect();
        Inference { latents, z }
    }

    /// Posteriors of the cells, with their means in place of draws.
    pub(super) fn at_means(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Inference {
        let latents = self.latents(minibatch, pass);
        let z = latents.iter().map(|latent| latent.mean.shallow_clone()).collect();
        Inference { latents, z }
    }

    /// The tokens that are decoded: all but the first of each chain.
    pub(super) fn targets(&self, tokens: &Tensor) -> Tensor {
        self.network.targets(tokens)
    }

    /// What the draws are decoded to. A mixture decodes each modality from both, a product from its own and the joint one.
    pub fn generative(&self, inference: &Inference, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Decoded {
        let z: Vec<&Tensor> = inference.z.iter().collect();
        let from: (Vec<&Tensor>, Vec<&Tensor>) = match self.config.variant {
            Variant::Moe => (z.clone(), z),
            Variant::Poe => (vec![z[0], z[2]], vec![z[1], z[2]]),
            Variant::Rna | Variant::Tcr | Variant::Concat => (z, vec![]),
        };
        let tokens = self.receptor.map(|slot| minibatch.get(slot));
        self.network.decode((&from.0, &from.1), tokens, &minibatch.covariates, pass)
    }

    /// Expression that joint latent states of cells are decoded to, `[n, n_genes]`; nothing without expression.
    pub(super) fn expression(&self, z: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Option<Tensor> {
        self.network.decode((&[z], &[]), None, covariates, pass).rna.pop()
    }

    /// The terms of the loss, with the annealing factor of the divergence.
    pub fn loss_terms(
        &self,
        minibatch: &Minibatch,
        inference: &Inference,
        decoded: &Decoded,
        annealing: f64,
    ) -> MvtcrLoss {
        let targets = self.receptor.map(|slot| self.targets(minibatch.get(slot)));
        MvtcrLoss::new(&self.config, (&minibatch.x, targets.as_ref()), inference, decoded, annealing)
    }

    /// Mean of a cell's latent state: of a mixture that of its experts, of a product the joint one.
    pub fn joint(&self, latents: &[Latent]) -> Posterior {
        match (self.config.variant, latents) {
            (Variant::Moe, [rna, tcr]) => Posterior {
                mean: (&rna.mean + &tcr.mean) * 0.5,
                // Of the mean of two that are independent.
                var: (rna.log_var.exp() + tcr.log_var.exp()) * 0.25,
            },
            (_, latents) => {
                let joint = &latents[latents.len() - 1];
                Posterior { mean: joint.mean.shallow_clone(), var: joint.log_var.exp() }
            }
        }
    }
}

impl States {
    fn of(config: &MvtcrConfig, registry: &Registry) -> Result<Option<Self>> {
        let names = registry.remembered::<Labels>(PERTURBATION);
        let (Some(slot), Some(names), Some(name)) = (registry.find(PERTURBATION)?, names, &config.unperturbed) else {
            return Ok(None);
        };
        let Some(before) = names.names.iter().position(|other| other == name) else {
            let found = if names.names.is_empty() { "no state of any cell".to_owned() } else { names.names.join(", ") };
            let part = PERTURBATION.to_owned();
            return Err(Error::Value {
                part,
                found,
                expected: format!("`{name}` among them, which `unperturbed` names"),
            });
        };
        Ok(Some(Self { slot, before: before as i64 }))
    }

    /// Whether each cell is one from before; nothing of a cell without a state.
    pub(super) fn are_before(self, dataset: &Dataset<'_>) -> Vec<Option<bool>> {
        let states = dataset.labels(self.slot).into_iter();
        states.map(|state| Some(state? == self.before)).collect()
    }
}

impl Module for MvtcrModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, pass: &mut Pass<'_>) -> LossTerms {
        let inference = self.inference(minibatch, pass);
        let decoded = self.generative(&inference, minibatch, pass);
        let terms = self.loss_terms(minibatch, &inference, &decoded, kl_weight);
        let loss = terms.total();
        let further = [(super::RNA_LOSS, terms.rna), (super::TCR_LOSS, terms.tcr), (super::KL_LOSS, terms.kl)];
        LossTerms {
            loss,
            reconstruction: terms.per_cell,
            kl_local: terms.kl_per_cell,
            further: further.into(),
            latent: None,
        }
    }

    fn recipe<'a>(&'a self, run: Run<'a, '_>) -> Result<Recipe<'a>> {
        recipe::of_run(self, run)
    }

    fn answer(&self, question: &str, asked: &Asked<'_>, _: &Given) -> Result<Answer> {
        match question {
            _ if question == questions::MODALITIES.name => questions::modalities(self, asked),
            _ if question == questions::AMINO_ACIDS.name => questions::amino_acids(self, asked),
            _ => Err(Error::NotAnswered { question: question.to_owned() }),
        }
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }
}

impl Embedder for MvtcrModule {
    fn posterior(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Posterior {
        match &minibatch.minified {
            Some(kept) => Posterior::kept(kept),
            None => self.joint(&self.latents(minibatch, pass)),
        }
    }
}

/// The field of receptors.
pub(super) const RECEPTOR: &str = "receptor";
/// The field of states before and after a perturbation.
pub(super) const PERTURBATION: &str = "perturbation";
