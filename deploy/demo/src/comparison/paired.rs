//! Two ways to map onto the same references, seed by seed: chance that both share drops out of their difference.

use serde::Serialize;

use super::{FIGURES, Figures, Spread};

/// What one reference gave: the query mapped by us, by upstream, and with columns as they start.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Mapped {
    /// Exact surgery.
    pub ours: Figures,
    /// Upstream's surgery.
    pub upstream: Figures,
    /// Columns before training.
    pub untrained: Figures,
}

/// Differences of one figure, in the direction in which more is better.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Difference {
    /// Mean over references.
    pub mean: f64,
    /// Its standard error; a single reference has none.
    pub error: Option<f64>,
    /// References where the first is better, and where it is worse.
    pub better: usize,
    /// See `better`.
    pub worse: usize,
}

/// What a paired t-test says at a level of 5 %, on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Better beyond chance.
    Better,
    /// Chance may have made it.
    Alike,
    /// Worse beyond chance.
    Worse,
}

impl Difference {
    fn of(first: &[f64], second: &[f64], sign: f64) -> Option<Self> {
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| sign * (a - b)).collect();
        let Spread { mean, std } = Spread::of(&differences)?;
        let n_of = |is_one: &dyn Fn(f64) -> bool| differences.iter().filter(|difference| is_one(**difference)).count();
        Some(Self {
            mean,
            error: std.map(|std| std / (differences.len() as f64).sqrt()),
            better: n_of(&|difference| difference > 0.0),
            worse: n_of(&|difference| difference < 0.0),
        })
    }

    /// Whether chance may have made it; `None` for a single reference.
    pub fn verdict(&self, n: usize) -> Option<Verdict> {
        let bound = self.error? * QUANTILES[(n - 2).min(QUANTILES.len() - 1)];
        Some(if self.mean > bound {
            Verdict::Better
        } else if self.mean < -bound {
            Verdict::Worse
        } else {
            Verdict::Alike
        })
    }
}

/// Quantiles at 97.5 % of Student's t with 1, 2, … degrees of freedom; later ones are smaller by less than 0.1.
const QUANTILES: [f64; 15] =
    [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131];

/// One figure, by all ways.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Line {
    /// The figure.
    pub name: &'static str,
    /// Means over references.
    pub ours: Spread,
    /// See `ours`.
    pub upstream: Spread,
    /// Where it is known.
    pub untrained: Option<Spread>,
    /// Ours against upstream's.
    pub to_upstream: Difference,
    /// Ours against columns as they start.
    pub to_untrained: Option<Difference>,
}

/// All figures.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Paired {
    /// Number of references.
    pub n: usize,
    /// The figures, in order of importance.
    pub lines: Vec<Line>,
}

impl Paired {
    /// Compares what several references gave.
    pub fn new(mapped: &[Mapped]) -> Self {
        let line = |figure: &super::Figure| {
            let of = |figures: &dyn Fn(&Mapped) -> &Figures| -> Option<Vec<f64>> {
                mapped.iter().map(|mapped| figures(mapped).0.get(figure.name).copied()).collect()
            };
            let (ours, upstream) = (of(&|mapped| &mapped.ours)?, of(&|mapped| &mapped.upstream)?);
            let untrained = of(&|mapped| &mapped.untrained);
            Some(Line {
                name: figure.name,
                to_upstream: Difference::of(&ours, &upstream, figure.sign)?,
                to_untrained: untrained.as_ref().and_then(|untrained| Difference::of(&ours, untrained, figure.sign)),
                untrained: untrained.as_deref().and_then(Spread::of),
                ours: Spread::of(&ours)?,
                upstream: Spread::of(&upstream)?,
            })
        };
        Self { n: mapped.len(), lines: FIGURES.iter().filter_map(line).collect() }
    }

    /// The figures as a table in Markdown.
    pub fn table(&self) -> String {
        let mut text = "| figure | untrained | upstream | Archipelago | − upstream, paired | − untrained, paired |\n\
                        |---|---|---|---|---|---|\n"
            .to_owned();
        for line in &self.lines {
            let digits = if line.ours.mean.abs() >= 10.0 { 1 } else { 3 };
            let mean = |spread: &Spread| format!("{:.digits$}", spread.mean);
            let untrained = line.untrained.as_ref().map(mean).unwrap_or_default();
            let difference = |difference: &Difference| {
                let error = difference.error.map_or_else(String::new, |error| format!(" ± {error:.digits$}"));
                let (mean, better, worse) = (difference.mean, difference.better, difference.worse);
                let text = format!("{mean:+.digits$}{error} ({better}:{worse})");
                match difference.verdict(self.n) {
                    Some(Verdict::Better) => format!("{text} better"),
                    Some(Verdict::Worse) => format!("{text} **worse**"),
                    Some(Verdict::Alike) | None => text,
                }
            };
            text += &format!(
                "| {} | {untrained} | {} | {} | {} | {} |\n",
                line.name.replace('_', " "),
                mean(&line.upstream),
                mean(&line.ours),
                difference(&line.to_upstream),
                line.to_untrained.as_ref().map(difference).unwrap_or_default()
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(ours: f64, upstream: f64) -> Mapped {
        let elbo = |value| [("elbo_query".to_owned(), value)].into_iter().collect();
        Mapped { ours: elbo(ours), upstream: elbo(upstream), untrained: Figures::default() }
    }

    #[test]
    fn a_small_difference_of_each_pair_is_seen_where_references_differ_by_more() {
        let pairs = [(-587.0, -585.0), (-1314.0, -1312.1), (-600.0, -598.1), (-400.0, -398.0)];
        let paired = Paired::new(&pairs.map(|(ours, upstream)| mapped(ours, upstream)));
        let [line] = paired.lines.as_slice() else { panic!("one figure was given") };
        assert_eq!((line.to_upstream.better, line.to_upstream.worse), (0, 4));
        assert_eq!(line.to_upstream.verdict(4), Some(Verdict::Worse));
        assert!(
            paired.table().contains("| elbo query |  | -723.3 | -725.2 | -2.0 ± 0.0 (0:4) **worse** |  |"),
            "{}",
            paired.table()
        );
    }

    #[test]
    fn two_pairs_may_be_chance_and_one_says_nothing() {
        let paired = Paired::new(&[mapped(-5.0, -7.0), mapped(-5.0, -8.0)]);
        assert_eq!(paired.lines[0].to_upstream.verdict(2), Some(Verdict::Alike));
        let one = Paired::new(&[mapped(-5.0, -7.0)]);
        assert_eq!((one.lines[0].to_upstream.error, one.lines[0].to_upstream.verdict(1)), (None, None));
    }
}
