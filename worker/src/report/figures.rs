//! Parts of the page that are pictures.

use archipelago_analysis::{
    AnalysisError, Labels,
    metrics::Confusion,
    page::{Stored, note, picture, table, thousands},
    plot::{Colouring, Figure, Heatmap, Palette, Panel, Sankey, Scatter, Theme, Violin},
};
use archipelago_common::progress::EpochReport;
use ndarray::Array2;

use super::{Findings, Subject, Transferred};
use crate::{
    colours::{MISSING, muted},
    commands::plot::{loss_panel, loss_terms},
    error::Result,
    results::History,
};

const AXES: [&str; 2] = ["UMAP 1", "UMAP 2"];
/// What the reference's batches are called beside the query's.
const REFERENCE: &str = "reference";

/// Curves of all trainings of the mapping.
pub(super) fn losses(findings: &Findings) -> Result<String> {
    let draw = |theme: &Theme| {
        // Levels differ more between batches than over the epochs of one: each has its own scale.
        let panel = |(name, reports): (&String, &Vec<EpochReport>)| {
            loss_panel(name, &History::from([(name.clone(), reports.clone())]), theme)
        };
        let panels = findings.history.iter().map(panel).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Figure::grid(None, &panels, 2, theme))
    };
    let epochs = findings.history.values().map(Vec::len).max().unwrap_or(0);
    let ends_at = |report: &EpochReport| report.figures.get("elbo").map_or(report.loss, |elbo| -elbo);
    let last = findings.history.iter().filter_map(|(name, reports)| Some((name, ends_at(reports.last()?))));
    let ends: Vec<String> = last.map(|(name, loss)| format!("{name} ends at {loss:.1}")).collect();
    let alt = format!("Negative ELBO per cell over {epochs} epochs: {}", ends.join(", "));
    let caption = "Negative ELBO of each new batch over its epochs, with the KL term at its full weight, and the reconstruction in it; between them is \
                   the KL term. A curve that still falls at the end asks for more epochs.";
    let whole = picture(draw, Stored::Shapes, &alt, caption)?;
    let usual = archipelago_common::Figure::USUAL;
    if findings.card.layout.figures.iter().all(|figure| usual.contains(figure)) {
        return Ok(whole);
    }
    let by_term = |theme: &Theme| Ok(Figure::grid(None, &loss_terms(&findings.history, theme)?, 2, theme));
    let caption =
        "What the loss is made of, as the model tells it apart: a term that does not fall is one that is not learnt.";
    Ok(whole + &picture(by_term, Stored::Shapes, "Terms of the loss over the epochs", caption)?)
}

/// The query alone, and on the reference.
pub(super) fn pictures(findings: &Findings) -> Result<String> {
    let query = &findings.query;
    let batch_palette = Palette::new(query.batches.names());
    let label_palette = muted(Palette::new(findings.label_names()));
    let mut html = picture(
        |theme| {
            let mut panels =
                vec![scatter("Query by batch", &findings.query_picture, &query.batches, &batch_palette, theme)?];
            if let Some(labels) = &query.labels {
                panels.push(scatter("Query by label", &findings.query_picture, labels, &label_palette, theme)?);
            }
            Ok(Figure::grid(None, &panels, 2, theme))
        },
        Stored::Pixels,
        &format!("UMAP of {} query cells", thousands(query.batches.len() as u64)),
        "UMAP of the query's latent space. Near cells are alike; distances between islands mean little.",
    )?;
    let (Some(joint), Some(reference)) = (&findings.joint_picture, &findings.reference) else {
        return Ok(html
            + &note(
                "Name the reference's cells (`--reference-cells`, a file that `latent` wrote) to see the query on the reference.",
            ));
    };
    let origin = Labels::from_names(&vec![REFERENCE; reference.batches.len()]).followed_by(&query.batches);
    let origin_palette = batch_palette.clone().with_muted(REFERENCE);
    let unnamed = |n: usize| Labels::from_names(&vec![MISSING; n]);
    let labels_of = |cells: &super::Cells| cells.labels.clone().unwrap_or_else(|| unnamed(cells.batches.len()));
    let labels = labels_of(reference).followed_by(&labels_of(query));
    html += &picture(
        |theme| {
            let mut panels = vec![scatter("Query on reference", joint, &origin, &origin_palette, theme)?];
            if reference.labels.is_some() || query.labels.is_some() {
                panels.push(scatter("Label", joint, &labels, &label_palette, theme)?);
            }
            Ok(Figure::grid(None, &panels, 2, theme))
        },
        Stored::Pixels,
        &format!(
            "UMAP of {} reference cells in grey with {} query cells by batch, and the same by label",
            thousands(reference.batches.len() as u64),
            thousands(query.batches.len() as u64)
        ),
        "UMAP of reference (grey) and query together. Query cells apart from all reference cells are of a kind or a state \
         that the reference does not have, or were not integrated.",
    )?;
    Ok(html)
}

/// Labels of the query, how sure they are, and where observed ones went.
pub(super) fn transfer(findings: &Findings, transferred: &Transferred, subject: &Subject) -> Result<String> {
    let palette = muted(Palette::new(findings.label_names()));
    let uncertainty: Vec<f32> = transferred.found.uncertainty.iter().map(|&value| value as f32).collect();
    let (n_cells, most) = (transferred.kept.len(), subject.max_uncertainty);
    let n_unknown = transferred.found.uncertainty.iter().filter(|&&value| value > most).count();
    let mut html = picture(
        |theme| {
            let labels = scatter("Transferred label", &findings.query_picture, &transferred.kept, &palette, theme)?;
            let points = findings.query_picture.view();
            let colouring = Colouring::Values(&uncertainty);
            let uncertain = Scatter { title: "Uncertainty", points, axes: AXES, colouring }.panel(theme)?;
            Ok(Figure::grid(None, &[labels, uncertain], 2, theme))
        },
        Stored::Pixels,
        &format!(
            "UMAP of the query by transferred label and by uncertainty; {n_unknown} of {n_cells} cells are Unknown"
        ),
        &format!(
            "Labels by a distance-weighted vote of {} reference cells. {} of {} cells have an uncertainty above {most} and are \
             called Unknown.",
            subject.n_neighbors,
            thousands(n_unknown as u64),
            thousands(n_cells as u64)
        ),
    )?;
    html += &picture(
        |theme| {
            let (title, y_label) = ("Uncertainty by transferred label", "1 − weight of the label");
            let labels = &transferred.found.labels;
            let violin = Violin { title, y_label, values: &uncertainty, labels, palette: &palette };
            Ok(Figure::grid(None, &[violin.panel(theme)?], 1, theme))
        },
        Stored::Shapes,
        "Violins of the uncertainty by transferred label",
        "How sure the labels are. A label that is uncertain throughout has no close kin in the reference.",
    )?;
    html += &label_table(transferred);
    if let Some(truth) = &findings.query.labels {
        html += &observed(truth, transferred, &palette)?;
    }
    Ok(html)
}

fn label_table(transferred: &Transferred) -> String {
    let members = transferred.found.labels.members();
    let uncertainty = &transferred.found.uncertainty;
    let mut rows: Vec<(usize, Vec<String>)> = Vec::new();
    for (name, cells) in transferred.found.labels.names().iter().zip(&members).filter(|(_, cells)| !cells.is_empty()) {
        let mean = cells.iter().map(|&cell| uncertainty[cell]).sum::<f64>() / cells.len() as f64;
        let n_kept = cells.iter().filter(|&&cell| transferred.kept.name(cell) == name).count();
        let row = vec![name.clone(), thousands(cells.len() as u64), thousands(n_kept as u64), format!("{mean:.3}")];
        rows.push((cells.len(), row));
    }
    rows.sort_by_key(|(n_cells, _)| std::cmp::Reverse(*n_cells));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(_, row)| row).collect();
    table("Transferred labels", &["label", "cells", "of them trusted", "mean uncertainty"], &rows)
}

/// The query's own labels beside the transferred ones.
fn observed(truth: &Labels, transferred: &Transferred, palette: &Palette) -> Result<String> {
    let rows: Vec<usize> = (0..truth.len()).filter(|&row| truth.name(row) != MISSING).collect();
    if rows.is_empty() {
        return Ok(String::new());
    }
    let (truth, found) = (truth.select(&rows), transferred.found.labels.select(&rows));
    let confusion = Confusion::new(&truth, &found)?;
    let figure = |value: Option<f64>| value.map_or("—".to_owned(), |value| format!("{value:.3}"));
    let (accuracy, macro_f1) = (figure(confusion.accuracy()), figure(confusion.macro_f1()));
    let mut html = picture(
        |theme| {
            let heatmap = Heatmap { title: "Observed by transferred", confusion: &confusion }.panel(theme)?;
            let (title, subtitle) = ("Where observed labels went", "observed → transferred");
            let sankey = Sankey { title, subtitle, left: &truth, right: &found, palette }.panel(theme)?;
            Ok(Figure::grid(None, &[heatmap, sankey], 2, theme))
        },
        Stored::Shapes,
        &format!("Matrix and flow from observed to transferred labels; accuracy {accuracy}"),
        &format!(
            "The query's own labels beside the transferred ones: accuracy {accuracy}, mean F1 of labels {macro_f1}."
        ),
    )?;
    let share = |value: f64| format!("{value:.3}");
    let classes: Vec<Vec<String>> = confusion
        .report()
        .into_iter()
        .map(|class| {
            vec![class.label, share(class.precision), share(class.recall), share(class.f1), thousands(class.support)]
        })
        .collect();
    html += &table("Classification report", &["label", "precision", "recall", "F1", "cells"], &classes);
    Ok(html)
}

fn scatter(
    title: &str,
    points: &Array2<f32>,
    labels: &Labels,
    palette: &Palette,
    theme: &Theme,
) -> std::result::Result<Panel, AnalysisError> {
    let colouring = Colouring::Categories { labels, palette };
    Scatter { title, points: points.view(), axes: AXES, colouring }.panel(theme)
}
