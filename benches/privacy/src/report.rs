//! The table and the figures behind it.

use std::{fmt::Write as _, path::Path};

use anyhow::Result;

use crate::{attack::Interval, experiment::Finding};

/// Writes `privacy.json` and `privacy.md`.
pub(crate) fn write(found: &[Finding], out: &Path) -> Result<()> {
    std::fs::write(out.join("privacy.json"), serde_json::to_vec_pretty(found)?)?;
    let table = table(found)?;
    std::fs::write(out.join("privacy.md"), &table)?;
    say(&table);
    Ok(())
}

fn table(found: &[Finding]) -> Result<String> {
    let mut text = "| Who | Cells | What leaves | Attack | AUROC | Advantage | Found at 1 % | ε | Gain |\n".to_owned();
    text += "|---|---|---|---|---|---|---|---|---|\n";
    for Finding { who, cells, release, attack, verdict, epsilon, gain } in found {
        let optional =
            |value: &Option<f64>, digits: usize| value.map_or(String::new(), |value| format!("{value:.digits$}"));
        writeln!(
            text,
            "| {who} | {cells} | {release} | {attack} | {} | {} | {} | {} | {} |",
            interval(verdict.auroc),
            interval(verdict.advantage),
            interval(verdict.tpr_at_1pct),
            optional(epsilon, 1),
            optional(gain, 1),
        )?;
    }
    Ok(text)
}

fn interval(Interval { value, low, high }: Interval) -> String {
    format!("{value:.2} ({low:.2}–{high:.2})")
}

/// Says how far it is.
#[expect(clippy::print_stderr, reason = "a program for a terminal")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
