//! What `doctor` looked at and found: for people a line each, for programs JSON.

use std::{error::Error, fmt};

use serde::Serialize;

/// Whether something is as it should be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is.
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What, such as `certificate`.
    pub what: String,
    /// Whether it is as it should be.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Things that do not work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{n_failed} of {n_looked_at} things that are needed here do not work")]
pub struct Unwell {
    /// How many.
    pub n_failed: usize,
    /// Of how many.
    pub n_looked_at: usize,
}

/// Everything that was looked at, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Findings {
    /// One by one.
    pub findings: Vec<Finding>,
}

impl Findings {
    /// It is as it should be.
    pub fn ok(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.push(what, Verdict::Ok, found, None::<String>);
    }

    /// It works, and somebody should look at it.
    pub fn warn(&mut self, what: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) {
        self.push(what, Verdict::Warning, found, Some(advice));
    }

    /// It does not work.
    pub fn fail(&mut self, what: impl Into<String>, found: impl Into<String>, advice: Option<impl Into<String>>) {
        self.push(what, Verdict::Failed, found, advice);
    }

    /// The findings of somebody else, after these.
    pub fn extend(&mut self, others: Self) {
        self.findings.extend(others.findings);
    }

    /// How it ends: well, or with how much that does not work.
    ///
    /// # Errors  [`Unwell`]
    pub fn outcome(&self) -> Result<(), Unwell> {
        let n_failed = self.findings.iter().filter(|finding| finding.verdict == Verdict::Failed).count();
        if n_failed > 0 { Err(Unwell { n_failed, n_looked_at: self.findings.len() }) } else { Ok(()) }
    }

    fn push(
        &mut self,
        what: impl Into<String>,
        verdict: Verdict,
        found: impl Into<String>,
        advice: Option<impl Into<String>>,
    ) {
        let (what, found, advice) = (what.into(), found.into(), advice.map(Into::into));
        self.findings.push(Finding { what, verdict, found, advice });
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
        for Finding { what, verdict, found, advice } in &self.findings {
            writeln!(f, "{verdict:<7}  {what:<width$}  {found}")?;
            if let Some(advice) = advice {
                writeln!(f, "{:<7}  {:<width$}  → {advice}", "", "")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

/// An error with its causes, in one line.
pub fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_counts_and_each_has_its_line() {
        let mut findings = Findings::default();
        assert_eq!(findings.outcome(), Ok(()));
        findings.ok("disk", "12 GiB free");
        findings.warn("key", "anybody may read it", "chmod 600 key.pem");
        assert_eq!(findings.outcome(), Ok(()));
        findings.fail("data", "no such file", None::<String>);
        assert_eq!(findings.outcome(), Err(Unwell { n_failed: 1, n_looked_at: 3 }));
        let text = findings.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["ok       disk  12 GiB free", "warning  key   anybody may read it"]);
        assert!(lines[2].trim_start().starts_with("→ chmod 600"), "{text}");
        assert_eq!(lines[3], "failed   data  no such file");
    }
}
