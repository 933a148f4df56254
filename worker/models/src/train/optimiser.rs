//! What moves the tensors of a run: groups of them, each with a method of its own.

use tch::{Tensor, no_grad};

use super::{Adam, AdamOptions, GradientUse, adam::Slot};

/// How the tensors of a group move.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Method {
    /// Adam, or AdamW.
    Adam(AdamOptions),
    /// Gradient descent with momentum.
    Sgd(SgdOptions),
}

/// Options of gradient descent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SgdOptions {
    /// Step size.
    pub rate: f64,
    /// Share of the last step that is taken again.
    pub momentum: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
}

/// Tensors that do not move as the plan's Adam moves the others.
pub struct GroupSpec {
    /// Which tensors, by name.
    pub takes: fn(&str) -> bool,
    /// How they move.
    pub method: Method,
}

/// The groups of a run. The first is the plan's own, and its rate is the run's: where that changes, the others' change by the
/// same factor.
#[derive(Debug)]
pub struct Optimiser {
    main: Adam,
    others: Vec<Group>,
    /// Gradients are cut to this size, element by element.
    clip: Option<f64>,
}

/// A further group.
#[derive(Debug)]
enum Group {
    Adam(Adam),
    Sgd { options: SgdOptions, slots: Vec<Slot> },
}

impl Optimiser {
    /// An optimiser of these tensors: each goes to the first group that takes it, or to Adam with these options.
    pub fn new(
        options: AdamOptions,
        specs: &[GroupSpec],
        clip: Option<f64>,
        tensors: impl IntoIterator<Item = (String, Tensor, GradientUse)>,
    ) -> Self {
        let mut taken: Vec<Vec<_>> = specs.iter().map(|_| Vec::new()).collect();
        let mut rest = Vec::new();
        for tensor in tensors {
            match specs.iter().position(|spec| (spec.takes)(&tensor.0)) {
                Some(group) => taken[group].push(tensor),
                None => rest.push(tensor),
            }
        }
        let group = |(spec, tensors): (&GroupSpec, Vec<_>)| match spec.method {
            Method::Adam(options) => Group::Adam(Adam::new(options, tensors)),
            Method::Sgd(options) => Group::Sgd { options, slots: Adam::new(NO_OPTIONS, tensors).into_slots() },
        };
        Self { main: Adam::new(options, rest), others: specs.iter().zip(taken).map(group).collect(), clip }
    }

    /// The plan's own group.
    pub fn main(&self) -> &Adam {
        &self.main
    }

    /// The plan's own group, to give it state.
    pub fn main_mut(&mut self) -> &mut Adam {
        &mut self.main
    }

    /// The options of all groups, the plan's own first, where each is an Adam and no gradient is cut.
    pub fn adams(&self) -> Option<Vec<AdamOptions>> {
        let of_group = |group: &Group| match group {
            Group::Adam(adam) => Some(*adam.options()),
            Group::Sgd { .. } => None,
        };
        let others = self.others.iter().map(of_group);
        std::iter::once(Some(*self.main.options())).chain(others).collect::<Option<_>>().filter(|_| self.clip.is_none())
    }

    /// Which group has the tensor of this name, as [`Self::adams`] counts them.
    pub fn group_of(&self, name: &str) -> Option<usize> {
        let has = |slots: &[Slot]| slots.iter().any(|slot| slot.name == name);
        let other = |group: &Group| match group {
            Group::Adam(adam) => has(adam.slots()),
            Group::Sgd { slots, .. } => has(slots),
        };
        if has(self.main.slots()) { Some(0) } else { self.others.iter().position(other).map(|at| at + 1) }
    }

    /// The run's learning rate.
    pub fn rate(&self) -> f64 {
        self.main.rate()
    }

    /// Changes the learning rate, of all groups by one factor.
    pub fn set_rate(&mut self, rate: f64) {
        let factor = rate / self.main.rate();
        self.main.set_rate(rate);
        for group in &mut self.others {
            match group {
                Group::Adam(adam) => adam.set_rate(adam.rate() * factor),
                Group::Sgd { options, .. } => options.rate *= factor,
            }
        }
    }

    /// Computes the gradients of `loss` and moves every tensor that got one.
    pub fn minimise(&mut self, loss: &Tensor) {
        self.slots_mut().for_each(|slot| slot.tensor.zero_grad());
        loss.backward();
        no_grad(|| {
            if let Some(bound) = self.clip {
                let gradients = self.slots().map(|slot| slot.tensor.grad()).filter(Tensor::defined);
                gradients.for_each(|mut gradient| {
                    let _ = gradient.clamp_(-bound, bound);
                });
            }
            self.main.step();
            for group in &mut self.others {
                match group {
                    Group::Adam(adam) => adam.step(),
                    Group::Sgd { options, slots } => slots.iter_mut().for_each(|slot| descend(slot, options)),
                }
            }
        });
    }

    /// The tensors of all groups and their state.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        let others = self.others.iter().flat_map(|group| match group {
            Group::Adam(adam) => adam.slots(),
            Group::Sgd { slots, .. } => slots,
        });
        self.main.slots().iter().chain(others)
    }

    /// The tensors of all groups and their state, to restore them.
    pub fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        let others = self.others.iter_mut().flat_map(|group| match group {
            Group::Adam(adam) => adam.slots_mut(),
            Group::Sgd { slots, .. } => slots,
        });
        self.main.slots_mut().iter_mut().chain(others)
    }
}

/// One step of gradient descent; the slot's mean holds the last one.
fn descend(slot: &mut Slot, options: &SgdOptions) {
    let gradient = slot.tensor.grad();
    if !gradient.defined() {
        return;
    }
    let gradient = match slot.gradient {
        GradientUse::Applied => gradient,
        GradientUse::Masked => gradient.zeros_like(),
    };
    let gradient = gradient + &slot.tensor * options.weight_decay;
    slot.n_steps += 1;
    let _ = slot.mean.g_mul_scalar_(options.momentum).g_add_(&gradient);
    let _ = slot.tensor.g_sub_(&(&slot.mean * options.rate));
}

/// Slots that gradient descent uses look at no option of Adam.
const NO_OPTIONS: AdamOptions = AdamOptions { rate: 0.0, eps: 1.0, weight_decay: 0.0, decay: super::Decay::L2 };

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::train::Decay;

    const ADAM: AdamOptions = AdamOptions { rate: 0.1, eps: 1e-8, weight_decay: 0.5, decay: Decay::L2 };

    fn tensors() -> Vec<(String, Tensor, GradientUse)> {
        let one = |name: &str| {
            let tensor = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            (name.to_owned(), tensor, GradientUse::Applied)
        };
        vec![one("weight"), one("embedding"), one("graph")]
    }

    fn values(optimiser: &Optimiser) -> Vec<f64> {
        optimiser.slots().map(|slot| slot.tensor.double_value(&[0])).collect()
    }

    #[test]
    fn each_group_moves_by_its_own_method() {
        let plain = AdamOptions { weight_decay: 0.0, ..ADAM };
        let sgd = SgdOptions { rate: 0.01, momentum: 0.9, weight_decay: 0.0 };
        let groups = [
            GroupSpec { takes: |name| name == "embedding", method: Method::Adam(plain) },
            GroupSpec { takes: |name| name == "graph", method: Method::Sgd(sgd) },
        ];
        let tensors = tensors();
        let handles: Vec<Tensor> = tensors.iter().map(|(_, tensor, _)| tensor.shallow_clone()).collect();
        let mut optimiser = Optimiser::new(ADAM, &groups, None, tensors);
        assert_eq!((optimiser.adams(), optimiser.group_of("embedding")), (None, Some(1)));
        // A gradient of 2 everywhere, twice: Adam's first steps have the size of the rate.
        for expected in [[0.9, 0.9, 0.98], [0.8, 0.8, 0.942]] {
            let loss = handles.iter().map(|tensor| tensor.sum(Kind::Float) * 2.0).reduce(|a, b| a + b).unwrap();
            optimiser.minimise(&loss);
            let close = values(&optimiser).iter().zip(expected).all(|(ours, expected)| (ours - expected).abs() < 1e-3);
            assert!(close, "{:?}, expected {expected:?}", values(&optimiser));
        }
        optimiser.set_rate(0.05);
        assert_eq!(optimiser.rate(), 0.05);
        let [_, Group::Sgd { options, .. }] = &optimiser.others[..] else { panic!("two groups") };
        assert_eq!(options.rate, 0.005);
    }

    #[test]
    fn clipped_gradients_are_cut_element_by_element() {
        let tensor = Tensor::zeros([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let handle = tensor.shallow_clone();
        let sgd = SgdOptions { rate: 1.0, momentum: 0.0, weight_decay: 0.0 };
        let all = [GroupSpec { takes: |_| true, method: Method::Sgd(sgd) }];
        let mut optimiser = Optimiser::new(ADAM, &all, Some(0.5), [("w".to_owned(), tensor, GradientUse::Applied)]);
        optimiser.minimise(&(&handle * Tensor::from_slice(&[0.25_f32, -9.0])).sum(Kind::Float));
        assert_eq!(Vec::<f32>::try_from(&handle).unwrap(), [-0.25, 0.5]);
    }
}
