//! SageNet: dissociated cells mapped onto sections by graph networks over genes (Heidari, Lohoff, Tyser, Lotfollahi et al. 2022).
//!
//! A section, cells whose places are known, gives a [graph of genes](graph) and several [partitions] of its cells;
//! a [network] for each partition learns to tell a cell's part from its expression. The networks of a section are a
//! [member] of an ensemble. Sections share no weights, so there is no surgery: an ensemble is a reference without tensors,
//! and its members are a part of it, which sites train at home and hand in. [`mapping`] asks all networks about cells without
//! places, [`attribution`] what each gene says.

pub mod attribution;
mod config;
mod convolution;
pub mod ensemble;
pub mod graph;
mod kernel;
pub mod mapping;
pub mod member;
mod module;
pub mod network;
mod parameters;
pub mod schedule;
mod section;
mod training;
pub mod upstream;

pub use config::{Classifier, SagenetConfig};
pub use graph::GeneGraph;
pub use member::SectionNetworks;
pub use network::Network;
pub use section::{OnEpoch, Partition, partitions, train_section};

use archipelago_common::{
    Layout, Name,
    figure::Figure,
    layout::{Growth, Rule},
};

use crate::{
    data::{Field, FieldKind, Need, Registry, Values},
    error::Result,
    model::{Config, Configured, Model, ModelCard, Module},
    nn::Builder,
    options::{self, OptionCard, Options as _},
    train::{AdamOptions, Epochs, TrainDefaults, WarmupDefault},
};

/// The zoo's entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sagenet;

impl Model for Sagenet {
    fn card(&self) -> ModelCard {
        ModelCard {
            name: config::NAME,
            title: "SageNet",
            paper: "Heidari et al., bioRxiv 2022",
            purpose: "maps dissociated cells onto spatial sections, by graph networks over genes that know the parts of each section",
            federation: "exact: every site trains networks on its own sections; an ensemble is the union of all",
            training: TRAINING,
            example: "sections.h5ad --model sagenet --batch-key section --field coordinates=obsm/spatial --out ensemble",
        }
    }

    fn options(&self) -> Vec<OptionCard> {
        SagenetConfig::cards()
    }

    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>> {
        Ok(Box::new(SagenetConfig::parse(options)?))
    }
}

impl Configured for SagenetConfig {
    fn options(&self) -> Config {
        options::to_config(self)
    }

    fn fields(&self) -> Vec<Field> {
        let places =
            Field::new(COORDINATES, FieldKind::Coordinates, Need::Required, "places of the cells of a section");
        vec![Field::rna(Values::LogNormalised), places]
    }

    /// By the members of the ensemble.
    fn moves_embedding(&self) -> bool {
        true
    }

    fn figures(&self) -> &'static [Figure] {
        &[]
    }

    fn layout(&self, of_tensors: Layout) -> Layout {
        let reason = "SageNet has no weights of conditions; its sections contribute networks".to_owned();
        let part: Name = member::PART.parse().expect("the part's name is one");
        Layout { growth: Growth::NoSurgery { reason }, parts: [(part, Rule::Union)].into(), ..of_tensors }
    }

    fn build(&self, registry: &Registry, _n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>> {
        Ok(Box::new(module::SagenetModule::new(self.clone(), registry, builder)?))
    }
}

/// The field of the places of cells.
pub const COORDINATES: &str = "coordinates";

/// No epochs: networks are trained by options of the model, which every site has from the card.
const TRAINING: TrainDefaults = TrainDefaults {
    epochs: Epochs::Fixed(1),
    adam: AdamOptions { weight_decay: 0.0, ..TrainDefaults::SCVI_TOOLS.adam },
    kl_warmup: WarmupDefault::Off,
    ..TrainDefaults::SCVI_TOOLS
};
