//! What may leave, in words.

use archipelago_common::{
    finding::Findings,
    policy::{Approval, EmbeddingRelease, SitePolicy, Unsigned},
};

use super::of;
use crate::config::{DataSection, SiteConfig, read_policy};

/// The policy of a data set, where it can be read.
pub(super) fn look(config: &SiteConfig, data: &DataSection, findings: &mut Findings) -> Option<SitePolicy> {
    let (what, path) = (of("policy", config, data), config.policy_path(data));
    let policy = match read_policy(path) {
        Ok(policy) => policy,
        Err(error) => {
            super::fail(findings, what, &error);
            return None;
        }
    };
    let place = path.map_or("no file, so the default".to_owned(), |path| format!("`{}`", path.display()));
    let found = format!("{place}: {}", in_words(&policy));
    match policy.columns || policy.parts.is_some() {
        true => findings.ok(what, found),
        false => findings.warn(what, found, "with `columns = false` and no `parts` this site takes part in nothing"),
    }
    Some(policy)
}

fn in_words(policy: &SitePolicy) -> String {
    let mut words = Vec::new();
    let may = |may, what: &str| format!("{what} {}", if may { "may leave" } else { "stay" });
    words.push(may(policy.columns, "columns"));
    words.push(may(policy.metrics, "metrics"));
    words.push(may(policy.facts, "facts"));
    words.push(match policy.embeddings {
        EmbeddingRelease::None => "embeddings stay".to_owned(),
        EmbeddingRelease::LabelMeans { min_cells, min_donors } => {
            format!("means of embeddings by label may leave, of {min_cells} cells and {min_donors} donors or more")
        }
        EmbeddingRelease::Full => "EMBEDDINGS OF SINGLE CELLS MAY LEAVE".to_owned(),
    });
    words.push(match policy.parts {
        None => "pooled counts and sums stay".to_owned(),
        Some(parts) => {
            format!(
                "pooled counts and sums may leave, of {} cells and {} donors or more",
                parts.min_cells, parts.min_donors
            )
        }
    });
    words.push(format!("batches of fewer than {} cells or {} donors stay", policy.min_cells, policy.min_donors));
    if policy.noise_std > 0.0 {
        words.push(format!("with noise of {}", policy.noise_std));
    }
    if policy.budget.epsilon.is_finite() {
        let (epsilon, delta) = (policy.budget.epsilon, policy.budget.delta);
        words.push(format!("columns up to an epsilon of {epsilon} (delta {delta}) in all"));
    }
    words.push(format!(
        "at most {} numbers of columns for each cell in a task, {} in all",
        policy.tasks.max_numbers_per_cell, policy.budget.columns
    ));
    words.push(match policy.trusted_operators.is_empty() {
        true => "references and tasks of any operator are run".to_owned(),
        false => format!("references and tasks of {} are run", policy.trusted_operators.join(", ")),
    });
    words.push(match policy.tasks.approve {
        Approval::Trusted => "without asking".to_owned(),
        Approval::Ask => "once somebody here has approved them".to_owned(),
    });
    words.push(match policy.tasks.unsigned {
        Unsigned::Accept => "UNSIGNED ONES TOO".to_owned(),
        Unsigned::UntilSigned => "unsigned ones of who has signed nothing yet too".to_owned(),
        Unsigned::Refuse => "signed ones only".to_owned(),
    });
    words.join("; ")
}
