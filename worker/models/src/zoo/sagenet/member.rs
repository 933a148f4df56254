//! The networks of one section as a member of an ensemble: what a site trains and publishes.

use std::collections::BTreeMap;

use archipelago_common::{
    ConditionKey, Name, StateDict, Tensor as Stored,
    part::{Contribution, Member},
};

use super::{
    SagenetConfig,
    graph::GeneGraph,
    network::{self, Network},
};
use crate::{
    error::{Error, Result},
    parts::Parts,
};

/// Name of the part whose members are networks of sections.
pub const PART: &str = "networks";

/// The networks of one section.
#[derive(Clone, PartialEq, Debug)]
pub struct SectionNetworks {
    /// The penalty under which the network of genes was found; not a number where that is not known.
    pub alpha: f64,
    /// Pairs of genes that go together.
    pub pairs: Vec<(u32, u32)>,
    /// The networks, by their partitions.
    pub networks: BTreeMap<String, Trained>,
    /// How early each gene comes when genes are ordered by what they say of where cells lie, from 0; none for a gene without
    /// neighbours.
    pub importance: Option<Vec<Option<u32>>>,
}

/// A network that was trained.
#[derive(Clone, PartialEq, Debug)]
pub struct Trained {
    /// Its tensors, by upstream's names.
    pub tensors: StateDict,
    /// Cross entropy of the last epoch, with dropout; not a number where that is not known.
    pub loss: f64,
    /// Share of cells put into their part in the last epoch, with dropout; likewise.
    pub accuracy: f64,
}

impl Trained {
    /// Parts that it tells apart.
    ///
    /// # Errors  tensors without a last layer
    pub fn n_classes(&self) -> Result<usize> {
        network::n_classes(&self.tensors)
    }
}

impl SectionNetworks {
    /// The network of a partition.
    ///
    /// # Errors  tensors that do not fit the options
    pub fn network(&self, config: &SagenetConfig, n_genes: usize, trained: &Trained) -> Result<Network> {
        Network::stored(config, GeneGraph::new(n_genes, &self.pairs)?, &trained.tensors)
    }

    /// As a member of the part.
    pub fn to_member(&self) -> Member {
        let mut state = StateDict::new();
        let pairs: Vec<i64> = self.pairs.iter().flat_map(|&(a, b)| [a.into(), b.into()]).collect();
        state.insert(EDGES, Stored::from_i64(&[self.pairs.len(), 2], &pairs));
        if self.alpha.is_finite() {
            state.insert(ALPHA, Stored::from_f32(&[1], &[self.alpha as f32]));
        }
        if let Some(importance) = &self.importance {
            let ranks: Vec<i64> = importance.iter().map(|rank| rank.map_or(NO_RANK, i64::from)).collect();
            state.insert(IMPORTANCE, Stored::from_i64(&[ranks.len()], &ranks));
        }
        for (partition, trained) in &self.networks {
            let figures = [trained.loss as f32, trained.accuracy as f32];
            if figures.iter().all(|figure| figure.is_finite()) {
                state.insert(format!("{partition}/{FIGURES}"), Stored::from_f32(&[2], &figures));
            }
            for (name, tensor) in trained.tensors.iter() {
                state.insert(format!("{partition}/{name}"), tensor.clone());
            }
        }
        Member::Tensors(state)
    }

    /// What cells of a section contribute.
    pub(super) fn to_contribution(&self, cells: &[usize]) -> Contribution {
        let part: Name = PART.parse().expect("the part's name is one");
        Contribution { part, value: self.to_member(), cells: [(String::new(), cells.to_vec())].into() }
    }

    /// Reads what [`Self::to_member`] wrote, and checks it against the options and the number of genes.
    ///
    /// # Errors  [`Error::Value`], [`Error::TensorShape`], a tensor that is missing
    pub fn of_member(config: &SagenetConfig, n_genes: usize, member: &Member) -> Result<Self> {
        let Member::Tensors(state) = member else {
            let (part, found) = (PART.to_owned(), "sums".to_owned());
            return Err(Error::Value { part, found, expected: "tensors".to_owned() });
        };
        let flat = state.require(WHAT, EDGES)?.to_i64(EDGES)?;
        let gene = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        let pairs: Vec<(u32, u32)> = flat.chunks_exact(2).map(|pair| (gene(pair[0]), gene(pair[1]))).collect();
        let graph = GeneGraph::new(n_genes, &pairs)?;
        let alpha = state.get(ALPHA).and_then(|alpha| alpha.numbers().next()).unwrap_or(f64::NAN);
        let importance = state.get(IMPORTANCE).map(|ranks| ranks.to_i64(IMPORTANCE)).transpose()?;
        if let Some(ranks) = importance.as_ref().filter(|ranks| ranks.len() != n_genes) {
            let (part, axis) = (IMPORTANCE.to_owned(), "genes");
            return Err(Error::Shape { part, axis, found: ranks.len(), expected: n_genes });
        }
        let importance = importance.map(|ranks| ranks.into_iter().map(|rank| u32::try_from(rank).ok()).collect());
        let mut networks: BTreeMap<String, Trained> = BTreeMap::new();
        for (name, tensor) in state.iter() {
            let Some((partition, name)) = name.rsplit_once('/') else { continue };
            let none = || Trained { tensors: StateDict::new(), loss: f64::NAN, accuracy: f64::NAN };
            let trained = networks.entry(partition.to_owned()).or_insert_with(none);
            if name == FIGURES {
                let mut figures = tensor.numbers();
                trained.loss = figures.next().unwrap_or(f64::NAN);
                trained.accuracy = figures.next().unwrap_or(f64::NAN);
            } else {
                trained.tensors.insert(name, tensor.clone());
            }
        }
        let read = Self { alpha, pairs: graph.pairs().to_vec(), networks, importance };
        for trained in read.networks.values() {
            read.network(config, n_genes, trained)?;
        }
        Ok(read)
    }
}

/// The members of an ensemble, each with its tag, in the order of their keys: that is the order in which everybody adds them up.
///
/// # Errors  those of [`SectionNetworks::of_member`]
pub fn ensemble(config: &SagenetConfig, n_genes: usize, parts: &Parts) -> Result<Vec<(String, SectionNetworks)>> {
    let members: Vec<_> = parts.all(PART).collect();
    let keys: Vec<&ConditionKey> = members.iter().map(|(key, _)| *key).collect();
    let read = |(key, member): (&ConditionKey, &Member)| {
        Ok((tag(key, &keys), SectionNetworks::of_member(config, n_genes, member)?))
    };
    members.into_iter().map(read).collect()
}

/// What a section is called: its name, and where several owners have one of that name, its whole key.
fn tag(key: &ConditionKey, keys: &[&ConditionKey]) -> String {
    let is_single = keys.iter().filter(|other| other.batch() == key.batch()).count() == 1;
    match is_single {
        true => key.batch().to_owned(),
        false => key.clone().in_section(archipelago_common::Section::Condition).to_string().replace('/', "."),
    }
}

const EDGES: &str = "edges";
const ALPHA: &str = "alpha";
const IMPORTANCE: &str = "importance";
const FIGURES: &str = "figures";
/// Stands for a gene without a rank.
const NO_RANK: i64 = -1;
const WHAT: &str = "the member of an ensemble";

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> SectionNetworks {
        let graph = || GeneGraph::new(3, &[(0, 2)]).unwrap();
        let trained = |n_classes: usize| {
            let network = Network::fresh(&SagenetConfig::default(), graph(), n_classes, [7; 32]).unwrap();
            Trained { tensors: network.state(), loss: 0.5, accuracy: 0.75 }
        };
        SectionNetworks {
            alpha: 0.25,
            pairs: vec![(0, 2)],
            networks: [("leiden_0.5".to_owned(), trained(4)), ("my/regions".to_owned(), trained(2))].into(),
            importance: Some(vec![Some(0), None, Some(1)]),
        }
    }

    #[test]
    fn a_member_comes_back_as_it_went() {
        let given = networks();
        let read = SectionNetworks::of_member(&SagenetConfig::default(), 3, &given.to_member()).unwrap();
        assert_eq!(read, given);
        assert_eq!(read.networks["my/regions"].n_classes().unwrap(), 2);
    }

    #[test]
    fn a_member_of_other_genes_or_layers_is_refused() {
        let member = networks().to_member();
        let refused = |config: &SagenetConfig, n_genes| {
            SectionNetworks::of_member(config, n_genes, &member).unwrap_err().to_string()
        };
        assert!(refused(&SagenetConfig::default(), 2).contains("two different genes of 2"));
        assert!(refused(&SagenetConfig::default(), 4).contains("importance"));
        let wider = SagenetConfig { n_hidden_gnn: vec![9], ..SagenetConfig::default() };
        assert!(refused(&wider, 3).contains("layers_GNN.0.lin_key.weight"));
    }

    #[test]
    fn a_tag_is_the_section_s_name_unless_two_owners_use_it() {
        let keys: Vec<ConditionKey> =
            ["a/d+networks/s1", "b/d+networks/s1", "b/d+networks/s2"].map(|key| key.parse().unwrap()).into();
        let all: Vec<&ConditionKey> = keys.iter().collect();
        assert_eq!(keys.iter().map(|key| tag(key, &all)).collect::<Vec<_>>(), ["a.d.s1", "b.d.s1", "s2"]);
    }
}
