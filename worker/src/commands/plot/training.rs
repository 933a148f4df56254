//! Losses over epochs, with the KL term at its full weight: the loss that is minimised rises while its weight does, and says nothing of a fit.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use archipelago_analysis::plot::{LineSeries, Lines, Palette, Panel, Theme};
use archipelago_common::{Figure, progress::EpochReport};
use clap::Args;

use super::PictureArgs;
use crate::{
    error::Result,
    output::Output,
    results::{self, History},
};

/// The negative ELBO of each training over its epochs and the reconstruction in it, a panel per directory.
///
/// The KL term counts with its full weight in every epoch, whatever its weight in the loss was by then.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker plot loss reference mapped --out loss.png")]
pub(super) struct LossArgs {
    /// Directories that `train` or `map` wrote.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// A panel for each term of the loss, where the model tells them apart.
    #[arg(long)]
    by_term: bool,
    #[command(flatten)]
    picture: PictureArgs,
}

pub(super) fn loss(args: &LossArgs, output: &Output) -> Result<()> {
    args.picture.check()?;
    let mut panels = Vec::with_capacity(args.dirs.len());
    for dir in &args.dirs {
        let title = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy();
        let (history, theme) = (results::read_history(dir)?, args.picture.theme());
        panels.push(panel(&title, &history, &theme)?);
        if args.by_term {
            panels.extend(terms(&history, &theme)?);
        }
    }
    args.picture.write(&panels, output)
}

/// The curves of one directory: of each thing that was trained, on the cells trained on and on those left out. What lies between a curve and that
/// of the reconstruction is the KL term. The loss itself where a history has no ELBO.
pub(crate) fn panel(
    title: &str,
    history: &History,
    theme: &Theme,
) -> std::result::Result<Panel, archipelago_analysis::AnalysisError> {
    let bound = |figures: &BTreeMap<String, f64>| figures.get(Figure::ELBO.name.as_ref()).map(|elbo| -elbo);
    if history.values().flatten().any(|report| bound(&report.figures).is_none()) {
        let of_loss = |report: &EpochReport| (Some(report.loss), report.validation_loss);
        return lines(title, "loss per cell (nats)", &curves(history, of_loss), theme);
    }
    let mut series = curves(history, |report| (bound(&report.figures), bound(&report.validation_figures)));
    let reconstruction =
        |report: &EpochReport| (report.figures.get(Figure::RECONSTRUCTION.name.as_ref()).copied(), None);
    series.extend(curves(history, reconstruction).into_iter().map(|of_one| {
        let name =
            if history.len() == 1 { RECONSTRUCTION.to_owned() } else { format!("{}, {RECONSTRUCTION}", of_one.name) };
        LineSeries { name, ..of_one }
    }));
    lines(title, "negative ELBO per cell (nats)", &series, theme)
}

/// What the curve of the reconstruction is called.
const RECONSTRUCTION: &str = "reconstruction";

/// A panel for each figure beside the whole loss and its bound: the reconstruction, and what the model tells apart in it.
pub(crate) fn terms(
    history: &History,
    theme: &Theme,
) -> std::result::Result<Vec<Panel>, archipelago_analysis::AnalysisError> {
    let names: BTreeSet<&String> = history.values().flatten().flat_map(|report| report.figures.keys()).collect();
    let panel = |name: &String| {
        let of =
            |report: &EpochReport| (report.figures.get(name).copied(), report.validation_figures.get(name).copied());
        lines(&name.replace('_', " "), "mean per cell", &curves(history, of), theme)
    };
    names.into_iter().filter(|name| *name != Figure::ELBO.name.as_ref()).map(panel).collect()
}

/// The curves of a number of each epoch, and of the same for the cells left out.
fn curves(history: &History, of: impl Fn(&EpochReport) -> (Option<f64>, Option<f64>)) -> Vec<LineSeries> {
    let is_one = history.len() == 1;
    let mut series = Vec::new();
    for (name, reports) in history {
        let points = |of: &dyn Fn(&EpochReport) -> Option<f64>| -> Vec<(f64, f64)> {
            reports.iter().filter_map(|report| Some((f64::from(report.epoch), of(report)?))).collect()
        };
        let called = |kind: &str| if is_one { kind.to_owned() } else { format!("{name}, {kind}") };
        let training = points(&|report| of(report).0);
        series.push(LineSeries { name: if is_one { called("training") } else { name.clone() }, points: training });
        let validation = points(&|report| of(report).1);
        if !validation.is_empty() {
            series.push(LineSeries { name: called("validation"), points: validation });
        }
    }
    series
}

fn lines(
    title: &str,
    y_label: &str,
    series: &[LineSeries],
    theme: &Theme,
) -> std::result::Result<Panel, archipelago_analysis::AnalysisError> {
    let palette = Palette::new(series.iter().map(|series| &series.name));
    let lines = Lines { title, x_label: "epoch", y_label, series, palette: &palette };
    lines.panel(theme)
}
