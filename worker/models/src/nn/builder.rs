//! Hands out the tensors that layers ask for: fresh, or from a stored reference.

use std::collections::BTreeMap;

use archipelago_common::{Columns, DType, Name, Section, StateDict, state_dict::TensorSpec};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use tch::{Device, Tensor};

use super::{Levels, Role, Weight, Weights, to_tch};
use crate::error::{Error, Result};

/// How a fresh tensor starts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Init {
    /// Uniform on `[-1/sqrt(fan_in), 1/sqrt(fan_in)]`.
    FanIn(usize),
    /// Uniform on `[low, high]`.
    Uniform(f64, f64),
    /// Standard normal.
    Normal,
    /// Normal around 0 with this standard deviation.
    NormalWithin(f64),
    /// One number everywhere.
    Constant(f64),
    /// A counter at zero.
    Counter,
}

/// Where the tensors that conditions do not own come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Fresh random numbers.
    Fresh,
    /// A stored base.
    Stored(&'a StateDict),
    /// A stored base of a smaller model; fresh where it lacks a tensor.
    Pretrained(&'a StateDict),
}

/// Where the rows of an axis come from: those of the conditions, or of a further axis.
#[derive(Clone, Copy)]
pub enum ConditionSource<'a> {
    /// Fresh random numbers for so many conditions.
    Fresh(usize),
    /// The mean row that the base keeps, for each of so many keys; fresh where it keeps none.
    Mean(usize),
    /// Stored columns, in order of the codes.
    Stored(&'a [&'a Columns]),
}

impl ConditionSource<'_> {
    fn n_keys(self) -> usize {
        match self {
            Self::Fresh(n) | Self::Mean(n) => n,
            Self::Stored(columns) => columns.len(),
        }
    }
}

/// Which tensors get gradients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trainable {
    /// None: the module is only evaluated.
    Nothing,
    /// The rows of the keys of every axis, and what a site keeps for itself: exact surgery.
    Conditions,
    /// Everything with a trainable role.
    Everything,
}

/// What differs from layer to layer when a module is built for upstream's surgery.
pub trait LayerRules {
    /// Momentum of the running statistics of a batch norm layer.
    fn momentum(&self, _layer: &str) -> f64 {
        0.01
    }

    /// Whether a batch norm layer normalises by minibatch in training and leaves its running statistics as they are.
    fn keeps_statistics(&self, _layer: &str) -> bool {
        false
    }

    /// Dropout rate of a layer, given the model's.
    fn dropout(&self, _layer: &str, rate: f64) -> f64 {
        rate
    }
}

/// The rules of a model that is trained as a whole.
struct NoRules;

impl LayerRules for NoRules {}

/// Builds a module's tensors one by one and collects them.
pub struct Builder<'a> {
    source: Source<'a>,
    axes: Vec<(Section, ConditionSource<'a>)>,
    /// Rows of the base that stand before those of a further axis, by its name.
    shared: BTreeMap<Name, usize>,
    local: Option<&'a StateDict>,
    trainable: Trainable,
    rules: &'a dyn LayerRules,
    rng: ChaCha8Rng,
    weights: Weights,
    n_known: usize,
}

impl<'a> Builder<'a> {
    /// A builder for one module. `seed` matters where something is fresh.
    pub fn new(
        source: Source<'a>,
        conditions: ConditionSource<'a>,
        trainable: Trainable,
        seed: [u8; 32],
        device: Device,
    ) -> Self {
        let axes = vec![(Section::Condition, conditions)];
        let weights = Weights::new(device, vec![(Section::Condition, conditions.n_keys())]);
        let rng = ChaCha8Rng::from_seed(seed);
        Self {
            source,
            axes,
            shared: BTreeMap::new(),
            local: None,
            trainable,
            rules: &NoRules,
            rng,
            weights,
            n_known: 0,
        }
    }

    /// The same builder with a further axis, for a model that has one more covariate to grow along. Before the first tensor.
    #[must_use]
    pub fn with_axis(mut self, name: Name, keys: ConditionSource<'a>) -> Self {
        self.axes.push((Section::Axis(name), keys));
        let n_keys = self.axes.iter().map(|(section, keys)| (section.clone(), keys.n_keys())).collect();
        self.weights = Weights::new(self.weights.device(), n_keys);
        self
    }

    /// The same builder with so many rows of the base before those of a further axis: keys that a query shares with the reference.
    #[must_use]
    pub fn sharing(mut self, axis: Name, n_shared: usize) -> Self {
        self.shared.insert(axis, n_shared);
        self
    }

    /// The same builder with the tensors that a site has kept for itself. Without them, or where they lack one, they are fresh.
    #[must_use]
    pub fn with_local(self, local: &'a StateDict) -> Self {
        Self { local: Some(local), ..self }
    }

    /// The same builder under other layer rules.
    #[must_use]
    pub fn with_rules(self, rules: &'a dyn LayerRules) -> Self {
        Self { rules, ..self }
    }

    /// Where the tensors will live.
    pub fn device(&self) -> Device {
        self.weights.device()
    }

    /// Number of conditions the module is built for.
    pub fn n_conditions(&self) -> usize {
        self.weights.n_conditions()
    }

    /// The same builder of conditions that are added to a reference of `n_known` ones.
    #[must_use]
    pub fn after(self, n_known: usize) -> Self {
        Self { n_known, ..self }
    }

    /// Conditions there are once those of the module are added to a reference's. Where they are built together with the
    /// reference's own, that is their number.
    pub fn n_all_conditions(&self) -> usize {
        self.n_conditions().max(self.n_known + 1)
    }

    /// What differs from layer to layer.
    pub fn rules(&self) -> &'a dyn LayerRules {
        self.rules
    }

    /// The tensors collected so far, for a network that is part of a larger one.
    pub fn collected(&self) -> Weights {
        self.weights.share()
    }

    /// The collected tensors.
    pub fn finish(self) -> Weights {
        self.weights
    }

    /// A tensor that no condition owns: everybody's, or with [`Role::Local`] the site's own.
    ///
    /// # Errors  [`Error::Common`] if the stored base lacks it, [`Error::TensorShape`] if it looks otherwise
    pub fn tensor(&mut self, name: &str, shape: &[usize], role: Role, init: Init) -> Result<Tensor> {
        let tensor = match self.source {
            _ if role == Role::Local => match self.local.filter(|local| local.get(name).is_some()) {
                Some(local) => stored("the site's own tensors", local, name, shape, init)?,
                None => self.fresh(shape, init),
            },
            Source::Pretrained(base) if base.get(name).is_none() => self.fresh(shape, init),
            Source::Fresh => self.fresh(shape, init),
            Source::Stored(base) | Source::Pretrained(base) => stored("the base", base, name, shape, init)?,
        };
        Ok(self.keep(name, tensor, role, Section::Condition))
    }

    /// In a new module, gives the tensors under `name` the numbers of those under `of`, which are alike.
    pub fn start_as(&mut self, name: &str, of: &str) {
        if !matches!(self.source, Source::Fresh) {
            return;
        }
        let first = self.weights.iter().filter_map(|(full, weight)| {
            let rest = full.strip_prefix(of)?.strip_prefix('.')?;
            Some((format!("{name}.{rest}"), weight.tensor.shallow_clone()))
        });
        for (full, first) in first.collect::<Vec<_>>() {
            if let Some(tensor) = self.weights.get(&full) {
                tch::no_grad(|| tensor.shallow_clone().copy_(&first));
            }
        }
    }

    /// In a new module, draws once more what `init` says something of, by name and shape.
    pub fn draw_again(&mut self, init: impl Fn(&str, &[i64]) -> Option<Init>) {
        if !matches!(self.source, Source::Fresh) {
            return;
        }
        let drawn = self.weights.iter().filter_map(|(name, weight)| {
            let init = init(name, &weight.tensor.size())?;
            Some((weight.tensor.shallow_clone(), init))
        });
        for (tensor, init) in drawn.collect::<Vec<_>>() {
            let shape: Vec<usize> = tensor.size().into_iter().map(|n| n as usize).collect();
            let fresh = self.fresh(&shape, init);
            tch::no_grad(|| tensor.shallow_clone().copy_(&fresh));
        }
    }

    /// A [summary](Role::Summary) with a row of this shape for each of something of which the reference's cells have so many, and of which
    /// more can come to be: as many rows as the base keeps, and zeros up to `at_least` so many.
    ///
    /// # Errors  as [`Self::tensor`]
    pub fn summary_rows(&mut self, name: &str, at_least: usize, row: &[usize]) -> Result<Tensor> {
        let with_rows = |n: usize| -> Vec<usize> { std::iter::once(n).chain(row.iter().copied()).collect() };
        let kept = match self.source {
            Source::Fresh => None,
            Source::Pretrained(base) if base.get(name).is_none() => None,
            Source::Stored(base) | Source::Pretrained(base) => {
                let n_rows = base.require("the base", name)?.shape().first().copied().unwrap_or_default();
                Some(stored("the base", base, name, &with_rows(n_rows), Init::Constant(0.0))?)
            }
        };
        let n_kept = kept.as_ref().map_or(0, |kept| kept.size()[0] as usize);
        let rest = self.fresh(&with_rows(at_least.saturating_sub(n_kept)), Init::Constant(0.0));
        let tensor = match kept {
            Some(kept) => Tensor::cat(&[kept, rest], 0),
            None => rest,
        };
        Ok(self.keep(name, tensor, Role::Summary, Section::Condition))
    }

    /// A tensor with one row of this shape per condition.
    ///
    /// # Errors  as [`Self::tensor`]
    pub fn condition_rows(&mut self, name: &str, row: &[usize], role: Role, init: Init) -> Result<Tensor> {
        self.rows_on(&Section::Condition, name, row, role, init)
    }

    /// A tensor with one row of this shape per key of an axis.
    ///
    /// # Errors  as [`Self::tensor`]
    ///
    /// # Panics
    /// If the builder has no such axis: whoever builds a model gives it its axes.
    pub fn rows_on(&mut self, section: &Section, name: &str, row: &[usize], role: Role, init: Init) -> Result<Tensor> {
        let (_, keys) = self.axes.iter().find(|(axis, _)| axis == section).expect("the model was given its axes");
        let keys = *keys;
        let fresh_shape: Vec<usize> = std::iter::once(keys.n_keys()).chain(row.iter().copied()).collect();
        let tensor = match (keys, self.source) {
            (ConditionSource::Stored(columns), _) => {
                let rows: Result<Vec<Tensor>> =
                    columns.iter().map(|columns| stored("the columns", &columns.0, name, row, init)).collect();
                let rows = rows?;
                if rows.is_empty() { self.fresh(&fresh_shape, init) } else { Tensor::stack(&rows, 0) }
            }
            (ConditionSource::Mean(n), Source::Stored(base)) if n > 0 && base.get(&mean_name(name)).is_some() => {
                let mean = stored("the base", base, &mean_name(name), row, init)?;
                Tensor::stack(&(0..n).map(|_| mean.shallow_clone()).collect::<Vec<_>>(), 0)
            }
            _ => self.fresh(&fresh_shape, init),
        };
        Ok(self.keep(name, tensor, role, section.clone()))
    }

    /// Tensors with one row of this shape per key of a further axis, those of keys first that are shared with the base: they stay as
    /// they are, whatever is trained.
    ///
    /// # Errors  as [`Self::tensor`]
    ///
    /// # Panics
    /// As [`Self::rows_on`].
    pub fn levels(&mut self, axis: &Name, name: &str, row: &[usize], role: Role, init: Init) -> Result<Levels> {
        let shared = match (self.shared.get(axis), self.source) {
            (Some(&n_shared), Source::Stored(base)) if n_shared > 0 => {
                let name = shared_name(name);
                let shape: Vec<usize> = std::iter::once(n_shared).chain(row.iter().copied()).collect();
                let rows = stored("the base", base, &name, &shape, init)?;
                Some(self.keep(&name, rows, Role::Buffer, Section::Condition))
            }
            _ => None,
        };
        Ok(Levels { shared, own: self.rows_on(&Section::Axis(axis.clone()), name, row, role, init)? })
    }

    fn keep(&mut self, name: &str, tensor: Tensor, role: Role, section: Section) -> Tensor {
        let trains = match self.trainable {
            Trainable::Nothing => false,
            Trainable::Conditions => matches!(role, Role::Condition | Role::ConditionOffset | Role::Local),
            Trainable::Everything => role.is_trainable(),
        };
        let tensor = tensor.to_device(self.weights.device()).set_requires_grad(trains);
        self.weights.insert(name, Weight { tensor: tensor.shallow_clone(), role, section });
        tensor
    }

    fn fresh(&mut self, shape: &[usize], init: Init) -> Tensor {
        let sizes: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let count = shape.iter().product();
        let values: Vec<f32> = match init {
            Init::FanIn(fan_in) => {
                let bound = 1.0 / (fan_in.max(1) as f32).sqrt();
                (0..count).map(|_| self.rng.random_range(-bound..=bound)).collect()
            }
            Init::Uniform(low, high) => (0..count).map(|_| self.rng.random_range(low..=high) as f32).collect(),
            Init::Normal => (0..count).map(|_| self.rng.sample(StandardNormal)).collect(),
            Init::NormalWithin(deviation) => {
                (0..count).map(|_| self.rng.sample::<f32, _>(StandardNormal) * deviation as f32).collect()
            }
            Init::Constant(value) => vec![value as f32; count],
            Init::Counter => return Tensor::zeros(sizes.as_slice(), (tch::Kind::Int64, Device::Cpu)),
        };
        Tensor::from_slice(&values).view(sizes.as_slice())
    }
}

/// The name under which a base keeps the mean row of its training conditions.
pub fn mean_name(name: &str) -> String {
    format!("{name}.mean")
}

/// The name under which a base keeps the rows of the keys that queries share with it.
pub fn shared_name(name: &str) -> String {
    format!("{name}.shared")
}

fn stored(what: &str, dict: &StateDict, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
    let found = dict.require(what, name)?;
    let dtype = if init == Init::Counter { DType::I64 } else { DType::F32 };
    let expected = TensorSpec { dtype, shape: shape.to_vec() };
    if found.spec() != expected {
        let (found, expected) = (found.spec().to_string(), expected.to_string());
        return Err(Error::TensorShape { name: name.to_owned(), found, expected });
    }
    to_tch(name, found)
}

#[cfg(test)]
mod tests {
    use archipelago_common::TensorKind;

    use super::*;
    use crate::nn::from_tch;

    /// A module of one tensor of each role, and a further axis.
    fn build(builder: Builder<'_>) -> Weights {
        let mut b = builder;
        let tensors = [
            b.tensor("w", &[2], Role::Parameter, Init::Normal),
            b.tensor("kept", &[3], Role::Local, Init::Normal),
            b.condition_rows("a.condition", &[4], Role::Condition, Init::Normal),
            b.condition_rows("b.condition", &[1], Role::ConditionFact, Init::Constant(1.0)),
            b.rows_on(&donor(), "a.donor", &[5], Role::Condition, Init::Normal),
        ];
        assert!(tensors.iter().all(Result::is_ok));
        b.finish()
    }

    fn donor() -> Section {
        Section::Axis("donor".parse().unwrap())
    }

    fn fresh(trainable: Trainable, n_conditions: usize, n_donors: usize) -> Weights {
        let builder =
            Builder::new(Source::Fresh, ConditionSource::Fresh(n_conditions), trainable, [1; 32], Device::Cpu);
        build(builder.with_axis("donor".parse().unwrap(), ConditionSource::Fresh(n_donors)))
    }

    #[test]
    fn each_axis_has_its_own_keys_and_what_is_local_is_in_neither_columns_nor_base() {
        let weights = fresh(Trainable::Everything, 2, 3);
        assert_eq!((weights.n_conditions(), weights.n_keys(&donor())), (2, 3));
        let names = |dict: &StateDict| dict.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&weights.columns(1).0), ["a.condition", "b.condition"]);
        assert_eq!(names(&weights.columns_on(&donor(), 2).0), ["a.donor"]);
        assert_eq!(names(&weights.base()), ["w"]);
        assert_eq!(names(&weights.local()), ["kept"]);
        let layout = weights.layout();
        assert_eq!(layout.axes.len(), 2);
        assert_eq!(layout.axis(&donor()).unwrap().tensors["a.donor"].spec.shape, [5]);
        assert_eq!(layout.axis(&Section::Condition).unwrap().kind("b.condition"), TensorKind::Fact);
        assert_eq!(layout.card_format(), 2);
    }

    #[test]
    fn a_summary_keeps_its_rows_and_takes_more() {
        let build = |source: Source<'_>, at_least: usize| {
            let mut b = Builder::new(source, ConditionSource::Fresh(1), Trainable::Everything, [0; 32], Device::Cpu);
            let rows = b.summary_rows("s", at_least, &[2])?;
            Ok::<_, Error>((rows, b.finish()))
        };
        let (rows, weights) = build(Source::Fresh, 2).unwrap();
        let _ = rows.shallow_clone().fill_(1.5);
        assert!(!rows.requires_grad());
        let base = weights.base();
        for (at_least, expected) in [(0, 2), (2, 2), (3, 3)] {
            let (rows, _) = build(Source::Stored(&base), at_least).unwrap();
            assert_eq!((rows.size(), rows.sum(tch::Kind::Float).double_value(&[])), (vec![expected, 2], 6.0));
        }
        let mut other = base.clone();
        other.insert("s", archipelago_common::Tensor::from_f32(&[2, 3], &[0.0; 6]));
        assert!(matches!(build(Source::Stored(&other), 0), Err(Error::TensorShape { .. })));
        assert_eq!(build(Source::Fresh, 0).unwrap().1.base().get("s").unwrap().shape(), [0, 2]);
    }

    #[test]
    fn a_module_comes_back_from_what_leaves_and_what_stays() {
        let made = fresh(Trainable::Nothing, 1, 2);
        let (base, local, condition) = (made.base(), made.local(), made.columns(0));
        let donors = [made.columns_on(&donor(), 0), made.columns_on(&donor(), 1)];
        let (conditions, donors) = ([&condition], [&donors[0], &donors[1]]);
        let builder = Builder::new(
            Source::Stored(&base),
            ConditionSource::Stored(&conditions),
            Trainable::Nothing,
            [2; 32],
            Device::Cpu,
        );
        let builder = builder.with_axis("donor".parse().unwrap(), ConditionSource::Stored(&donors));
        let again = build(builder.with_local(&local));
        for (name, weight) in made.iter() {
            assert_eq!(from_tch(&weight.tensor), from_tch(again.get(name).unwrap()), "{name}");
        }
    }

    #[test]
    fn surgery_trains_the_rows_of_every_axis_and_what_stays_at_the_site() {
        let weights = fresh(Trainable::Conditions, 1, 1);
        let trained: Vec<_> = weights.iter().filter(|(_, w)| w.tensor.requires_grad()).map(|(name, _)| name).collect();
        assert_eq!(trained, ["a.condition", "a.donor", "kept"]);
    }
}
