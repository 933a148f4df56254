//! A module's tensors, arranged for the kernels.

use std::ops::Range;

use super::{
    batch_norm::{BatchNorm, Statistics},
    block::Reach,
    builder::{Builder, Categories, mask},
    embedding::Embeddings,
    masked::Masked,
    modalities::Modalities,
    part::Part,
    spec::{DiscrepancySpec, Divergence, EncoderInput, HeadSpec, LayerSpec, Reconstruction, Unsupported, VaeSpec},
};
use crate::{
    data::{
        Slot,
        slot::{Labels, Matrix as Values},
    },
    kernels::{
        Buffer, Level,
        likelihood::{Dispersion, set_dispersion},
        matrix, padded,
    },
    nn::Weights,
};

/// The network, without the numbers that train.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) level: Level,
    /// How far cells go.
    pub(super) reach: Reach,
    pub(super) reconstruction: Reconstruction,
    pub(super) divergence: Divergence,
    pub(super) variance_floor: f32,
    pub(super) input: EncoderInput,
    /// Where the cells' values are; those of genes have no slot.
    pub(super) slot: Option<Slot<Values>>,
    pub(super) n_genes: usize,
    pub(super) n_latent: usize,
    pub(super) encoder: Vec<Layer>,
    pub(super) mean: Matrix,
    pub(super) var: Matrix,
    pub(super) decoder: Vec<Layer>,
    pub(super) head: Head,
    pub(super) dropout: Option<Matrix>,
    /// 1 for dimensions of the latent state, 0 for padding.
    pub(super) latent_mask: Buffer,
    /// Part of the log dispersions.
    pub(super) log_r: Option<usize>,
    /// One per row of the log dispersions: one, or one per condition.
    pub(super) dispersions: Vec<Dispersion>,
    /// What pulls the latent states of conditions together.
    pub(super) discrepancy: Option<DiscrepancySpec>,
    /// The networks of labels, where labels shape the latent state.
    pub(super) labels: Option<LabelNetwork>,
    /// What stands for conditions, where vectors do.
    pub(super) embeddings: Option<Embeddings>,
    /// The other modalities, where there are several.
    pub(super) modalities: Option<Modalities>,
}

/// The networks of labels, see [`LabelSpec`](super::spec::LabelSpec).
#[derive(Debug)]
pub(super) struct LabelNetwork {
    pub(super) slot: Slot<Labels>,
    pub(super) n_labels: usize,
    pub(super) classifier: Vec<Layer>,
    pub(super) head: Matrix,
    pub(super) logits: bool,
    pub(super) classification_ratio: f32,
    pub(super) encoder: PosteriorNetwork,
    pub(super) decoder: PosteriorNetwork,
    pub(super) log_prior: Buffer,
    /// 1 for labels, 0 for padding.
    pub(super) mask: Buffer,
    /// All parts of these networks.
    pub(super) parts: Range<usize>,
}

/// Layers and heads, see [`PosteriorSpec`](super::spec::PosteriorSpec).
#[derive(Debug)]
pub(super) struct PosteriorNetwork {
    pub(super) layers: Vec<Layer>,
    pub(super) mean: Matrix,
    pub(super) var: Matrix,
}

/// A layer of a stack.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) matrix: Matrix,
    /// Part of the columns.
    pub(super) columns: Option<usize>,
    pub(super) batch_norm: Option<BatchNorm>,
    pub(super) layer_norm: bool,
    /// What numbers below 0 are multiplied by.
    pub(super) slope: f32,
    pub(super) dropout: (String, f64),
    /// 1 for units, 0 for padding.
    pub(super) mask: Buffer,
}

/// The map to what cells are compared with.
#[derive(Debug)]
pub(super) enum Head {
    Full(Matrix),
    Masked(Masked),
}

/// A linear map.
#[derive(Debug)]
pub(super) struct Matrix {
    pub(super) n_in: usize,
    pub(super) n_out: usize,
    /// Parts of its panels.
    pub(super) panels: Range<usize>,
    /// Part of its bias: zeros that stay where the module has none.
    pub(super) bias: usize,
}

impl Network {
    /// The network that a module says it is, and its tensors in parts; `trains` says which of them move.
    ///
    /// # Errors  what the kernels cannot compute
    pub(super) fn new(
        spec: &VaeSpec,
        weights: &Weights,
        trains: &dyn Fn(&str) -> bool,
        statistics: Statistics,
        reach: Reach,
    ) -> Result<(Self, Vec<Part>), Unsupported> {
        let mut builder = Builder::new(weights, trains, statistics);
        let mut network = Self::of_modality_built(&mut builder, spec, reach)?;
        if let Some(modalities) = &spec.modalities {
            network.slot = modalities.of_each[0].slot;
            let mut others = Vec::with_capacity(modalities.others.len());
            for (spec, each) in modalities.others.iter().zip(&modalities.of_each[1..]) {
                builder.modality += 1;
                others.push(Self { slot: each.slot, ..Self::of_modality_built(&mut builder, spec, reach)? });
            }
            network.modalities = Some(Modalities::new(modalities, others));
        }
        let (mut parts, embeddings) = (builder.parts, builder.embeddings);
        network.embeddings = embeddings;
        if statistics == Statistics::OfMinibatch && network.has_batch_norm() {
            if network.labels.is_some() {
                return Err(Unsupported("labelled cells have batch statistics of their own"));
            }
            if network.modalities.is_some() {
                return Err(Unsupported("several modalities have batch statistics"));
            }
        }
        network.refresh(&mut parts, Refresh::All);
        Ok((network, parts))
    }

    /// That of one modality, or the only one.
    fn of_modality_built(builder: &mut Builder<'_>, spec: &VaeSpec, reach: Reach) -> Result<Self, Unsupported> {
        // Where nothing is decoded the decoder keeps its layers, and no gene; where no variance is wanted its map keeps no number.
        let decodes = reach == Reach::Likelihood;
        let n_genes = if decodes { spec.n_genes } else { 0 };
        let n_vars = if reach == Reach::Mean { 0 } else { spec.n_latent };
        let hidden = |layers: &[LayerSpec]| layers.last().map(|layer| layer.n_out);
        let n_encoder = hidden(&spec.encoder).ok_or(Unsupported("the encoder has no layers"))?;
        let n_decoder = hidden(&spec.decoder).unwrap_or(spec.n_latent);
        let encoder = builder.layers(&spec.encoder, Categories::Conditions)?;
        let mean = builder.matrix(&spec.mean, n_encoder, spec.n_latent)?;
        let var = builder.matrix(&spec.var, n_encoder, n_vars)?;
        let decoder = builder.layers(&spec.decoder, Categories::Conditions)?;
        let head = match &spec.head {
            HeadSpec::Full(name) => Head::Full(builder.matrix(name, n_decoder, n_genes)?),
            HeadSpec::Masked(masked) => Head::Masked(builder.masked(masked, n_decoder, n_genes)?),
        };
        let dropout = spec.dropout.as_deref().map(|name| builder.matrix(name, n_decoder, n_genes)).transpose()?;
        let log_r =
            spec.log_r.as_ref().filter(|_| decodes).map(|log_r| builder.log_r(log_r, spec.n_genes)).transpose()?;
        let level = Level::best();
        let labels = spec.labels.as_ref().filter(|_| decodes);
        let labels = labels.map(|labels| builder.labels(level, labels, spec.n_latent)).transpose()?;
        let n_dispersions = log_r.map_or(1, |part| builder.parts[part].values.len() / padded(spec.n_genes));
        Ok(Self {
            level,
            reach,
            reconstruction: spec.reconstruction()?,
            divergence: spec.divergence,
            variance_floor: spec.variance_floor as f32,
            input: spec.input,
            slot: None,
            n_genes: spec.n_genes,
            n_latent: spec.n_latent,
            encoder,
            mean,
            var,
            decoder,
            head,
            dropout,
            latent_mask: mask(spec.n_latent),
            log_r,
            dispersions: vec![Dispersion::new(spec.n_genes); n_dispersions],
            discrepancy: spec.discrepancy.filter(|_| decodes),
            labels,
            embeddings: None,
            modalities: None,
        })
    }

    /// Brings up to date what follows from the parts; columns of embedded conditions that have moved, when they are looked up.
    pub(super) fn refresh(&mut self, parts: &mut [Part], which: Refresh) {
        let level = self.level;
        let is_due = |part: usize| which == Refresh::All || parts[part].moments.is_some();
        if let Some(log_r) = self.log_r.filter(|&part| is_due(part)) {
            let rows = parts[log_r].values.chunks_exact(padded(self.n_genes));
            rows.zip(&mut self.dispersions).for_each(|(row, dispersion)| set_dispersion(level, row, dispersion));
        }
        let due = self.batch_norms_mut().filter(|norm| which == Refresh::All || norm.offsets_move(parts));
        due.for_each(|norm| norm.refresh(level, parts));
        let others = self.modalities.iter_mut().flat_map(|modalities| &mut modalities.others);
        others.for_each(|other| other.refresh(parts, which));
        if let Some(embeddings) = self.embeddings.as_mut().filter(|_| which == Refresh::All) {
            embeddings.refresh(level, parts);
        }
    }

    /// All layers of all modalities, those of labels too.
    fn layers_mut(&mut self) -> impl Iterator<Item = &mut Layer> {
        let others = self.modalities.iter_mut().flat_map(|modalities| &mut modalities.others);
        let of_others = others.flat_map(|other| other.encoder.iter_mut().chain(&mut other.decoder));
        let of_labels = self.labels.iter_mut().flat_map(|labels| {
            labels.classifier.iter_mut().chain(&mut labels.encoder.layers).chain(&mut labels.decoder.layers)
        });
        self.encoder.iter_mut().chain(&mut self.decoder).chain(of_labels).chain(of_others)
    }

    /// All batch norms.
    pub(super) fn batch_norms_mut(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        self.layers_mut().filter_map(|layer| layer.batch_norm.as_mut())
    }

    fn has_batch_norm(&mut self) -> bool {
        self.batch_norms_mut().next().is_some()
    }

    /// Brings up to date what follows from the running statistics of batch norms.
    pub(super) fn refresh_norms(&mut self, parts: &[Part]) {
        let level = self.level;
        self.batch_norms_mut().for_each(|norm| norm.refresh(level, parts));
    }

    /// Units, with padding, of the widest layer below a dense product.
    pub(super) fn widest_below(&self) -> usize {
        let below_head = self.decoder.last().map_or(self.n_latent, |layer| layer.matrix.n_out);
        let of_labels = self.labels.iter().flat_map(|labels| {
            let layers = labels.classifier.iter().chain(&labels.encoder.layers).chain(&labels.decoder.layers);
            let heads = [labels.head.n_in, labels.encoder.mean.n_in, labels.decoder.mean.n_in];
            layers.map(|layer| layer.matrix.n_in).chain(heads)
        });
        let above_first = self.encoder.iter().skip(1).chain(&self.decoder).map(|layer| layer.matrix.n_in);
        above_first.chain([self.mean.n_in, below_head]).chain(of_labels).map(padded).max().unwrap_or(0)
    }

    /// The lowest layer of the encoder with something that trains, the heads counted as one more; `None` if there is none.
    pub(super) fn lowest_trained(&self, parts: &[Part]) -> Option<usize> {
        let of = |matrix: &Matrix| matrix.panels.clone().chain([matrix.bias]).any(|part| parts[part].moments.is_some());
        let moves = |part: usize| parts[part].moments.is_some();
        let of_norm = |norm: &BatchNorm| moves(norm.parts.weight) || moves(norm.parts.bias) || norm.offsets_move(parts);
        let of_layer = |layer: &Layer| {
            of(&layer.matrix) || layer.columns.is_some_and(moves) || layer.batch_norm.as_ref().is_some_and(of_norm)
        };
        let heads = (of(&self.mean) || of(&self.var)).then_some(self.encoder.len());
        self.encoder.iter().position(of_layer).or(heads)
    }
}

/// What [`Network::refresh`] looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refresh {
    All,
    /// What trains.
    Trained,
}

impl Matrix {
    /// Units that come out, with padding.
    pub(super) fn width(&self) -> usize {
        padded(self.n_out)
    }

    /// `result = input · matrix + bias` for `n` rows; `columns` is room for the transpose of the input.
    pub(super) fn forward(
        &self,
        level: Level,
        parts: &[Part],
        (input, n): (&[f32], usize),
        result: &mut [f32],
        columns: &mut [f32],
    ) {
        let panels = parts[self.panels.clone()].iter().map(|part| &*part.values);
        let bias = &*parts[self.bias].values;
        matrix::multiply(level, input, (n, self.n_in), panels, bias, (result, self.width()), columns);
    }
}
