//! A network that says in which part of a section a cell lies, from its expression over a graph of genes.

use std::collections::BTreeMap;

use archipelago_common::StateDict;
use tch::Tensor;

use super::{
    SagenetConfig,
    convolution::{self, Convolution, Map},
    graph::GeneGraph,
    parameters::{Parameters, Tensors},
};
use crate::{
    error::Result,
    nn::{Mode, Pass},
};

/// A network of one partition of one section.
#[derive(Debug)]
pub struct Network {
    config: SagenetConfig,
    graph: GeneGraph,
    convolutions: Vec<Box<dyn Convolution>>,
    connected: Vec<Map>,
    last: Map,
    n_classes: usize,
    tensors: Tensors,
}

impl Network {
    /// A network that has learnt nothing yet.
    ///
    /// # Errors  none with fresh tensors
    pub fn fresh(config: &SagenetConfig, graph: GeneGraph, n_classes: usize, seed: [u8; 32]) -> Result<Self> {
        Self::new(config, graph, n_classes, Parameters::fresh(seed))
    }

    /// A network with these tensors, by upstream's names.
    ///
    /// # Errors  [`Error::Common`](crate::Error::Common) for a tensor that is missing, [`Error::TensorShape`](crate::Error::TensorShape)
    pub fn stored(config: &SagenetConfig, graph: GeneGraph, tensors: &StateDict) -> Result<Self> {
        let n_classes = n_classes(tensors)?;
        Self::new(config, graph, n_classes, Parameters::stored(tensors))
    }

    fn new(config: &SagenetConfig, graph: GeneGraph, n_classes: usize, mut p: Parameters<'_>) -> Result<Self> {
        let (mut convolutions, mut width) = (Vec::new(), 1);
        for (layer, &n) in config.graph_layers().iter().enumerate() {
            let name = format!("layers_GNN.{layer}");
            convolutions.extend(convolution::new(config.classifier, &mut p, &name, (width, n), config.k)?);
            width = n;
        }
        let (mut connected, mut n_in) = (Vec::new(), graph.n_genes() * width);
        for (layer, &n) in config.n_hidden_fc.iter().enumerate() {
            connected.push(Map::new(&mut p, &format!("layers_FC.{layer}"), (n_in, n))?);
            n_in = n;
        }
        let last = Map::new(&mut p, LAST, (n_in, n_classes))?;
        Ok(Self { config: config.clone(), graph, convolutions, connected, last, n_classes, tensors: p.finish() })
    }

    /// The graph of its genes.
    pub fn graph(&self) -> &GeneGraph {
        &self.graph
    }

    /// Number of parts that it tells apart.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Logits of each part, `[n, n_classes]`, for expression `[n, n_genes]`.
    pub fn logits(&self, x: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        self.logits_on(&self.graph, x, pass)
    }

    /// The same over another graph of the genes.
    pub(super) fn logits_on(&self, graph: &GeneGraph, x: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let mut h = x.unsqueeze(2);
        for (layer, convolution) in self.convolutions.iter().enumerate() {
            let rectified = convolution.forward(&h, graph, pass.mode).relu();
            h = dropped(&rectified, &format!("layers_GNN.{layer}"), self.config.dropout_gnn, pass);
        }
        // Genes one after the other, each with all its units.
        let mut h = h.reshape([x.size()[0], -1]);
        for (layer, map) in self.connected.iter().enumerate() {
            h = dropped(&map.forward(&h).relu(), &format!("layers_FC.{layer}"), self.config.dropout_fc, pass);
        }
        self.last.forward(&h)
    }

    /// What the first graph layer makes of each gene, before its rectifier: `[n, n_genes, width]`; none without such a layer.
    pub fn convolved(&self, x: &Tensor) -> Option<Tensor> {
        let first = self.convolutions.first()?;
        Some(first.forward(&x.unsqueeze(2), &self.graph, Mode::Evaluation))
    }

    /// The tensors that are trained, by upstream's names.
    pub fn trained(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors.trained
    }

    /// The tensors that move with training and have no gradient.
    pub fn buffers(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors.buffers
    }

    /// All tensors, as values.
    pub fn state(&self) -> StateDict {
        self.tensors.state()
    }

    pub(super) fn config(&self) -> &SagenetConfig {
        &self.config
    }
}

/// Mean cross entropy of logits `[n, n_classes]` and classes `[n]`, a scalar.
pub fn cross_entropy(logits: &Tensor, classes: &Tensor) -> Tensor {
    let logs = logits.log_softmax(1, logits.kind());
    -logs.gather(1, &classes.unsqueeze(1), false).mean(logits.kind())
}

/// Parts that a network with these tensors tells apart.
///
/// # Errors  [`Error::Common`](crate::Error::Common) where the last layer is missing
pub(super) fn n_classes(tensors: &StateDict) -> Result<usize> {
    let bias = tensors.require("the network", &format!("{LAST}.bias"))?;
    Ok(bias.shape().first().copied().unwrap_or_default())
}

fn dropped(x: &Tensor, layer: &str, rate: f64, pass: &mut Pass<'_>) -> Tensor {
    let kept = match pass.mode {
        Mode::Training => pass.noise.keep(layer, &x.size(), rate, x.device()),
        Mode::Evaluation => None,
    };
    kept.map_or_else(|| x.shallow_clone(), |kept| x * kept / (1.0 - rate))
}

/// The last layer.
const LAST: &str = "last_layer_FC";
