//! What a site lets out. Decided in a file at the site; no task can override it.

use serde::{Deserialize, Serialize};

mod bounds;

pub use bounds::{Approval, Budget, TaskBounds, Unsigned};

/// A site's policy file (TOML). The default lets columns and aggregate metrics out and nothing else.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SitePolicy {
    /// Whether trained columns may leave. Without them the site takes part in no task.
    pub columns: bool,
    /// The most that may leave of the embeddings.
    pub embeddings: EmbeddingRelease,
    /// Whether aggregate metrics (losses, cell numbers) may leave.
    pub metrics: bool,
    /// Conditions with fewer cells than this stay at home.
    pub min_cells: u64,
    /// Conditions with fewer donors than this stay at home; needs `donor_key`.
    pub min_donors: u64,
    /// The obs column that names donors.
    pub donor_key: Option<String>,
    /// Columns are scaled down to this Euclidean norm before they leave.
    pub clip_norm: Option<f64>,
    /// Standard deviation of Gaussian noise added to every number of the columns before they leave.
    pub noise_std: f64,
    /// Operators whose references and tasks this site runs; empty is any operator of the consortium.
    pub trusted_operators: Vec<String>,
    /// Whether facts about the data (such as which features were measured) may leave with the columns. Without them the
    /// site takes part in no task of a model that has some.
    // Said only where it differs: a policy from before there were facts keeps its digest in the audit log.
    #[serde(skip_serializing_if = "is_true")]
    pub facts: bool,
    /// What may leave of contributions that are no columns; nothing unless it is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartRelease>,
    /// What a reference's card may have read of the cells beside what the site's configuration names: columns of obs by their names,
    /// or places such as `obsm/protein_expression`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub may_read: Vec<String>,
    /// Whether names of labels may leave that the reference does not have. Without them such cells count as cells without a label.
    #[serde(skip_serializing_if = "is_false")]
    pub new_labels: bool,
    /// What a task may be.
    #[serde(skip_serializing_if = "is_usual")]
    pub tasks: TaskBounds,
    /// How much of one set of cells may leave over all tasks.
    #[serde(skip_serializing_if = "is_usual")]
    pub budget: Budget,
}

/// Which parts leave a site. They are neither clipped nor noised: a sum with noise is another sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PartRelease {
    /// Members made of fewer cells stay at home.
    pub min_cells: u64,
    /// Members made of fewer donors' cells stay at home; needs `donor_key`.
    pub min_donors: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for SitePolicy {
    fn default() -> Self {
        Self {
            columns: true,
            embeddings: EmbeddingRelease::None,
            metrics: true,
            min_cells: 20,
            min_donors: 0,
            donor_key: None,
            clip_norm: None,
            noise_std: 0.0,
            trusted_operators: Vec::new(),
            facts: true,
            parts: None,
            may_read: Vec::new(),
            new_labels: false,
            tasks: TaskBounds::default(),
            budget: Budget::default(),
        }
    }
}

/// How much of the embeddings leaves a site. Embeddings are personal data: with the shared decoder they approximate
/// expression profiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EmbeddingRelease {
    /// Nothing.
    #[default]
    None,
    /// The mean embedding of each label that has enough cells and donors.
    LabelMeans {
        /// Labels with fewer cells are left out.
        min_cells: u64,
        /// Labels from fewer donors are left out.
        min_donors: u64,
    },
    /// One row per cell, without cell names.
    Full,
}

impl EmbeddingRelease {
    /// The lesser of what is asked and what is allowed; bounds on label means take the stricter value.
    pub fn at_most(self, allowed: Self) -> Self {
        match (self, allowed) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::Full, Self::Full) => Self::Full,
            (Self::LabelMeans { min_cells: a, min_donors: x }, Self::LabelMeans { min_cells: b, min_donors: y }) => {
                Self::LabelMeans { min_cells: a.max(b), min_donors: x.max(y) }
            }
            (means @ Self::LabelMeans { .. }, Self::Full) | (Self::Full, means @ Self::LabelMeans { .. }) => means,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEANS: EmbeddingRelease = EmbeddingRelease::LabelMeans { min_cells: 10, min_donors: 2 };

    #[test]
    fn a_policy_that_says_nothing_new_is_the_same_text_as_before() {
        let text = serde_json::to_string(&SitePolicy::default()).unwrap();
        assert!(text.ends_with(r#""trusted_operators":[]}"#), "{text}");
        let policy = SitePolicy { facts: false, parts: Some(PartRelease::default()), ..SitePolicy::default() };
        let text = serde_json::to_string(&policy).unwrap();
        assert!(text.ends_with(r#""facts":false,"parts":{"min_cells":0,"min_donors":0}}"#), "{text}");
        assert_eq!(serde_json::from_str::<SitePolicy>(&text).unwrap(), policy);
    }

    #[test]
    fn a_task_never_gets_more_than_the_policy_allows() {
        use EmbeddingRelease::{Full, None};
        assert_eq!(Full.at_most(None), None);
        assert_eq!(Full.at_most(MEANS), MEANS);
        assert_eq!(MEANS.at_most(Full), MEANS);
        assert_eq!(None.at_most(Full), None);
        let stricter = EmbeddingRelease::LabelMeans { min_cells: 50, min_donors: 1 };
        assert_eq!(MEANS.at_most(stricter), EmbeddingRelease::LabelMeans { min_cells: 50, min_donors: 2 });
    }
}
