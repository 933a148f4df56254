//! Synthetic counts of several sites: cell types, batch effects, library sizes, dropout.
//!
//! Every batch is drawn from its own stream of random numbers, so a batch is the same whichever others are made with it.
//! A cell's expected counts are its library size times a softmax over log-expression: a profile shared by all, plus the
//! markers of its type, plus the shifts of its batch. Counts are gamma–Poisson (negative binomial), and a technical
//! dropout then sets a share of the small ones to zero.

mod proteins;

use archipelago_anndata::{AnnData, Array, Column, Csr, DataFrame, Dict, Element};
use archipelago_common::hash::FieldHasher;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use rand_distr::{Distribution as _, Gamma, LogNormal, Normal, Poisson, StandardNormal};
use serde::Serialize;

pub use proteins::add_proteins;

use crate::error::{Error, Result};

/// What to draw.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct GenerateSpec {
    /// Names of the batches.
    pub batches: Vec<String>,
    /// Cells in each batch.
    pub n_cells: usize,
    /// Genes.
    pub n_genes: usize,
    /// Cell types.
    pub n_types: usize,
    /// Donors in each batch.
    pub n_donors: usize,
    /// Groups of related types, which share most of what tells them from other groups; 0 where no types are related.
    pub n_groups: usize,
    /// Types that batches lack, by the names of both.
    pub lacking: Vec<(String, String)>,
    /// Standard deviation of the logarithm of a type's share in a batch; without one, shares are more alike.
    pub unevenness: Option<f64>,
    /// Standard deviation of a batch's shift of each gene, in natural logarithms.
    pub batch_effect: f64,
    /// The same of single batches, by their names.
    pub batch_effects: Vec<(String, f64)>,
    /// Median counts of a cell.
    pub library_size: f64,
    /// Chance that a count of expectation 0 is lost; falls with the expectation, half of it at 1.
    pub dropout: f64,
    /// Seed of everything.
    pub seed: u64,
}

impl GenerateSpec {
    fn check(&self) -> Result<()> {
        let refuse = |what, found: String, expected| Err(Error::Setting { what, found, expected });
        let repeated = self.batches.iter().enumerate().find(|(i, name)| self.batches[..*i].contains(name));
        if let Some((_, name)) = repeated {
            return refuse("--batches", format!("`{name}` twice"), "each batch once");
        }
        for (what, found) in [
            ("--batches", self.batches.len()),
            ("--n-cells", self.n_cells),
            ("--n-genes", self.n_genes),
            ("--n-types", self.n_types),
            ("--n-donors", self.n_donors),
        ] {
            if found == 0 {
                return refuse(what, "0".to_owned(), "at least 1");
            }
        }
        let effects = self.batch_effects.iter().map(|(_, effect)| *effect).chain([self.batch_effect]);
        for effect in effects.chain(self.unevenness) {
            if !(effect.is_finite() && effect >= 0.0) {
                return refuse("--batch-effect or --uneven", effect.to_string(), "0 or a number above it");
            }
        }
        if self.n_groups > self.n_types {
            return refuse("--related", self.n_groups.to_string(), "at most as many groups as types");
        }
        let named =
            self.batch_effects.iter().map(|(batch, _)| batch).chain(self.lacking.iter().map(|(batch, _)| batch));
        if let Some(unknown) = named.into_iter().find(|batch| !self.batches.contains(batch)) {
            return refuse("--batch-effect-of or --without", format!("`{unknown}`"), "one of the batches");
        }
        for (batch, kind) in &self.lacking {
            let all = (0..self.n_types).map(type_name);
            let left = all.clone().filter(|name| !self.lacks(batch, name)).count();
            if left == 0 || !all.clone().any(|name| name == *kind) {
                return refuse(
                    "--without",
                    format!("{batch}={kind}"),
                    "types such as `type-01`, and one left in each batch",
                );
            }
        }
        if !(self.library_size.is_finite() && self.library_size >= 1.0) {
            return refuse("--library-size", self.library_size.to_string(), "at least 1");
        }
        if !(0.0..=1.0).contains(&self.dropout) {
            return refuse("--dropout", self.dropout.to_string(), "a share from 0 to 1");
        }
        Ok(())
    }

    fn lacks(&self, batch: &str, kind: &str) -> bool {
        self.lacking.iter().any(|(of, lacking)| of == batch && lacking == kind)
    }

    fn effect_on(&self, batch: &str) -> f64 {
        self.batch_effects.iter().find(|(of, _)| of == batch).map_or(self.batch_effect, |(_, effect)| *effect)
    }

    fn stream(&self, of: &str) -> ChaCha20Rng {
        let mut seed = FieldHasher::new("archipelago/generate/1");
        seed.field(&self.seed.to_le_bytes()).field(of.as_bytes());
        ChaCha20Rng::from_seed(*seed.finish().as_bytes())
    }
}

/// What all batches share.
struct Tissue {
    /// Log-expression that all types share.
    shared: Vec<f64>,
    /// Log-expression of each type, `n_types` × `n_genes`.
    profiles: Vec<Vec<f64>>,
    /// Inverse dispersion of each gene.
    dispersions: Vec<f64>,
}

impl Tissue {
    fn draw(spec: &GenerateSpec) -> Self {
        let mut rng = spec.stream("tissue");
        let mut normal = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
        let shared: Vec<f64> = (0..spec.n_genes).map(|_| normal(PROFILE_STD)).collect();
        let dispersions = (0..spec.n_genes).map(|_| (1.0 + normal(0.5)).exp()).collect();
        let mut rng = spec.stream("markers");
        let mut marked = |base: &[f64], share: f64| -> Vec<f64> {
            let marked = |&base: &f64| {
                let is_marker = rng.random_bool(share);
                base + if is_marker { MARKER_STD * rng.sample::<f64, _>(StandardNormal) } else { 0.0 }
            };
            base.iter().map(marked).collect()
        };
        let groups: Vec<Vec<f64>> = (0..spec.n_groups).map(|_| marked(&shared, MARKER_SHARE)).collect();
        let profile = |kind: usize| match groups.get(kind % spec.n_groups.max(1)) {
            Some(group) => marked(group, OWN_MARKER_SHARE),
            None => marked(&shared, MARKER_SHARE),
        };
        let profiles = (0..spec.n_types).map(profile).collect();
        Self { shared, profiles, dispersions }
    }
}

/// One batch's cells.
struct Batch {
    counts: Csr,
    types: Vec<usize>,
    donors: Vec<usize>,
}

impl Batch {
    fn draw(spec: &GenerateSpec, tissue: &Tissue, name: &str) -> Result<Self> {
        let mut rng = spec.stream(&format!("batch {name}"));
        let shift = Normal::new(0.0, spec.effect_on(name)).expect("the standard deviation was checked");
        let shifts: Vec<f64> = (0..spec.n_genes).map(|_| shift.sample(&mut rng)).collect();
        let fractions: Vec<Vec<f64>> = tissue.profiles.iter().map(|profile| softmax(profile, &shifts)).collect();
        // Batches differ in depth and in the share of each type, as real ones do.
        let depth = (DEPTH_STD * rng.sample::<f64, _>(StandardNormal)).exp();
        let library = LogNormal::new((spec.library_size * depth).ln(), LIBRARY_STD).expect("the median was checked");
        let share = |kind: usize, rng: &mut ChaCha20Rng| {
            let share = match spec.unevenness {
                None => rng.random_range(0.3..1.0),
                Some(std) => (std * rng.sample::<f64, _>(StandardNormal)).exp(),
            };
            if spec.lacks(name, &type_name(kind)) { 0.0 } else { share }
        };
        let shares: Vec<f64> = (0..spec.n_types).map(|kind| share(kind, &mut rng)).collect();
        let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
        let (mut types, mut donors) = (Vec::new(), Vec::new());
        for _ in 0..spec.n_cells {
            let cell_type = pick(&shares, &mut rng);
            let size = library.sample(&mut rng);
            for (gene, (&fraction, &dispersion)) in fractions[cell_type].iter().zip(&tissue.dispersions).enumerate() {
                let count = draw_count(size * fraction, dispersion, spec.dropout, &mut rng);
                if count > 0.0 {
                    indices.push(gene as u32);
                    data.push(count);
                }
            }
            indptr.push(data.len());
            types.push(cell_type);
            donors.push(rng.random_range(0..spec.n_donors));
        }
        Ok(Self { counts: Csr::new(spec.n_cells, spec.n_genes, indptr, indices, data)?, types, donors })
    }
}

/// Draws all batches: `X` holds counts; `obs` holds `batch`, `cell_type` and `donor`.
///
/// # Errors  [`Error::Setting`] for values that make no sense together
pub fn generate(spec: &GenerateSpec) -> Result<AnnData> {
    spec.check()?;
    let tissue = Tissue::draw(spec);
    let (mut counts, mut cells, mut batches, mut types, mut donors) = (vec![], vec![], vec![], vec![], vec![]);
    for name in &spec.batches {
        let batch = Batch::draw(spec, &tissue, name)?;
        cells.extend((1..=spec.n_cells).map(|cell| format!("{name}-{cell:06}")));
        batches.extend(std::iter::repeat_n(name.clone(), spec.n_cells));
        types.extend(batch.types.iter().map(|&kind| type_name(kind)));
        donors.extend(batch.donors.iter().map(|d| format!("{name}-donor-{}", d + 1)));
        counts.push(batch.counts);
    }
    let mut obs = DataFrame::new(cells);
    obs.insert("batch", Column::categorical(&batches))?;
    obs.insert("cell_type", Column::categorical(&types))?;
    obs.insert("donor", Column::categorical(&donors))?;
    let var = DataFrame::new((1..=spec.n_genes).map(|gene| format!("GENE{gene:05}")));
    let mut adata = AnnData::new(Csr::vstack(spec.n_genes, counts)?, obs, var)?;
    adata.uns.insert("generator".to_owned(), Element::Dict(provenance(spec)));
    Ok(adata)
}

/// Places of the cells that [`generate`] drew, in `obsm['spatial']`: every batch is a section in which types lie side by side, in layers
/// that run into each other.
///
/// # Errors  [`Error::Anndata`] for cells that something else made
pub fn add_places(spec: &GenerateSpec, adata: &mut AnnData) -> Result<()> {
    let types = adata.obs.column("cell_type")?.to_strings();
    let rank = |name: &str| name.rsplit('-').next().and_then(|number| number.parse::<f64>().ok()).unwrap_or_default();
    let mut places = Vec::with_capacity(2 * types.len());
    for (batch, types) in spec.batches.iter().zip(types.chunks(spec.n_cells)) {
        let mut rng = spec.stream(&format!("places {batch}"));
        for name in types.iter().flatten() {
            let depth = LAYER * (rank(name) + rng.random_range(0.0..1.0)) + BLUR * rng.sample::<f64, _>(StandardNormal);
            places.extend([depth as f32, rng.random_range(0.0..4.0 * LAYER) as f32]);
        }
    }
    adata.obsm.insert("spatial".to_owned(), Element::Array(Array::matrix(types.len(), 2, places)?));
    Ok(())
}

/// Gene sets of the cells that [`generate`] draws, as a GMT text: for each type the genes that it expresses more and less than the
/// others, and as many sets of genes by chance, so that all but a few genes are in a set and half of the sets mean nothing.
///
/// # Errors  [`Error::Setting`] for values that make no sense together
pub fn gene_sets(spec: &GenerateSpec) -> Result<String> {
    spec.check()?;
    let tissue = Tissue::draw(spec);
    let mut rng = spec.stream("gene sets");
    let mut text = String::new();
    let mut add = |name: String, genes: &dyn Fn(usize) -> bool| {
        let genes = (0..spec.n_genes).filter(|&gene| genes(gene)).map(|gene| format!("\tGENE{:05}", gene + 1));
        text += &format!("GENERATED_{name}\tna{}\n", genes.collect::<String>());
    };
    for (kind, profile) in tissue.profiles.iter().enumerate() {
        let raised = |gene: usize| profile[gene] - tissue.shared[gene];
        add(format!("TYPE_{:02}_UP", kind + 1), &|gene| raised(gene) > 0.0);
        add(format!("TYPE_{:02}_DOWN", kind + 1), &|gene| raised(gene) < 0.0);
        for half in ["A", "B"] {
            let chosen: Vec<bool> = (0..spec.n_genes).map(|_| rng.random_bool(CHANCE_SHARE)).collect();
            add(format!("CHANCE_{:02}_{half}", kind + 1), &|gene| chosen[gene]);
        }
    }
    Ok(text)
}

fn provenance(spec: &GenerateSpec) -> Dict {
    let number = |value: f64| Element::Array(Array::float(value));
    Dict::from([
        ("name".to_owned(), Element::Array(Array::text("archipelago-worker generate"))),
        ("seed".to_owned(), Element::Array(Array::text(spec.seed.to_string()))),
        ("batch_effect".to_owned(), number(spec.batch_effect)),
        ("library_size".to_owned(), number(spec.library_size)),
        ("dropout".to_owned(), number(spec.dropout)),
    ])
}

/// What a type is called in `obs`.
fn type_name(kind: usize) -> String {
    format!("type-{:02}", kind + 1)
}

fn softmax(profile: &[f64], shifts: &[f64]) -> Vec<f64> {
    let weights: Vec<f64> = profile.iter().zip(shifts).map(|(log, shift)| (log + shift).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

fn pick(shares: &[f64], rng: &mut ChaCha20Rng) -> usize {
    let mut left = rng.random_range(0.0..shares.iter().sum());
    shares
        .iter()
        .position(|share| {
            left -= share;
            left < 0.0
        })
        .unwrap_or(shares.len() - 1)
}

// Expectations too small or too large to draw from are 0: a gene that is as good as off, never an error.
fn draw_count(expected: f64, dispersion: f64, dropout: f64, rng: &mut ChaCha20Rng) -> f32 {
    let rate = Gamma::new(dispersion, expected / dispersion).map_or(0.0, |gamma| gamma.sample(rng));
    let count = Poisson::new(rate).map_or(0.0, |poisson| poisson.sample(rng));
    let is_lost = rng.random_bool(dropout / (1.0 + expected));
    if is_lost { 0.0 } else { count as f32 }
}

/// Spread of genes around the mean expression; real sets span some four orders of magnitude.
const PROFILE_STD: f64 = 1.4;
/// Share of the genes that tell a type from the others.
const MARKER_SHARE: f64 = 0.08;
/// The same within a group of related types.
const OWN_MARKER_SHARE: f64 = 0.03;
/// Share of the genes in a set by chance.
const CHANCE_SHARE: f64 = 0.15;
/// Spread of a marker around its usual expression.
const MARKER_STD: f64 = 1.6;
/// How deep a layer of cells of one type is.
const LAYER: f64 = 10.0;
/// How far cells lie outside of their layer.
const BLUR: f64 = 2.0;
/// Spread of library sizes within a batch.
const LIBRARY_STD: f64 = 0.35;
/// Spread of sequencing depth between batches.
const DEPTH_STD: f64 = 0.3;

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> GenerateSpec {
        GenerateSpec {
            batches: vec!["a".to_owned(), "b".to_owned()],
            n_cells: 200,
            n_genes: 300,
            n_types: 3,
            n_donors: 2,
            n_groups: 0,
            lacking: vec![],
            unevenness: None,
            batch_effect: 0.5,
            batch_effects: vec![],
            library_size: 2000.0,
            dropout: 0.2,
            seed: 1,
        }
    }

    #[test]
    fn sets_of_a_type_are_its_markers_and_the_same_every_time() {
        let text = gene_sets(&spec()).unwrap();
        assert_eq!(text, gene_sets(&spec()).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 12);
        let size = |line: &str| line.split('\t').count() - 2;
        assert!(lines.iter().all(|line| size(line) > 2), "{text}");
        let (up, down): (Vec<&str>, Vec<&str>) = (lines[0].split('\t').collect(), lines[1].split('\t').collect());
        assert!(up[0] == "GENERATED_TYPE_01_UP" && up[2..].iter().all(|gene| !down[2..].contains(gene)));
    }

    fn counts(spec: &GenerateSpec) -> Csr {
        generate(spec).unwrap().matrix(None).unwrap().to_csr().unwrap()
    }

    fn mean_by_gene(counts: &Csr, rows: std::ops::Range<usize>) -> Vec<f64> {
        let mut sums = vec![0.0; counts.n_cols()];
        for row in rows.clone() {
            let (genes, values) = counts.row(row);
            genes.iter().zip(values).for_each(|(&gene, &value)| sums[gene as usize] += f64::from(value));
        }
        sums.into_iter().map(|sum| sum / rows.len() as f64).collect()
    }

    // Root mean square of the log ratio of two batches' gene means, over genes that are seen often enough to tell.
    fn batch_distance(batch_effect: f64) -> f64 {
        let counts = counts(&GenerateSpec { batch_effect, n_types: 1, dropout: 0.0, ..spec() });
        let (a, b) = (mean_by_gene(&counts, 0..200), mean_by_gene(&counts, 200..400));
        let total = |means: &[f64]| means.iter().sum::<f64>();
        let scale = total(&b) / total(&a);
        let ratios: Vec<f64> =
            a.iter().zip(&b).filter(|(a, b)| **a > 1.0 && **b > 1.0).map(|(a, b)| (b / a / scale).ln()).collect();
        (ratios.iter().map(|r| r * r).sum::<f64>() / ratios.len() as f64).sqrt()
    }

    #[test]
    fn what_is_made_are_counts_of_the_announced_size() {
        let adata = generate(&spec()).unwrap();
        assert_eq!((adata.n_obs(), adata.n_vars()), (400, 300));
        let counts = counts(&spec());
        archipelago_anndata::counts::check(&counts, adata.var_names()).unwrap();
        let mut sizes = counts.row_sums();
        sizes.sort_by(f64::total_cmp);
        // Depth of the batches and dropout move the median; it stays of the announced order.
        assert!((800.0..4000.0).contains(&sizes[200]), "median library size {}", sizes[200]);
    }

    #[test]
    fn a_batch_does_not_depend_on_the_others() {
        let both = counts(&spec());
        let alone = counts(&GenerateSpec { batches: vec!["b".to_owned()], ..spec() });
        assert_eq!(both.select_rows(&(200..400).collect::<Vec<_>>()), alone);
    }

    #[test]
    fn types_lie_in_layers_and_places_change_nothing_else() {
        let mut adata = generate(&spec()).unwrap();
        let before = adata.clone();
        add_places(&spec(), &mut adata).unwrap();
        let places = adata.obsm("spatial").unwrap().to_table("spatial").unwrap().values;
        let types = adata.obs.column("cell_type").unwrap().to_strings();
        let mean = |name: &str| {
            let own = types.iter().enumerate().filter(|(_, of)| of.as_deref() == Some(name));
            let depths: Vec<f32> = own.map(|(cell, _)| places[2 * cell]).collect();
            depths.iter().sum::<f32>() / depths.len() as f32
        };
        assert!(mean("type-01") + 5.0 < mean("type-02") && mean("type-02") + 5.0 < mean("type-03"));
        adata.obsm.remove("spatial");
        assert_eq!(adata, before);
    }

    #[test]
    fn proteins_are_high_on_types_that_carry_them_and_change_nothing_else() {
        let mut adata = generate(&spec()).unwrap();
        let before = adata.clone();
        add_proteins(&spec(), 5, &mut adata).unwrap();
        let table = adata.obsm("protein_expression").unwrap().to_table("proteins").unwrap();
        assert_eq!((table.n_cols, table.columns.unwrap()[0].as_str()), (5, "ADT001"));
        let types = adata.obs.column("cell_type").unwrap().to_categorical();
        let mut means = vec![vec![0.0_f64; 5]; 3];
        let mut n = [0.0_f64; 3];
        for (cell, &code) in types.codes().iter().enumerate() {
            n[code as usize] += 1.0;
            (0..5).for_each(|p| means[code as usize][p] += f64::from(table.values[5 * cell + p]));
        }
        let high =
            means.iter().zip(n).map(|(sums, n)| sums.iter().filter(|sum| **sum / n > 20.0).count()).sum::<usize>();
        assert!((1..15).contains(&high), "{means:?}");
        adata.obsm.remove("protein_expression");
        assert_eq!(adata, before);
    }

    #[test]
    fn a_seed_gives_the_same_counts_and_another_seed_others() {
        assert_eq!(counts(&spec()), counts(&spec()));
        assert_ne!(counts(&spec()), counts(&GenerateSpec { seed: 2, ..spec() }));
    }

    #[test]
    fn the_batch_effect_is_as_large_as_asked_for() {
        let (none, strong) = (batch_distance(0.0), batch_distance(0.8));
        assert!(none < 0.15, "without an effect the batches differ by {none}");
        // Two independent shifts of 0.8 differ by 0.8·√2 = 1.13.
        assert!((0.8..1.4).contains(&strong), "with an effect of 0.8 they differ by {strong}");
    }

    #[test]
    fn dropout_makes_zeros() {
        let without = counts(&GenerateSpec { dropout: 0.0, ..spec() }).nnz();
        let with = counts(&GenerateSpec { dropout: 0.8, ..spec() }).nnz();
        assert!(with < without * 9 / 10, "{with} of {without} values are left");
    }

    #[test]
    fn senseless_settings_are_refused_by_name() {
        let refused = |spec: GenerateSpec| generate(&spec).unwrap_err().to_string();
        assert!(refused(GenerateSpec { n_genes: 0, ..spec() }).contains("--n-genes"));
        assert!(refused(GenerateSpec { dropout: 1.5, ..spec() }).contains("--dropout"));
        assert!(refused(GenerateSpec { batch_effect: -1.0, ..spec() }).contains("--batch-effect"));
        assert!(refused(GenerateSpec { batches: vec!["a".into(), "a".into()], ..spec() }).contains("`a` twice"));
    }

    #[test]
    fn a_batch_can_lack_a_type_and_stand_further_away_than_others() {
        let hard = GenerateSpec {
            n_types: 6,
            n_groups: 2,
            lacking: vec![("b".to_owned(), "type-02".to_owned())],
            unevenness: Some(0.8),
            batch_effects: vec![("b".to_owned(), 1.5)],
            ..spec()
        };
        let adata = generate(&hard).unwrap();
        let types = adata.obs.column("cell_type").unwrap().to_strings();
        let has = |cells: &[Option<String>]| cells.iter().flatten().any(|name| name == "type-02");
        assert!(has(&types[..200]) && !has(&types[200..]));
        let even = generate(&GenerateSpec { batch_effects: vec![], ..hard.clone() }).unwrap();
        let counts = |adata: &AnnData| adata.matrix(None).unwrap().to_csr().unwrap();
        let rows =
            |counts: &Csr, cells: std::ops::Range<usize>| cells.map(|i| counts.row(i).1.to_vec()).collect::<Vec<_>>();
        let (hard_counts, even_counts) = (counts(&adata), counts(&even));
        assert_eq!(rows(&hard_counts, 0..200), rows(&even_counts, 0..200), "the other batch is as it was");
        assert_ne!(rows(&hard_counts, 200..400), rows(&even_counts, 200..400));
        // Types of one group are nearer to one another than to those of the other.
        let tissue = Tissue::draw(&hard);
        let apart = |a: usize, b: usize| -> f64 {
            tissue.profiles[a].iter().zip(&tissue.profiles[b]).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        assert!(apart(0, 2) < apart(0, 1) && apart(1, 3) < apart(2, 3), "{} {}", apart(0, 2), apart(0, 1));
    }

    #[test]
    fn batches_and_types_that_are_not_there_are_refused() {
        let refused = |spec: GenerateSpec| generate(&spec).unwrap_err().to_string();
        let lacking = |batch: &str, kind: &str| vec![(batch.to_owned(), kind.to_owned())];
        assert!(refused(GenerateSpec { lacking: lacking("x", "type-01"), ..spec() }).contains("`x`"));
        assert!(refused(GenerateSpec { lacking: lacking("a", "type-9"), ..spec() }).contains("a=type-9"));
        assert!(refused(GenerateSpec { n_types: 1, lacking: lacking("a", "type-01"), ..spec() }).contains("one left"));
        assert!(refused(GenerateSpec { n_groups: 4, ..spec() }).contains("--related"));
        assert!(refused(GenerateSpec { batch_effects: vec![("x".to_owned(), 1.0)], ..spec() }).contains("`x`"));
    }
}
