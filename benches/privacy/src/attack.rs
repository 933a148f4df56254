//! Who was in it? Scores of membership, and how well they tell members from others.
//!
//! A *unit* is what is asked about: a cell, or a person. Every unit is in some of the *shadows* (mappings of a random half of the units)
//! and not in the others. What an attacker sees of a unit in a release is one number for each shadow; a score is made of it with the other
//! shadows alone, and a threshold is chosen on other shadows than those it is tried on.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// A number for each shadow and unit; none where the release tells nothing of the unit.
pub(crate) type Seen = Vec<Vec<Option<f64>>>;

/// Who is in which shadow: shadows by units.
pub(crate) type Members = Vec<Vec<bool>>;

/// How well an attack tells members from others.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    /// Probability that a member has a higher score than another unit.
    pub(crate) auroc: Interval,
    /// Share of members found minus share of others taken for one, at a threshold chosen on other shadows.
    pub(crate) advantage: Interval,
    /// Share of members found at a threshold that takes one in a hundred others for one, chosen on other shadows.
    pub tpr_at_1pct: Interval,
    /// Pairs of shadow and unit that the release tells something of.
    pub(crate) n_scores: usize,
}

/// A figure, and where it lies in 95 of 100 draws of shadows.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Interval {
    /// Over all shadows.
    pub(crate) value: f64,
    /// 2.5 % of the draws are below.
    pub(crate) low: f64,
    /// 2.5 % are above.
    pub(crate) high: f64,
}

/// Log-likelihood ratios: how much better what is seen of a unit fits the shadows that it is in than the others, each as a normal
/// distribution. The shadow in question and the one drawn with it are left out; the variance is between that of the unit and that of all.
pub(crate) fn likelihood_ratios(seen: &Seen, members: &Members) -> Seen {
    let n_units = members[0].len();
    let mut scores = vec![vec![None; n_units]; seen.len()];
    let spread = spread_of_all(seen, members);
    for unit in 0..n_units {
        for shadow in 0..seen.len() {
            let Some(value) = seen[shadow][unit] else { continue };
            let others = (0..seen.len()).filter(|other| other / 2 != shadow / 2);
            let mut sides = [Side::default(), Side::default()];
            for other in others {
                if let Some(value) = seen[other][unit] {
                    sides[usize::from(members[other][unit])].add(value);
                }
            }
            let [out, inside] = sides;
            if out.n < 2.0 || inside.n < 2.0 {
                continue;
            }
            let variance = (out.squares() + inside.squares() + PRIOR * spread) / (out.n + inside.n - 2.0 + PRIOR);
            let distance = |side: Side| (value - side.mean()).powi(2);
            scores[shadow][unit] = Some((distance(out) - distance(inside)) / (2.0 * variance.max(f64::MIN_POSITIVE)));
        }
    }
    scores
}

/// Votes of the shadows whose release is nearest: the share of them that a unit is in, less its share of all.
pub(crate) fn nearest_shadows(releases: &[Vec<f64>], members: &Members, k: usize) -> Seen {
    let n_units = members[0].len();
    let score = |shadow: usize| {
        let mut others: Vec<(f64, usize)> = (0..releases.len())
            .filter(|other| other / 2 != shadow / 2)
            .map(|other| (distance(&releases[shadow], &releases[other]), other))
            .collect();
        others.sort_by(|a, b| a.0.total_cmp(&b.0));
        let share = |among: &[(f64, usize)], unit: usize| {
            among.iter().filter(|(_, other)| members[*other][unit]).count() as f64 / among.len() as f64
        };
        let nearest = &others[..k.min(others.len())];
        (0..n_units).map(|unit| Some(share(nearest, unit) - share(&others, unit))).collect()
    };
    (0..releases.len()).map(score).collect()
}

/// The square of the Euclidean distance.
pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

/// What scores come to. Shadows are drawn in the pairs that they were made in.
pub(crate) fn judge(scores: &Seen, members: &Members, seed: u64) -> Option<Verdict> {
    let pairs: Vec<Vec<Scored>> = (0..scores.len() / 2)
        .map(|pair| {
            let of_shadow = |shadow: usize| {
                let of_unit = move |(unit, score): (usize, &Option<f64>)| {
                    score.map(|score| Scored { score, is_member: members[shadow][unit] })
                };
                scores[shadow].iter().enumerate().filter_map(of_unit)
            };
            [2 * pair, 2 * pair + 1].into_iter().flat_map(of_shadow).collect()
        })
        .collect();
    let all: Vec<usize> = (0..pairs.len()).collect();
    let figures = figures(&pairs, &all)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draws: [Vec<f64>; 3] = Default::default();
    for _ in 0..N_DRAWS {
        let drawn: Vec<usize> = all.iter().map(|_| rng.random_range(0..pairs.len())).collect();
        // A draw without a member, say, has no figures.
        let Some(of_draw) = self::figures(&pairs, &drawn) else { continue };
        draws.iter_mut().zip(of_draw).for_each(|(draws, figure)| draws.push(figure));
    }
    let mut intervals = draws.into_iter().zip(figures).map(|(mut draws, value)| {
        draws.sort_by(f64::total_cmp);
        let at = |share: f64| draws.get((share * (draws.len() - 1) as f64).round() as usize).copied().unwrap_or(value);
        Interval { value, low: at(0.025), high: at(0.975) }
    });
    let mut next = || intervals.next().expect("three figures");
    let (auroc, advantage, tpr_at_1pct) = (next(), next(), next());
    Some(Verdict { auroc, advantage, tpr_at_1pct, n_scores: pairs.iter().map(Vec::len).sum() })
}

/// AUROC, advantage, share of members found at 1 % of false alarms.
fn figures(pairs: &[Vec<Scored>], drawn: &[usize]) -> Option<[f64; 3]> {
    let of = |pairs_drawn: &[usize]| Curve::of(pairs_drawn.iter().flat_map(|&pair| &pairs[pair]).copied().collect());
    let all = of(drawn)?;
    // Odd and even pairs, not halves of the draw: the same pair is never on both sides.
    let (one, two): (Vec<usize>, Vec<usize>) = drawn.iter().partition(|pair| **pair % 2 == 0);
    let (one, two) = (of(&one)?, of(&two)?);
    let mean = |of: &dyn Fn(&Curve, &Curve) -> f64| f64::midpoint(of(&one, &two), of(&two, &one));
    let advantage = |chosen_on: &Curve, tried_on: &Curve| {
        let (found, alarms) = tried_on.at(chosen_on.best_threshold());
        found - alarms
    };
    let at_1pct = |chosen_on: &Curve, tried_on: &Curve| tried_on.at(chosen_on.threshold_at(0.01)).0;
    Some([all.auroc(), mean(&advantage), mean(&at_1pct)])
}

#[derive(Clone, Copy)]
struct Scored {
    score: f64,
    is_member: bool,
}

/// Scores from the highest to the lowest.
struct Curve {
    scored: Vec<Scored>,
    n_members: f64,
    n_others: f64,
}

impl Curve {
    fn of(mut scored: Vec<Scored>) -> Option<Self> {
        scored.sort_by(|a, b| b.score.total_cmp(&a.score));
        let n_members = scored.iter().filter(|scored| scored.is_member).count();
        let n_others = scored.len() - n_members;
        (n_members > 0 && n_others > 0).then_some(Self {
            scored,
            n_members: n_members as f64,
            n_others: n_others as f64,
        })
    }

    /// Ties count half.
    fn auroc(&self) -> f64 {
        let (mut above, mut sum) = (0.0, 0.0);
        for tied in self.scored.chunk_by(|a, b| a.score == b.score) {
            let others = tied.iter().filter(|scored| !scored.is_member).count() as f64;
            let members = tied.len() as f64 - others;
            sum += members * (self.n_others - above - others / 2.0);
            above += others;
        }
        sum / (self.n_members * self.n_others)
    }

    /// Shares of members and of others whose score is at least this.
    fn at(&self, threshold: f64) -> (f64, f64) {
        let taken = self.scored.partition_point(|scored| scored.score >= threshold);
        let members = self.scored[..taken].iter().filter(|scored| scored.is_member).count() as f64;
        (members / self.n_members, (taken as f64 - members) / self.n_others)
    }

    fn best_threshold(&self) -> f64 {
        let gain = |(found, alarms): (f64, f64)| found - alarms;
        self.thresholds()
            .max_by(|a, b| gain(a.1).total_cmp(&gain(b.1)))
            .map_or(f64::INFINITY, |(threshold, _)| threshold)
    }

    /// The lowest threshold with at most this share of false alarms.
    fn threshold_at(&self, most: f64) -> f64 {
        let fitting = self.thresholds().take_while(|(_, (_, alarms))| *alarms <= most);
        fitting.last().map_or(f64::INFINITY, |(threshold, _)| threshold)
    }

    /// Every score, with the shares at it.
    fn thresholds(&self) -> impl Iterator<Item = (f64, (f64, f64))> {
        let (mut members, mut others) = (0.0, 0.0);
        self.scored.chunk_by(|a, b| a.score == b.score).map(move |tied| {
            let n_others = tied.iter().filter(|scored| !scored.is_member).count() as f64;
            others += n_others;
            members += tied.len() as f64 - n_others;
            (tied[0].score, (members / self.n_members, others / self.n_others))
        })
    }
}

/// Values of a unit in the shadows that it is in, or in the others.
#[derive(Clone, Copy, Default)]
struct Side {
    n: f64,
    sum: f64,
    sum_of_squares: f64,
}

impl Side {
    fn add(&mut self, value: f64) {
        (self.n, self.sum, self.sum_of_squares) = (self.n + 1.0, self.sum + value, self.sum_of_squares + value * value);
    }

    fn mean(self) -> f64 {
        self.sum / self.n
    }

    /// Sum of squares around the mean.
    fn squares(self) -> f64 {
        (self.sum_of_squares - self.sum * self.sum / self.n).max(0.0)
    }
}

/// The mean variance of a unit's values among shadows where its membership is the same.
fn spread_of_all(seen: &Seen, members: &Members) -> f64 {
    let (mut squares, mut freedom) = (0.0, 0.0);
    for unit in 0..members[0].len() {
        let mut sides = [Side::default(), Side::default()];
        for (values, members) in seen.iter().zip(members) {
            if let Some(value) = values[unit] {
                sides[usize::from(members[unit])].add(value);
            }
        }
        for side in sides.into_iter().filter(|side| side.n >= 2.0) {
            squares += side.squares();
            freedom += side.n - 1.0;
        }
    }
    if freedom > 0.0 { squares / freedom } else { 1.0 }
}

/// How many values the variance of all counts for.
const PRIOR: f64 = 8.0;
/// Draws of shadows behind an interval.
const N_DRAWS: usize = 300;

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution as _, StandardNormal};

    use super::*;

    /// Pairs of shadows that are complements, and what is seen of members moved by `shift` standard deviations.
    fn shadows(n_pairs: usize, n_units: usize, shift: f64) -> (Seen, Members) {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (mut seen, mut members): (Seen, Members) = (vec![], vec![]);
        for _ in 0..n_pairs {
            let half: Vec<bool> = (0..n_units).map(|_| rng.random()).collect();
            for half in [half.clone(), half.iter().map(|is| !is).collect()] {
                let value = |(unit, is): (usize, &bool)| {
                    let noise: f64 = StandardNormal.sample(&mut rng);
                    Some(10.0 * unit as f64 + noise + if *is { shift } else { 0.0 })
                };
                seen.push(half.iter().enumerate().map(value).collect());
                members.push(half);
            }
        }
        (seen, members)
    }

    #[test]
    fn what_tells_nothing_is_found_to_tell_nothing() {
        let (seen, members) = shadows(30, 50, 0.0);
        let verdict = judge(&likelihood_ratios(&seen, &members), &members, 0).unwrap();
        assert!(
            (verdict.auroc.value - 0.5).abs() < 0.03 && verdict.auroc.low < 0.5 && verdict.auroc.high > 0.5,
            "{verdict:?}"
        );
        assert!(verdict.advantage.value.abs() < 0.05 && verdict.tpr_at_1pct.value < 0.04, "{verdict:?}");
        assert_eq!(verdict.n_scores, 60 * 50);
    }

    #[test]
    fn a_known_shift_is_found_as_well_as_it_can_be() {
        // Two normal distributions 2 apart: AUROC Φ(2/√2), advantage 2Φ(1) − 1, and Φ(2 − 2.326) of members at 1 %.
        let (seen, members) = shadows(40, 60, 2.0);
        let verdict = judge(&likelihood_ratios(&seen, &members), &members, 0).unwrap();
        assert!((verdict.auroc.value - 0.921).abs() < 0.02, "{verdict:?}");
        assert!((verdict.advantage.value - 0.683).abs() < 0.04, "{verdict:?}");
        assert!((verdict.tpr_at_1pct.value - 0.372).abs() < 0.08, "{verdict:?}");
        assert!(verdict.auroc.low < verdict.auroc.value && verdict.auroc.value < verdict.auroc.high);
    }

    #[test]
    fn shadows_that_are_nearest_tell_who_is_in() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (_, members) = shadows(40, 6, 0.0);
        let release = |members: &Vec<bool>| -> Vec<f64> {
            members.iter().map(|is| f64::from(u8::from(*is)) + 0.1 * rng.random::<f64>()).collect()
        };
        let releases: Vec<_> = members.iter().map(release).collect();
        let verdict = judge(&nearest_shadows(&releases, &members, 5), &members, 0).unwrap();
        assert!(verdict.auroc.value > 0.85, "{verdict:?}");
    }

    #[test]
    fn ties_count_half_and_nothing_to_compare_has_no_verdict() {
        let scored = |score, is_member| Scored { score, is_member };
        let curve =
            Curve::of(vec![scored(1.0, true), scored(1.0, false), scored(0.0, false), scored(2.0, true)]).unwrap();
        assert!((curve.auroc() - 0.875).abs() < 1e-12);
        assert_eq!(curve.at(2.0), (0.5, 0.0));
        assert_eq!(curve.threshold_at(0.01), 2.0);
        assert!(Curve::of(vec![scored(1.0, true)]).is_none());
    }
}
