//! What expiMap is asked: what its terms are, where cells stand on them, and which differ between groups.

use std::collections::BTreeMap;

use ndarray::{Array2, Axis};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    ExpimapModule,
    enrichment::{Enriched, Sides, enriched},
    terms::{Direction, Origin},
};
use crate::{
    error::{Error, Result},
    model::Embedder as _,
    results::{Answer, Argument, Asked, Given, QuestionCard},
};

/// All of them.
pub(super) const ALL: [QuestionCard; 6] = [TERMS, TERM_GENES, TERM_SETS, TERM_OVERLAP, TERM_SCORES, ENRICH];

/// The terms of a reference.
const TERMS: QuestionCard = QuestionCard {
    name: "terms",
    help: "The terms: which are active, how many genes they have, and which way is up.\n\n\
           A term is active if the group lasso has left it a weight; terms that were added are always active. Its direction is \
           1 where more of it means more of its genes, -1 where it means less: by the sign of the sum of its weights, or by \
           whether more of them are above 0, of which the confidence says how many.",
    examples: &["terms reference --out terms.csv"],
    is_of_cells: false,
    arguments: &[],
};

/// The genes of a term.
const TERM_GENES: QuestionCard = QuestionCard {
    name: "term-genes",
    help: "The genes of a term by the size of their weights.\n\n\
           Genes without a weight are left out. `in_set` is 1 for a gene of the term's set, and 0 for one that a soft mask, or a \
           term without a set, has let in.",
    examples: &["term-genes reference --term INTERFERON_SIGNALING --out genes.csv"],
    is_of_cells: false,
    arguments: &[Argument::names(TERM, "The term.")],
};

/// The gene sets of the terms.
const TERM_SETS: QuestionCard = QuestionCard {
    name: "term-sets",
    help: "The gene sets of the terms, as a GMT file.\n\nOf the genes that are in the reference's panel, in its order.",
    examples: &["term-sets reference --out sets"],
    is_of_cells: false,
    arguments: &[Argument::names(TERMS_ASKED, ONLY)],
};

/// How much terms have in common.
const TERM_OVERLAP: QuestionCard = QuestionCard {
    name: "term-overlap",
    help: "How many genes terms have in common, as a share of all that either has (Jaccard).\n\n\
           Terms that share their genes share their signal: of two that overlap widely, which one carries it can be chance.",
    examples: &["term-overlap reference --terms INTERFERON_SIGNALING,CYTOKINE_SIGNALING_IN_IMMUNE_S --out overlap.csv"],
    is_of_cells: false,
    arguments: &[
        Argument::names(TERMS_ASKED, ONLY),
        Argument::choice(
            OF,
            &[("set", "the genes of the terms' sets"), ("weights", "the genes with a weight")],
            "Which genes a term has.",
        ),
    ],
};

/// Where cells stand on each term.
const TERM_SCORES: QuestionCard = QuestionCard {
    name: "term-scores",
    help: "Where cells stand on each term: the latent representation with names, turned so that more means more of the \
           term's genes.\n\n\
           Terms without a direction are 0 throughout; `--directions none` leaves the numbers as the encoder gives them.",
    examples: &["term-scores reference cells.h5ad --active-only --out scores.h5ad"],
    is_of_cells: true,
    arguments: &[
        DIRECTIONS_ARGUMENT,
        Argument::flag(ACTIVE_ONLY, "Leave out terms that the group lasso has switched off."),
        Argument::names(TERMS_ASKED, ONLY),
    ],
};

/// Which terms differ between groups of cells.
const ENRICH: QuestionCard = QuestionCard {
    name: "enrich",
    help: "Which terms are higher or lower in a group of cells: Bayes factors.\n\n\
           Each group of `--groups` is compared with all other cells, or with those of `--comparison`. As many cells of both \
           sides are drawn with replacement and compared pair by pair: `p_h0` is the probability that the term is higher in the \
           group, `bf` the logarithm of p_h0 / p_h1. 2.3 is a factor of 10. With directions, which are on by default, the sign \
           says whether the term's genes go up.",
    examples: &[
        "enrich reference cells.h5ad --groups cell_type --out factors.csv",
        "enrich mapped cells.h5ad --groups condition --comparison control --out factors.csv",
    ],
    is_of_cells: true,
    arguments: &[
        Argument::column(GROUPS, "The obs column with the groups."),
        Argument::names(ONLY_GROUPS, "Of its groups only these [default: all that are not compared with]"),
        Argument::names(COMPARISON, "The groups that each is compared with [default: all other cells]"),
        Argument::count(N_SAMPLE, 5000, "Cells drawn of each side."),
        DIRECTIONS_ARGUMENT,
        Argument::flag(SAMPLED, "Compare drawn latent states, in place of the probability itself."),
        Argument::names(TERMS_ASKED, ONLY),
    ],
};

/// The answer to a question.
pub(super) fn answer(module: &ExpimapModule, question: &str, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    match question {
        name if name == TERMS.name => Ok(terms(module)),
        name if name == TERM_GENES.name => term_genes(module, asked, given),
        name if name == TERM_SETS.name => term_sets(module, asked, given),
        name if name == TERM_OVERLAP.name => term_overlap(module, given),
        name if name == TERM_SCORES.name => term_scores(module, asked, given),
        name if name == ENRICH.name => enrich(module, asked, given),
        _ => Err(Error::NotAnswered { question: question.to_owned() }),
    }
}

fn names(module: &ExpimapModule) -> Vec<String> {
    module.terms().iter().map(|term| term.name.clone()).collect()
}

/// Positions of the terms that are asked for.
fn chosen(module: &ExpimapModule, given: &Given) -> Result<Vec<usize>> {
    given.positions(TERMS_ASKED, &names(module))
}

fn terms(module: &ExpimapModule) -> Answer {
    let (active, confidence) = (module.active_terms(), module.confidence());
    let (by_sum, by_counts) = (module.directions(Direction::Sum), module.directions(Direction::Counts));
    let in_set: Vec<usize> = sets(module).iter().map(Vec::len).collect();
    let mut values = Array2::zeros((active.len(), 7));
    for (term, mut row) in values.rows_mut().into_iter().enumerate() {
        let genes = module.term_genes(term);
        let size = genes.iter().map(|gene| gene.weight * gene.weight).sum::<f32>().sqrt();
        let is_active = f32::from(u8::from(active[term]));
        let numbers =
            [is_active, in_set[term] as f32, genes.len() as f32, size, by_sum[term], by_counts[term], confidence[term]];
        row.iter_mut().zip(numbers).for_each(|(to, from)| *to = from);
    }
    let columns = ["active", "n_in_set", "n_genes", "norm", "direction_sum", "direction_counts", "confidence"];
    let columns = columns.map(str::to_owned).to_vec();
    Answer::Table { rows_are: "term", rows: names(module), columns, values }
}

/// The genes in each term's set.
fn sets(module: &ExpimapModule) -> Vec<Vec<usize>> {
    let mask = module.term_masks();
    let column = |term: i64| Vec::<f32>::try_from(mask.select(1, term).contiguous()).expect("numbers");
    let genes = |column: Vec<f32>| (0..column.len()).filter(|&gene| column[gene] > 0.0).collect();
    (0..mask.size()[1]).map(column).map(genes).collect()
}

fn term_genes(module: &ExpimapModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let [term] = given.names(TERM) else {
        let found = format!("{} terms", given.names(TERM).len());
        return Err(Error::Argument { name: TERM, found, expected: "one".to_owned() });
    };
    let term = given.positions(TERM, &names(module)).map(|positions| positions[0]).map_err(|error| match error {
        // Hundreds of names help nobody.
        Error::Argument { name, .. } => Error::Argument {
            name,
            found: format!("`{term}`"),
            expected: "one of those that `results terms` lists".to_owned(),
        },
        other => other,
    })?;
    let genes = module.term_genes(term);
    let values = genes.iter().flat_map(|gene| [gene.weight, f32::from(u8::from(gene.is_in_set))]).collect();
    let values = Array2::from_shape_vec((genes.len(), 2), values).expect("two numbers for each gene");
    let rows = genes.iter().map(|gene| asked.genes()[gene.gene].clone()).collect();
    let columns = vec!["weight".to_owned(), "in_set".to_owned()];
    Ok(Answer::Table { rows_are: "gene", rows, columns, values })
}

fn term_sets(module: &ExpimapModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let (sets, names) = (sets(module), names(module));
    let mut text = String::new();
    let has_set = |term: &usize| module.terms()[*term].origin != Origin::Unconstrained;
    for term in chosen(module, given)?.into_iter().filter(has_set) {
        let genes: Vec<&str> = sets[term].iter().map(|&gene| asked.genes()[gene].as_str()).collect();
        text += &format!("{}\tna\t{}\n", names[term], genes.join("\t"));
    }
    Ok(Answer::Files(BTreeMap::from([("gene_sets.gmt".to_owned(), text.into_bytes())])))
}

fn term_overlap(module: &ExpimapModule, given: &Given) -> Result<Answer> {
    let genes = match given.choice(OF) {
        WEIGHTS => (0..module.terms().len())
            .map(|term| {
                let mut genes: Vec<usize> = module.term_genes(term).iter().map(|gene| gene.gene).collect();
                genes.sort_unstable();
                genes
            })
            .collect(),
        _ => sets(module),
    };
    let (chosen, names) = (chosen(module, given)?, names(module));
    let share = |a: &[usize], b: &[usize]| {
        let n_both = a.iter().filter(|gene| b.binary_search(gene).is_ok()).count();
        let n_either = a.len() + b.len() - n_both;
        if n_either == 0 { 0.0 } else { n_both as f32 / n_either as f32 }
    };
    let values =
        Array2::from_shape_fn((chosen.len(), chosen.len()), |(i, j)| share(&genes[chosen[i]], &genes[chosen[j]]));
    let names: Vec<String> = chosen.iter().map(|&term| names[term].clone()).collect();
    Ok(Answer::Table { rows_are: "term", rows: names.clone(), columns: names, values })
}

/// 1, -1 or 0 for each term; nothing where directions are not asked for.
fn directions(module: &ExpimapModule, given: &Given) -> Option<Vec<f32>> {
    match given.choice(DIRECTIONS) {
        "none" => None,
        "counts" => Some(module.directions(Direction::Counts)),
        _ => Some(module.directions(Direction::Sum)),
    }
}

fn term_scores(module: &ExpimapModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let mut chosen = chosen(module, given)?;
    if given.flag(ACTIVE_ONLY) {
        let active = module.active_terms();
        chosen.retain(|&term| active[term]);
    }
    let mut scores = asked.by_chunk("scores", |minibatch, pass| module.posterior(minibatch, pass).mean);
    if let Some(directions) = directions(module, given) {
        scores.columns_mut().into_iter().zip(directions).for_each(|(mut column, direction)| column *= direction);
    }
    let names = names(module);
    let columns = chosen.iter().map(|&term| names[term].clone()).collect();
    Ok(Answer::Cells { columns, values: scores.select(Axis(1), &chosen) })
}

fn enrich(module: &ExpimapModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let groups = given.column(GROUPS);
    if groups.len() != asked.dataset().n_cells() {
        let (found, expected) = (format!("groups of {} cells", groups.len()), "one for each cell".to_owned());
        return Err(Error::Argument { name: GROUPS, found, expected });
    }
    let mut known: Vec<&String> = Vec::new();
    groups.iter().for_each(|group| {
        if !known.contains(&group) {
            known.push(group)
        }
    });
    let all: Vec<String> = known.into_iter().cloned().collect();
    let against = match given.names(COMPARISON) {
        [] => Vec::new(),
        _ => given.positions(COMPARISON, &all)?,
    };
    let compared: Vec<usize> =
        given.positions(ONLY_GROUPS, &all)?.into_iter().filter(|group| !against.contains(group)).collect();
    let cells_of = |is_one: &dyn Fn(&String) -> bool| -> Vec<usize> {
        groups.iter().enumerate().filter(|(_, group)| is_one(group)).map(|(cell, _)| cell).collect()
    };
    let n_sample = given.count(N_SAMPLE);
    if n_sample == 0 {
        let (found, expected) = ("0".to_owned(), "at least 1".to_owned());
        return Err(Error::Argument { name: N_SAMPLE, found, expected });
    }
    let latent = Latent::of(module, asked);
    let (directions, chosen, names) = (directions(module, given), chosen(module, given)?, names(module));
    let mut rng = ChaCha8Rng::from_seed(asked.seeds().of("enrich", 0));
    let mut columns = Vec::new();
    let mut values = Array2::zeros((chosen.len(), 3 * compared.len()));
    for (i, &group) in compared.iter().enumerate() {
        let own = cells_of(&|other| *other == all[group]);
        let rest = match against.as_slice() {
            [] => cells_of(&|other| *other != all[group]),
            against => cells_of(&|other| against.iter().any(|&one| *other == all[one])),
        };
        if rest.is_empty() {
            let found = format!("no cell beside those of `{}`", all[group]);
            return Err(Error::Argument { name: GROUPS, found, expected: "two groups or more".to_owned() });
        }
        let mut draw = |cells: &[usize]| -> Vec<usize> {
            (0..n_sample).map(|_| cells[rng.random_range(0..cells.len())]).collect()
        };
        let (own, rest) = (draw(&own), draw(&rest));
        let found = match given.flag(SAMPLED) {
            true => latent.compare_drawn((&own, &rest), directions.as_deref(), &mut rng),
            false => latent.compare((&own, &rest), directions.as_deref()),
        };
        for (name, numbers) in [("bf", &found.bf), ("p_h0", &found.p_h0), ("p_h1", &found.p_h1)] {
            let column = columns.len();
            columns.push(format!("{} {name}", all[group]));
            chosen.iter().enumerate().for_each(|(row, &term)| values[[row, column]] = numbers[term] as f32);
        }
        debug_assert_eq!(columns.len(), 3 * (i + 1), "three numbers of each group");
    }
    let rows = chosen.iter().map(|&term| names[term].clone()).collect();
    Ok(Answer::Table { rows_are: "term", rows, columns, values })
}

/// Posterior means and variances of all cells.
struct Latent {
    mean: Array2<f32>,
    var: Array2<f32>,
}

impl Latent {
    fn of(module: &ExpimapModule, asked: &Asked<'_>) -> Self {
        let mean = asked.by_chunk("enrich", |minibatch, pass| module.posterior(minibatch, pass).mean);
        Self { mean, var: asked.by_chunk("enrich", |minibatch, pass| module.posterior(minibatch, pass).var) }
    }

    fn compare(&self, (own, rest): (&[usize], &[usize]), directions: Option<&[f32]>) -> Enriched {
        let of = |all: &Array2<f32>, cells: &[usize]| all.select(Axis(0), cells);
        let (group, other) = (of(&self.mean, own), of(&self.mean, rest));
        let vars = (of(&self.var, own), of(&self.var, rest));
        let vars = Some((vars.0.view(), vars.1.view()));
        enriched(Sides { group: group.view(), rest: other.view(), vars }, directions)
    }

    fn compare_drawn(
        &self,
        (own, rest): (&[usize], &[usize]),
        directions: Option<&[f32]>,
        rng: &mut ChaCha8Rng,
    ) -> Enriched {
        let mut drawn = |cells: &[usize]| {
            let mut states = self.mean.select(Axis(0), cells);
            let vars = self.var.select(Axis(0), cells);
            states.zip_mut_with(&vars, |z, var| *z += var.sqrt() * rng.sample::<f32, _>(rand_distr::StandardNormal));
            states
        };
        let (group, other) = (drawn(own), drawn(rest));
        enriched(Sides { group: group.view(), rest: other.view(), vars: None }, directions)
    }
}

const DIRECTIONS_ARGUMENT: Argument = Argument::choice(
    DIRECTIONS,
    &[
        ("sum", "by the sign of the sum of a term's weights"),
        ("counts", "by whether more of them are above 0 or below"),
        ("none", "as the encoder has it"),
    ],
    "Which way is up.",
);
const ONLY: &str = "Only these terms, separated by commas [default: all]";
const TERM: &str = "term";
const TERMS_ASKED: &str = "terms";
const OF: &str = "of";
const WEIGHTS: &str = "weights";
const DIRECTIONS: &str = "directions";
const ACTIVE_ONLY: &str = "active_only";
const GROUPS: &str = "groups";
const ONLY_GROUPS: &str = "only";
const COMPARISON: &str = "comparison";
const N_SAMPLE: &str = "n_sample";
const SAMPLED: &str = "sampled";
