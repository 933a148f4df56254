//! Losses over epochs.

use std::path::PathBuf;

use archipelago_analysis::plot::{LineSeries, Lines, Palette, Panel, Theme};
use clap::Args;

use super::PictureArgs;
use crate::{
    error::Result,
    output::Output,
    results::{self, History},
};

/// The loss of each training over its epochs, a panel per directory.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker plot loss reference mapped --out loss.png")]
pub(super) struct LossArgs {
    /// Directories that `train` or `map` wrote.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    #[command(flatten)]
    picture: PictureArgs,
}

pub(super) fn loss(args: &LossArgs, output: &Output) -> Result<()> {
    args.picture.check()?;
    let mut panels = Vec::with_capacity(args.dirs.len());
    for dir in &args.dirs {
        let title = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy();
        panels.push(panel(&title, &results::read_history(dir)?, &args.picture.theme())?);
    }
    args.picture.write(&panels, output)
}

/// The curves of one directory: of each thing that was trained, on the cells trained on and on those left out.
pub(crate) fn panel(
    title: &str,
    history: &History,
    theme: &Theme,
) -> std::result::Result<Panel, archipelago_analysis::AnalysisError> {
    let is_one = history.len() == 1;
    let mut series = Vec::new();
    for (name, reports) in history {
        let points = reports.iter().map(|report| (f64::from(report.epoch), report.loss)).collect();
        let of = |kind: &str| if is_one { kind.to_owned() } else { format!("{name}, {kind}") };
        series.push(LineSeries { name: if is_one { of("training") } else { name.clone() }, points });
        let validated = reports.iter().filter_map(|r| Some((f64::from(r.epoch), r.validation_loss?)));
        let points: Vec<(f64, f64)> = validated.collect();
        if !points.is_empty() {
            series.push(LineSeries { name: of("validation"), points });
        }
    }
    let palette = Palette::new(series.iter().map(|series| &series.name));
    let lines = Lines { title, x_label: "epoch", y_label: "loss per cell (nats)", series: &series, palette: &palette };
    lines.panel(theme)
}
