//! Upstream's tensor layout: where our tensors stand in the matrices that scvi-tools and scArches save.
//!
//! We keep `W`, one row per condition and one row per category apart; upstream keeps `[W | conditions | categories…]` in one
//! matrix, and other per-condition tensors with the condition as last dimension. The one place that knows both.

use std::collections::BTreeMap;

use archipelago_common::{Columns, Section, StateDict};
use tch::Tensor;

use crate::{
    error::{Error, Result},
    nn::{Role, Weights, from_tch, to_tch},
};

/// Tensors by upstream's name.
pub type Named = BTreeMap<String, Tensor>;

/// Where each of a module's tensors stands upstream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    tensors: BTreeMap<String, Vec<Part>>,
    /// Keys of each axis.
    n_keys: BTreeMap<Section, usize>,
}

/// One of our tensors inside an upstream tensor. Parts of one tensor lie side by side along the last dimension.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Our name.
    pub name: String,
    /// What it is there.
    pub kind: PartKind,
    /// The axis that its rows belong to, if it has rows.
    pub section: Section,
    /// Columns it takes in the upstream tensor, where that is a matrix of several parts.
    pub n_columns: i64,
}

/// What one of our tensors is inside an upstream tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartKind {
    /// The same, without covariates.
    Expression,
    /// One row per condition here, one column upstream.
    Conditions,
    /// One row per condition, or per key of a further axis, here and upstream.
    ConditionRows,
    /// One row per category here, one column upstream.
    Categories,
}

impl Layout {
    /// The layout of a module's tensors, but for facts about conditions and summaries, which upstream keeps elsewhere, and offsets of conditions,
    /// which it does not have.
    pub fn of(weights: &Weights) -> Self {
        let mut tensors: BTreeMap<String, Vec<Part>> = BTreeMap::new();
        let is_upstreams = |role: Role| !matches!(role, Role::ConditionFact | Role::ConditionOffset | Role::Summary);
        for (name, weight) in weights.iter().filter(|(_, weight)| is_upstreams(weight.role)) {
            let (upstream, kind) = place(name, weights);
            let size = weight.tensor.size();
            let n_columns = match kind {
                PartKind::Conditions | PartKind::Categories => size[0],
                PartKind::Expression | PartKind::ConditionRows => size.last().copied().unwrap_or(0),
            };
            let part = Part { name: name.to_owned(), kind, section: weight.section.clone(), n_columns };
            tensors.entry(upstream).or_default().push(part);
        }
        for parts in tensors.values_mut() {
            parts.sort_by(|a, b| order(a).cmp(&order(b)));
        }
        let sections = weights.iter().map(|(_, weight)| weight.section.clone()).chain([Section::Condition]);
        let n_keys = sections.map(|section| (section.clone(), weights.n_keys(&section))).collect();
        Self { tensors, n_keys }
    }

    /// Upstream's names, each with the parts that are ours.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Part])> {
        self.tensors.iter().map(|(name, parts)| (name.as_str(), parts.as_slice()))
    }

    /// Joins tensors (or their gradients) to upstream's. A part that `tensor` does not give counts as zeros, unless all
    /// parts are missing.
    pub fn join(&self, weights: &Weights, tensor: impl Fn(&str, &Tensor) -> Option<Tensor>) -> Named {
        let mut joined = Named::new();
        for (upstream, parts) in &self.tensors {
            let stored = |part: &Part| weights.get(&part.name).expect("the layout is of these weights");
            let given: Vec<Option<Tensor>> = parts.iter().map(|part| tensor(&part.name, stored(part))).collect();
            if given.iter().all(Option::is_none) {
                continue;
            }
            let columns: Vec<Tensor> = parts
                .iter()
                .zip(given)
                .map(|(part, given)| to_upstream(part.kind, given.unwrap_or_else(|| stored(part).zeros_like())))
                .collect();
            joined.insert(
                upstream.clone(),
                if columns.len() == 1 { columns[0].copy() } else { Tensor::cat(&columns, -1) },
            );
        }
        joined
    }

    /// Splits upstream's tensors into those of the base and the columns of each condition. What the module does not
    /// use is left out. A single condition has no column upstream: its columns become zeros.
    ///
    /// # Errors  [`Error::Common`] for a missing tensor, [`Error::TensorShape`] for one of another width
    pub fn split(&self, upstream: &StateDict) -> Result<(StateDict, Vec<Columns>)> {
        let mut base = StateDict::new();
        for (part, ours) in self.parts_of(upstream)? {
            if !part.is_per_key() {
                base.insert(part.name.clone(), from_tch(&ours));
            }
        }
        Ok((base, self.columns_on(&Section::Condition, upstream)?))
    }

    /// The columns of each key of an axis among upstream's tensors.
    ///
    /// # Errors  as [`Self::split`]
    pub fn columns_on(&self, section: &Section, upstream: &StateDict) -> Result<Vec<Columns>> {
        let n_keys = self.n_keys.get(section).copied().unwrap_or_default();
        let mut columns = vec![Columns::default(); n_keys];
        for (part, ours) in self.parts_of(upstream)? {
            if part.is_per_key() && part.section == *section {
                if ours.size()[0] != n_keys as i64 {
                    let (found, expected) = (format!("of {} keys", ours.size()[0]), format!("{n_keys} keys"));
                    return Err(Error::TensorShape { name: part.name.clone(), found, expected });
                }
                for (code, columns) in columns.iter_mut().enumerate() {
                    columns.0.insert(part.name.clone(), from_tch(&ours.get(code as i64)));
                }
            }
        }
        Ok(columns)
    }

    /// Our tensors among upstream's.
    fn parts_of(&self, upstream: &StateDict) -> Result<Vec<(&Part, Tensor)>> {
        let mut ours = Vec::new();
        for (name, parts) in &self.tensors {
            let whole = to_tch(name, upstream.require("the model file", name)?)?;
            let whole = self.with_single_column(whole, parts);
            let expected: i64 = parts.iter().map(|part| part.n_columns).sum();
            let found = whole.size().last().copied().unwrap_or(0);
            if whole.dim() > 0 && found != expected {
                let (found, expected) = (format!("{found} columns wide"), format!("{expected} columns"));
                return Err(Error::TensorShape { name: name.clone(), found, expected });
            }
            let mut start = 0;
            for part in parts {
                let slice =
                    if parts.len() == 1 { whole.shallow_clone() } else { whole.narrow(-1, start, part.n_columns) };
                start += part.n_columns;
                ours.push((part, from_upstream(part.kind, slice)));
            }
        }
        Ok(ours)
    }

    fn with_single_column(&self, whole: Tensor, parts: &[Part]) -> Tensor {
        let position = parts.iter().position(|part| part.kind == PartKind::Conditions);
        let (Some(position), 1, true) = (position, self.n_keys[&Section::Condition], parts.len() > 1) else {
            return whole;
        };
        let width: i64 = parts.iter().map(|part| part.n_columns).sum();
        let found = whole.size().last().copied().unwrap_or(0);
        if found != width - 1 {
            return whole;
        }
        let before: i64 = parts[..position].iter().map(|part| part.n_columns).sum();
        let zeros = whole.narrow(-1, 0, 1).zeros_like();
        Tensor::cat(&[whole.narrow(-1, 0, before), zeros, whole.narrow(-1, before, found - before)], -1)
    }
}

impl Part {
    /// Whether it has a row for each key of its axis.
    fn is_per_key(&self) -> bool {
        matches!(self.kind, PartKind::Conditions | PartKind::ConditionRows)
    }
}

/// Upstream's name of one of our tensors, and what it is there.
fn place(name: &str, weights: &Weights) -> (String, PartKind) {
    if name == "batch_embedding.condition" {
        return ("_embeddings_dict.batch.weight".to_owned(), PartKind::ConditionRows);
    }
    let Some((stem, last)) = name.rsplit_once('.') else { return (name.to_owned(), PartKind::Expression) };
    let matrix = format!("{stem}.weight");
    match last {
        "condition" if weights.get(&matrix).is_some() => (matrix, PartKind::Conditions),
        "condition" => (stem.to_owned(), PartKind::Conditions),
        "row" => (stem.to_owned(), PartKind::ConditionRows),
        _ if last.starts_with("covariate") => (matrix, PartKind::Categories),
        _ => (name.to_owned(), PartKind::Expression),
    }
}

/// Expression first, then conditions, then categories in the order of their covariates.
fn order(part: &Part) -> (u8, usize, &str) {
    let rank = match part.kind {
        PartKind::Expression | PartKind::ConditionRows => 0,
        PartKind::Conditions => 1,
        PartKind::Categories => 2,
    };
    (rank, part.name.len(), &part.name)
}

fn to_upstream(kind: PartKind, ours: Tensor) -> Tensor {
    match kind {
        PartKind::Expression | PartKind::ConditionRows => ours,
        PartKind::Conditions | PartKind::Categories => ours.tr(),
    }
}

fn from_upstream(kind: PartKind, theirs: Tensor) -> Tensor {
    to_upstream(kind, theirs)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::{
        data::Registry,
        model::Module as _,
        nn::{Builder, ConditionSource, Source, Trainable},
        zoo::scvi::{ScviConfig, ScviModule},
    };

    fn module(n_conditions: usize) -> ScviModule {
        let config = ScviConfig { n_hidden: 4, n_latent: 2, ..ScviConfig::for_surgery() };
        let fresh = ConditionSource::Fresh(n_conditions);
        let builder = Builder::new(Source::Fresh, fresh, Trainable::Nothing, [1; 32], Device::Cpu);
        ScviModule::new(config, &Registry::default(), 3, builder).unwrap()
    }

    fn joined(module: &ScviModule) -> StateDict {
        let all = Layout::of(module.weights()).join(module.weights(), |_, tensor| Some(tensor.copy()));
        all.iter().map(|(name, tensor)| (name.clone(), from_tch(tensor))).collect()
    }

    #[test]
    fn one_batch_has_no_column_upstream_and_zeros_here() {
        let module = module(1);
        let mut upstream = joined(&module);
        let name = "decoder.px_decoder.fc_layers.Layer 0.0.weight";
        let narrow = to_tch(name, upstream.get(name).unwrap()).unwrap().narrow(1, 0, 2);
        let encoder = "z_encoder.encoder.fc_layers.Layer 0.0.weight";
        let narrow_encoder = to_tch(encoder, upstream.get(encoder).unwrap()).unwrap().narrow(1, 0, 3);
        upstream.insert(name, from_tch(&narrow));
        upstream.insert(encoder, from_tch(&narrow_encoder));
        let (base, columns) = Layout::of(module.weights()).split(&upstream).unwrap();
        assert_eq!(base, module.weights().base());
        for (name, column) in columns[0].0.iter() {
            assert!(column.to_f32(name).unwrap().iter().all(|&value| value == 0.0), "{name}");
        }
    }

    #[test]
    fn tensors_of_another_width_are_refused() {
        let (two, three) = (module(2), module(3));
        let refused = Layout::of(three.weights()).split(&joined(&two)).unwrap_err();
        assert!(matches!(refused, Error::TensorShape { .. }), "{refused}");
        let refused = Layout::of(two.weights()).split(&StateDict::new()).unwrap_err();
        assert!(refused.to_string().contains("the model file has no tensor"), "{refused}");
    }
}
