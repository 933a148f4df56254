//! Surgery under scvi-tools' rules: all batches together, with everything that its flags release.

use std::{collections::BTreeMap, time::Instant};

use archipelago_common::{
    ConditionKey, StateDict,
    progress::{Continue, EpochReport},
    reference_dir::ReferenceDir,
    task::ConditionMetrics,
};
use archipelago_models::{
    Device, Trained,
    surgery::{Placement, Start, UpstreamSurgery, upstream::Flags, upstream_surgery},
    train::{Aim, TrainPlan},
    zoo,
};
use clap::{Args, ValueEnum};

use super::{Mapped, Mapping};
use crate::{
    checkpoint::TrainingFile,
    commands::defaults,
    error::{Error, Result},
    existing,
    fit::Fit,
    mapping::{self, Surgeon},
    output::Output,
    results,
};

/// What upstream's surgery can be told; exact surgery takes none of it.
#[derive(Args, Debug)]
#[command(next_help_heading = "Upstream's surgery")]
pub(super) struct UpstreamArgs {
    #[arg(long, help = defaults::help("Weight decay; moves what upstream's masks freeze", defaults::weight_decay))]
    weight_decay: Option<f64>,
    /// Train everything, as in a new model [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    unfrozen: Option<bool>,
    /// Switch dropout off, in scvi-tools' models [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    freeze_dropout: Option<bool>,
    /// Keep the gene columns of the encoder's first layer [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    freeze_expression: Option<bool>,
    /// Keep the latent columns of the decoder's first layer [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    freeze_decoder_first_layer: Option<bool>,
    /// Keep the encoder's batch norm [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    freeze_batchnorm_encoder: Option<bool>,
    /// Keep the decoder's batch norm [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    freeze_batchnorm_decoder: Option<bool>,
    /// Keep the classifier [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    freeze_classifier: Option<bool>,
    /// Train in training mode, with dropout and batch statistics: what scvi-tools did before Lightning 2.2. Models of other packages
    /// always do [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    train_mode: Option<bool>,
    /// Switch dropout off, in scArches' models [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    remove_dropout: Option<bool>,
    /// Train the new terms that the query adds to a model of gene sets [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    unfreeze_ext: Option<bool>,
    /// Where new columns stand in a matrix with further covariates [default: own-block]
    #[arg(long, value_enum)]
    placement: Option<PlacementArg>,
}

/// Where new columns stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum PlacementArg {
    /// Behind those of the other batches.
    OwnBlock,
    /// At the very end, as upstream: with further covariates old columns change their meaning.
    End,
}

impl UpstreamArgs {
    /// The flags that were given, with their values.
    pub(super) fn given(&self) -> Vec<(&'static str, String)> {
        let switches = [
            ("--unfrozen", self.unfrozen),
            ("--freeze-dropout", self.freeze_dropout),
            ("--freeze-expression", self.freeze_expression),
            ("--freeze-decoder-first-layer", self.freeze_decoder_first_layer),
            ("--freeze-batchnorm-encoder", self.freeze_batchnorm_encoder),
            ("--freeze-batchnorm-decoder", self.freeze_batchnorm_decoder),
            ("--freeze-classifier", self.freeze_classifier),
            ("--train-mode", self.train_mode),
            ("--remove-dropout", self.remove_dropout),
            ("--unfreeze-ext", self.unfreeze_ext),
        ];
        let switches = switches.into_iter().filter_map(|(name, value)| Some((name, value?.to_string())));
        let decay = self.weight_decay.map(|decay| ("--weight-decay", decay.to_string()));
        let placement = self.placement.map(|placement| ("--placement", format!("{placement:?}")));
        decay.into_iter().chain(switches).chain(placement).collect()
    }

    pub(super) fn weight_decay(&self) -> Option<f64> {
        self.weight_decay
    }

    fn flags(&self) -> Flags {
        let usual = Flags::default();
        Flags {
            unfrozen: self.unfrozen.unwrap_or(usual.unfrozen),
            freeze_dropout: self.freeze_dropout.unwrap_or(usual.freeze_dropout),
            freeze_expression: self.freeze_expression.unwrap_or(usual.freeze_expression),
            freeze_decoder_first_layer: self.freeze_decoder_first_layer.unwrap_or(usual.freeze_decoder_first_layer),
            freeze_batchnorm_encoder: self.freeze_batchnorm_encoder.unwrap_or(usual.freeze_batchnorm_encoder),
            freeze_batchnorm_decoder: self.freeze_batchnorm_decoder.unwrap_or(usual.freeze_batchnorm_decoder),
            freeze_classifier: self.freeze_classifier.unwrap_or(usual.freeze_classifier),
            train_mode: self.train_mode.unwrap_or(usual.train_mode),
            remove_dropout: self.remove_dropout.unwrap_or(usual.remove_dropout),
            unfreeze_ext: self.unfreeze_ext.unwrap_or(usual.unfreeze_ext),
        }
    }

    fn placement(&self) -> Placement {
        match self.placement {
            None | Some(PlacementArg::OwnBlock) => Placement::OwnBlock,
            Some(PlacementArg::End) => Placement::End,
        }
    }
}

pub(super) fn map(mapping: &Mapping<'_>, output: &Output) -> Result<Mapped> {
    let (args, device) = (mapping.args, Device::from(mapping.args.compute.device));
    output.note("note: upstream's surgery moves shared tensors: the result is approximate and stands alone");
    let trained = train(mapping, device, output)?;
    let finished = Instant::now();
    existing::begin(&args.out)?;
    let dir = ReferenceDir::write(&args.out, &trained.reference.base, &trained.reference.columns)?;
    let surgeon = Surgeon {
        base: &trained.reference.base,
        base_digest: dir.version().base.digest,
        extension: &mapping.extension,
        train: &mapping.train,
        compute: args.compute.into(),
        checkpoints: None,
        parts: &trained.reference.parts,
        start: Start::Asked,
    };
    let mut positions = Vec::new();
    let mut conditions = BTreeMap::new();
    for group in &mapping.groups {
        let of_key = |key: ConditionKey| Some((trained.reference.columns.get(&key)?.clone(), key));
        let columns = group.conditions.all_keys().into_iter().filter_map(of_key).map(|(columns, key)| (key, columns));
        positions.push(surgeon.latent(group, columns.collect(), &StateDict::new())?);
        for (code, key) in group.conditions.keys().iter().enumerate() {
            let is_of_key = |cell: &usize| group.conditions.codes()[*cell] as usize == code;
            let cells: Vec<usize> = (0..group.cells.len()).filter(is_of_key).collect();
            let counts = group.counts.select_rows(&cells);
            let (of_key, annotations) = (group.conditions.select_cells(&cells), group.annotations.select(&cells));
            let fit =
                trained.reference.evaluate(&annotations.cells(&counts)?, &of_key, mapping.train.seed, args.compute)?;
            let metrics = ConditionMetrics {
                n_cells: cells.len() as u64,
                epochs: trained.history.len() as u32,
                gene_coverage: mapping.alignment.coverage(),
                figures: Fit::new(&surgeon.base.card, &fit).into_values(),
                training_ms: trained.history.last().map_or(0, |last| last.elapsed_ms),
                deterministic: device.is_deterministic(),
            };
            conditions.insert(key.clone(), metrics);
        }
    }
    mapping.write_cells(&[(mapping::OBSM_KEY, positions)])?;
    Ok(Mapped {
        trained: finished,
        dir,
        history: results::History::from([("query".to_owned(), trained.history)]),
        conditions,
        likeness: BTreeMap::new(),
        engine: Some(trained.engine),
    })
}

fn train(mapping: &Mapping<'_>, device: Device, output: &Output) -> Result<Trained> {
    let (args, reference) = (mapping.args, &mapping.parent.reference);
    let counts = mapping.counts.as_ref().expect("upstream's surgery is prepared with the counts of all cells");
    let cells = mapping.data.annotations().cells(counts)?;
    let ask = UpstreamSurgery {
        cells: &cells,
        conditions: &mapping.conditions,
        extension: &mapping.extension,
        spec: &mapping.train,
        flags: args.upstream.flags(),
        placement: args.upstream.placement(),
        device,
    };
    let model = zoo::model(&reference.base.card.model)?;
    let n_epochs = TrainPlan::new(model, Aim::Reference, &mapping.train, mapping.data.n_cells())?.n_epochs;
    let mut display = output.training(u64::from(n_epochs));
    let mut progress = |report: &EpochReport| {
        display.epoch("query", report);
        Continue::Yes
    };
    let mut checkpoint = checkpoint(mapping);
    let trained = upstream_surgery(reference, &ask, &mut progress, &mut checkpoint);
    display.finish();
    trained.map_err(|error| match error {
        archipelago_models::Error::Checkpoint { .. } => {
            Error::Checkpoint { path: checkpoint.path().to_owned(), source: Box::new(error) }
        }
        other => Error::Models(other),
    })
}

fn checkpoint(mapping: &Mapping<'_>) -> TrainingFile {
    TrainingFile::new(mapping.args.out.join(existing::TRAINING), mapping.args.plan.checkpoint_every)
}
