//! Takes a module apart: its tensors into parts, its description into layers and maps.

use super::{
    batch_norm::{BatchNorm, NormParts, Offsets, Statistics},
    embedding::{Embeddings, Map},
    masked::{GENES_OF_PIECE, Masked, Piece},
    network::{LabelNetwork, Layer, Matrix, PosteriorNetwork},
    part::{Layout, Part, values_of},
    spec::{
        BatchNormSpec, ColumnsSpec, Embedded, LabelSpec, LayerSpec, LogDispersionSpec, MaskedSpec, OffsetsSpec,
        PosteriorSpec, Unsupported,
    },
};
use crate::{
    kernels::{Buffer, Level, buffer::PANEL, label, masked::Listed, padded},
    nn::Weights,
};

/// Whose columns layers may have.
#[derive(Clone, Copy)]
pub(super) enum Categories {
    None,
    Conditions,
    Labels,
}

/// Takes a module apart.
pub(super) struct Builder<'a> {
    weights: &'a Weights,
    trains: &'a dyn Fn(&str) -> bool,
    statistics: Statistics,
    pub(super) parts: Vec<Part>,
    pub(super) embeddings: Option<Embeddings>,
    /// Whose network is being built.
    pub(super) modality: usize,
}

impl<'a> Builder<'a> {
    pub(super) fn new(weights: &'a Weights, trains: &'a dyn Fn(&str) -> bool, statistics: Statistics) -> Self {
        Self { weights, trains, statistics, parts: Vec::new(), embeddings: None, modality: 0 }
    }

    fn tensor(&self, name: &str) -> Result<Vec<f32>, Unsupported> {
        let tensor = self.weights.get(name).ok_or(Unsupported("the module lacks a tensor that it names"))?;
        Ok(values_of(tensor))
    }

    fn part(&mut self, name: &str, layout: Layout, values: &[f32]) -> usize {
        self.push(Part::new(name, layout, values, (self.trains)(name)))
    }

    fn push(&mut self, part: Part) -> usize {
        self.parts.push(Part { modality: self.modality, ..part });
        self.parts.len() - 1
    }

    pub(super) fn matrix(&mut self, name: &str, n_in: usize, n_out: usize) -> Result<Matrix, Unsupported> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let values = if n_out > 0 { self.tensor(&weight)? } else { Vec::new() };
        let (first, n_columns) = (self.parts.len(), values.len() / n_out.max(1));
        for p in 0..padded(n_out) / PANEL {
            self.part(&weight, Layout::Panel { p, n_in, n_out, n_columns }, &values);
        }
        let panels = first..self.parts.len();
        let layout = Layout::Rows { n_rows: 1, n: n_out };
        let bias = match self.weights.get(&bias) {
            Some(tensor) => self.part(&bias, layout, &values_of(tensor)),
            None => self.push(Part::new(&bias, layout, &vec![0.0; n_out], false)),
        };
        Ok(Matrix { n_in, n_out, panels, bias })
    }

    /// A map that is held to sets, without any where there is no gene.
    pub(super) fn masked(&mut self, spec: &MaskedSpec, n_in: usize, n_out: usize) -> Result<Masked, Unsupported> {
        let values = if n_out > 0 { self.tensor(&spec.weight)? } else { Vec::new() };
        let all: Vec<u32> = (0..n_in as u32).collect();
        let mut pieces = Vec::new();
        for first in (0..n_out).step_by(GENES_OF_PIECE) {
            let genes = first..n_out.min(first + GENES_OF_PIECE);
            let mut listed = Listed { starts: vec![0], inputs: Vec::new() };
            let (mut places, mut is_member) = (Vec::new(), Vec::new());
            for gene in genes.clone() {
                let members = &spec.of_genes[gene];
                let own = if spec.is_soft { &all } else { members };
                places.extend(own.iter().map(|&input| (gene * n_in) as u32 + input));
                is_member.extend(own.iter().map(|input| !spec.is_soft || members.binary_search(input).is_ok()));
                listed.inputs.extend_from_slice(own);
                listed.starts.push(listed.inputs.len() as u32);
            }
            let part = self.part(&spec.weight, Layout::Listed(places.into()), &values);
            pieces.push(Piece { part, genes, listed, is_member });
        }
        let columns = spec.columns.as_ref().filter(|_| n_out > 0).map(|name| {
            let values = self.tensor(name)?;
            Ok(self.part(name, Layout::Rows { n_rows: values.len() / n_out, n: n_out }, &values))
        });
        Ok(Masked { name: spec.weight.clone(), n_in, n_out, pieces, columns: columns.transpose()? })
    }

    pub(super) fn layers(&mut self, specs: &[LayerSpec], categories: Categories) -> Result<Vec<Layer>, Unsupported> {
        specs.iter().map(|spec| self.layer(spec, categories)).collect()
    }

    pub(super) fn labels(
        &mut self,
        level: Level,
        spec: &LabelSpec,
        n_latent: usize,
    ) -> Result<LabelNetwork, Unsupported> {
        let (first, n_labels) = (self.parts.len(), spec.labels.width());
        let n_hidden = spec.classifier.last().map_or(n_latent, |layer| layer.n_out);
        let classifier = self.layers(&spec.classifier, Categories::None)?;
        let head = self.matrix(&spec.head, n_hidden, n_labels)?;
        let encoder = self.posterior(&spec.encoder, n_latent)?;
        let decoder = self.posterior(&spec.decoder, n_latent)?;
        let mut log_prior = Buffer::zeros(padded(n_labels));
        log_prior[..n_labels].copy_from_slice(&self.tensor(&spec.prior)?);
        label::ln_of_prior(level, &mut log_prior);
        Ok(LabelNetwork {
            slot: spec.labels,
            n_labels,
            classifier,
            head,
            logits: spec.logits,
            classification_ratio: spec.classification_ratio as f32,
            encoder,
            decoder,
            log_prior,
            mask: mask(n_labels),
            parts: first..self.parts.len(),
        })
    }

    fn posterior(&mut self, spec: &PosteriorSpec, n_latent: usize) -> Result<PosteriorNetwork, Unsupported> {
        let n_hidden = spec.layers.last().map_or(n_latent, |layer| layer.n_out);
        let layers = self.layers(&spec.layers, Categories::Labels)?;
        let (mean, var) = (self.matrix(&spec.mean, n_hidden, n_latent)?, self.matrix(&spec.var, n_hidden, n_latent)?);
        Ok(PosteriorNetwork { layers, mean, var })
    }

    fn layer(&mut self, spec: &LayerSpec, categories: Categories) -> Result<Layer, Unsupported> {
        let matrix = self.matrix(&spec.linear, spec.n_in, spec.n_out)?;
        let columns = match (&spec.columns, categories) {
            (None, _) => None,
            (Some(ColumnsSpec::Conditions(name)), Categories::Conditions)
            | (Some(ColumnsSpec::Covariate(name)), Categories::Labels) => {
                let values = self.tensor(name)?;
                Some(self.part(name, Layout::Rows { n_rows: values.len() / spec.n_out, n: spec.n_out }, &values))
            }
            (Some(ColumnsSpec::Vectors { map, rows: Some(embedded) }), Categories::Conditions) => {
                let weight = format!("{map}.weight");
                Some(self.embedded(&weight, embedded, (0, spec.n_out))?)
            }
            (Some(ColumnsSpec::Beside(embedded)), Categories::Conditions) => {
                let weight = format!("{}.weight", spec.linear);
                Some(self.embedded(&weight, embedded, (spec.n_in, spec.n_out))?)
            }
            (Some(ColumnsSpec::Vectors { .. } | ColumnsSpec::Beside(_)), _) => {
                return Err(Unsupported("vectors stand for conditions"));
            }
            (Some(_), _) => return Err(Unsupported("a layer takes further categorical covariates")),
        };
        let batch_norm = spec.batch_norm.as_ref().map(|norm| self.batch_norm(norm, spec.n_out)).transpose()?;
        let (layer_norm, slope, dropout) = (spec.layer_norm, spec.slope as f32, spec.dropout.clone());
        Ok(Layer { matrix, columns, batch_norm, layer_norm, slope, dropout, mask: mask(spec.n_out) })
    }

    /// The columns that a weight makes of the vectors of conditions, which go in behind `n_in` other inputs.
    fn embedded(
        &mut self,
        weight: &str,
        embedded: &Embedded,
        (n_in, n_out): (usize, usize),
    ) -> Result<usize, Unsupported> {
        let (weights, rows) = (self.tensor(weight)?, self.tensor(&embedded.rows)?);
        let n_columns = weights.len() / n_out.max(1);
        let n_numbers = n_columns - n_in;
        let n_rows = rows.len() / n_numbers.max(1);
        let mut embeddings = match self.embeddings.take() {
            Some(embeddings) => embeddings,
            None => {
                let part = self.part(&embedded.rows, Layout::Rows { n_rows, n: n_numbers }, &rows);
                Embeddings::new(part, n_rows, n_numbers, embedded.max_norm)
            }
        };
        let map = self.part(weight, Layout::Beside { n_rows: n_out, n: n_numbers, n_columns }, &weights);
        let moves = [embeddings.rows, map].iter().any(|&part| self.parts[part].moments.is_some());
        // A name that no tensor has: it is made of two, and goes back to neither.
        let columns = self.push(Part::derived(&format!("{weight} of conditions"), (n_rows, n_out), moves));
        embeddings.maps.push(Map { weight: map, columns, n_out });
        self.embeddings = Some(embeddings);
        Ok(columns)
    }

    fn batch_norm(&mut self, spec: &BatchNormSpec, n_out: usize) -> Result<BatchNorm, Unsupported> {
        let mut part = |name: &str| {
            let name = format!("{}.{name}", spec.name);
            let values = self.tensor(&name)?;
            Ok(self.part(&name, Layout::Rows { n_rows: 1, n: n_out }, &values))
        };
        let (weight, bias) = (part("weight")?, part("bias")?);
        let (mean, var) = (part("running_mean")?, part("running_var")?);
        let moves = [weight, bias].iter().any(|&part| self.parts[part].moments.is_some());
        if moves && self.statistics == Statistics::Running {
            return Err(Unsupported("a batch norm with running statistics trains"));
        }
        let parts = NormParts { weight, bias, mean, var };
        let offsets = spec.offsets.as_ref().map(|offsets| self.offsets(offsets, n_out)).transpose()?.flatten();
        let counter = format!("{}.num_batches_tracked", spec.name);
        let counted = self.weights.get(&counter).map_or(0, |counter| counter.int64_value(&[]));
        Ok(BatchNorm::new(parts, padded(n_out), (spec.eps, spec.momentum), (counter, counted), offsets))
    }

    /// What conditions add to a norm. A reference's own add nothing while it trains.
    fn offsets(&mut self, spec: &OffsetsSpec, n_out: usize) -> Result<Option<Offsets>, Unsupported> {
        let (weights, biases) = (self.tensor(&spec.weight)?, self.tensor(&spec.bias)?);
        if self.statistics == Statistics::OfMinibatch {
            let adds = weights.iter().chain(&biases).any(|&offset| offset != 0.0);
            let moves = (self.trains)(&spec.weight) || (self.trains)(&spec.bias);
            return match adds || moves {
                true => Err(Unsupported("conditions add to a batch norm that takes statistics of minibatches")),
                false => Ok(None),
            };
        }
        let n_rows = weights.len() / n_out.max(1);
        let layout = Layout::Rows { n_rows, n: n_out };
        let (weight, bias) =
            (self.part(&spec.weight, layout.clone(), &weights), self.part(&spec.bias, layout, &biases));
        Ok(Some(Offsets::new(weight, bias, (n_rows, padded(n_out)))))
    }

    pub(super) fn log_r(&mut self, spec: &LogDispersionSpec, n_genes: usize) -> Result<usize, Unsupported> {
        let name = match spec {
            LogDispersionSpec::Gene(name) | LogDispersionSpec::Condition(name) => name,
        };
        let values = self.tensor(name)?;
        Ok(self.part(name, Layout::Rows { n_rows: values.len() / n_genes, n: n_genes }, &values))
    }
}

/// 1 for units, 0 for padding.
pub(super) fn mask(n: usize) -> Buffer {
    let mut mask = Buffer::zeros(padded(n));
    mask[..n].fill(1.0);
    mask
}
