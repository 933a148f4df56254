//! Parts of the page that are words and tables.

use archipelago_analysis::{
    metrics::Aspect,
    page::{bytes, escape, facts, note, table, thousands},
};
use archipelago_common::{ConditionKey, Figure, Name, Section, layout::Axis};

use super::{Findings, Subject};
use crate::{audit::Kind, commands::metrics::Judged, mapping::OBSM_KEY};

/// Model, versions, cells and genes.
pub(super) fn mapping(findings: &Findings) -> String {
    let text = |name: &str| findings.summary[name].as_str().unwrap_or("not known").to_owned();
    let count = |name: &str| findings.summary[name].as_u64().unwrap_or(0);
    let (found, panel) = (count("n_genes_found"), count("n_genes_panel").max(1));
    let short = |id: String| id.chars().take(12).collect::<String>();
    let mut html = facts(&[
        ("model", findings.card.model.clone()),
        ("reference", short(text("parent"))),
        ("grown reference", short(findings.dir.version().id().to_string())),
        ("query cells", thousands(findings.query.batches.len() as u64)),
        ("genes of the panel found", coverage(found, panel)),
        ("cells without a count", thousands(count("n_empty_cells"))),
        ("prepared by a recipe", if findings.card.recipe.is_some() { "yes" } else { "no" }.to_owned()),
        ("seconds of training", format!("{:.1}", findings.summary["seconds"].as_f64().unwrap_or(0.0))),
    ]);
    if (found as f64) < 0.8 * panel as f64 {
        html += "<p class=\"claim fails\"><b>Few of the reference's genes were found</b><span>Genes that are missing count as \
                 zero. Below 80 % the map may not be trusted; compare the naming of genes.</span></p>\n";
    }
    let (mut rows, listed) = (Vec::new(), &findings.card.layout.figures);
    if let Some(conditions) = findings.summary["conditions"].as_object() {
        for (key, metrics) in conditions {
            let number = |name: &str| metrics[name].as_f64().map_or("—".to_owned(), |value| format!("{value:.2}"));
            let whole = |name: &str| metrics[name].as_u64().map_or("—".to_owned(), thousands);
            let figures = listed.iter().map(|figure| number(&figure.name));
            rows.push([key.clone(), whole("n_cells"), whole("epochs")].into_iter().chain(figures).collect());
        }
    }
    let titles = listed.iter().map(|Figure { title, unit, .. }| format!("{title} ({unit})"));
    let head: Vec<String> = ["condition", "cells", "epochs"].map(str::to_owned).into_iter().chain(titles).collect();
    html += &table(
        "New conditions: cells, epochs, and how well the model fits them",
        &head.iter().map(String::as_str).collect::<Vec<_>>(),
        &rows,
    );
    html + &condition_keys(findings)
}

/// For a model with several condition keys: what the query's cells are called on each, and which of it is new.
fn condition_keys(findings: &Findings) -> String {
    let further = findings.card.layout.axes.iter().filter_map(|axis| match &axis.section {
        Section::Axis(name) => Some((name, axis)),
        Section::Condition | Section::Part(_) => None,
    });
    let row = |(name, axis): (&Name, &Axis)| {
        let of_axis = || findings.dir.version().columns.keys().filter(|key| *key.section() == axis.section);
        let new: Vec<String> =
            of_axis().filter(|key| is_new(findings, key)).map(|key| key.batch().to_owned()).collect();
        let known = of_axis().count() - new.len();
        let whose = if axis.shared.is_empty() { "each site's own" } else { "the same at every site" };
        let new = if new.is_empty() { "none".to_owned() } else { listed(&new, "names") };
        vec![name.to_string(), new, thousands(known as u64), whose.to_owned()]
    };
    let rows: Vec<Vec<String>> = further.map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    table("Condition keys: what is new on each", &["condition key", "new names", "known names", "names are"], &rows)
}

fn coverage(found: u64, panel: u64) -> String {
    match found == panel {
        true => format!("all {}", thousands(panel)),
        false => format!("{} of {}", thousands(found), thousands(panel)),
    }
}

/// The figures of both spaces.
pub(super) fn figures(judged: &Judged) -> String {
    let number = |value: &Option<f64>| value.map_or("—".to_owned(), |value| format!("{value:.3}"));
    let name = |name: &str| if name == OBSM_KEY { "latent space" } else { "before integration" };
    let names: Vec<&str> = judged.embeddings().iter().map(|(space, _)| name(space)).collect();
    let head: Vec<&str> = [&["figure"][..], &names].concat();
    let part = |aspect| {
        let rows = judged.rows().filter(|(_, of, _, _)| *of == aspect);
        rows.map(|(name, _, meaning, values)| {
            [vec![format!("{name}: {meaning}")], values.iter().map(number).collect()].concat()
        })
        .collect::<Vec<_>>()
    };
    let scores: Vec<Vec<String>> = judged
        .score_rows()
        .into_iter()
        .map(|(name, values)| [vec![name.to_owned()], values.iter().map(number).collect()].concat())
        .collect();
    table("What is kept of the labels; 0 to 1, higher is better", &head, &part(Aspect::Labels))
        + &table("How well batches mix", &head, &part(Aspect::Batches))
        + &table("Means", &head, &scores)
        + &note(
            "Labelled cells of reference and query together, in the latent space and before integration: 50 principal \
             components of log-normalised expression. A dash is a figure that is not defined for these cells.",
        )
}

/// What left the site, by its own log; without a log, what would have.
pub(super) fn releases(findings: &Findings, subject: &Subject) -> String {
    let kept = bytes(findings.kept_bytes);
    let Some(trail) = &findings.trail else {
        let columns: u64 = findings
            .dir
            .version()
            .columns
            .iter()
            .filter(|(key, _)| is_new(findings, key))
            .map(|(_, blob)| blob.size)
            .sum();
        return facts(&[
            ("left the site", "nothing".to_owned()),
            ("stayed (file of mapped cells)", kept),
            ("columns that a consortium would get", bytes(columns)),
        ]) + &note(
            "The cells were mapped on this machine and nothing was sent. In a consortium only the columns leave, and what the site's policy allows.",
        );
    };
    let by_kind = trail.bytes_by_kind();
    let rows: Vec<Vec<String>> =
        Kind::ALL.iter().map(|kind| vec![kind.name().to_owned(), bytes(by_kind[kind.name()])]).collect();
    let path = subject.audit.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    table("What left this site, by its own log", &["kind", "bytes"], &rows)
        + &format!(
            "<p class=\"note\">The chain of {} entries in <code>{}</code> is intact; its head is <code>{}</code>. Stayed: {kept} of \
             mapped cells.</p>\n",
            trail.entries.len(),
            escape(&path),
            trail.head()
        )
}

/// Whether the mapping brought a key: a condition of its cells, or a name of theirs on a further axis.
fn is_new(findings: &Findings, key: &ConditionKey) -> bool {
    let conditions = findings.summary["conditions"].as_object().into_iter().flat_map(|conditions| conditions.keys());
    let mut conditions = conditions.filter_map(|condition| condition.parse::<ConditionKey>().ok());
    conditions.any(|condition| match key.section() {
        Section::Condition => condition == *key,
        Section::Axis(_) => condition.owner() == key.owner() && condition.dataset() == key.dataset(),
        Section::Part(_) => false,
    })
}

/// `a`, `a and b`, `a, b and 3 others`.
pub(super) fn list(batches: &[String]) -> String {
    if batches.is_empty() { "no batch".to_owned() } else { listed(batches, "batches") }
}

fn listed(names: &[String], are: &str) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] if names.len() <= 4 => format!("{} and {last}", all.join(", ")),
        [first, second, ..] => format!("{first}, {second} and {} other {are}", names.len() - 2),
    }
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn few_names_are_listed_and_many_counted() {
        let names = |n: usize| (1..=n).map(|i| format!("b{i}")).collect::<Vec<_>>();
        assert_eq!(list(&names(1)), "b1");
        assert_eq!(list(&names(3)), "b1, b2 and b3");
        assert_eq!(list(&names(9)), "b1, b2 and 7 other batches");
    }
}
