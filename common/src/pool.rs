//! Sums that add exactly: what several sites know of one thing, put together without an order.
//!
//! Floating-point addition depends on its order, so two coordinators, or the same one after a withdrawal, could end at
//! different totals. A [`Table`] keeps every number as an integer multiple of a fixed unit in 128 bits. Addition is then
//! commutative and associative to the last bit, and taking a member out again is leaving it out of the sum.
//!
//! What can be pooled is what adds: numbers of cells, sums, sums of products. Means and covariances follow from these.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    limits,
    state_dict::{DType, StateDict, Tensor},
};

/// What a table of a pool must look like.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableSpec {
    /// Sizes, outermost first; none for one number.
    pub shape: Vec<usize>,
    /// Bits behind the binary point: 0 for counts, [`Table::FRACTION_BITS`] for sums of measured numbers.
    pub fraction_bits: u32,
}

impl TableSpec {
    /// A table of counts.
    pub fn counts(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), fraction_bits: 0 }
    }

    /// A table of sums.
    pub fn sums(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), fraction_bits: Table::FRACTION_BITS }
    }

    /// Numbers in the table, if they can be counted.
    fn n_numbers(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |size, &n| size.checked_mul(n))
    }
}

/// What the tables of one entry must look like, by name.
pub type TableSpecs = BTreeMap<String, TableSpec>;

/// One table: integers, each so many units of `2^-fraction_bits`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    spec: TableSpec,
    units: Vec<i128>,
}

impl Table {
    /// Bits behind the binary point of a sum. A latent coordinate is known to about 2^-24 of its size; 2^-40 leaves room
    /// for coordinates near 0, and 87 bits before the point for the squares of all cells on earth.
    pub const FRACTION_BITS: u32 = 40;

    /// A table of zeros.
    ///
    /// # Errors  [`Error::TooLarge`] for more numbers than a pool may have
    pub fn zeros(spec: TableSpec) -> Result<Self> {
        let found = spec.n_numbers().map_or(u64::MAX, |n| n as u64);
        if found > limits::POOL_NUMBERS as u64 || spec.fraction_bits > MOST_FRACTION_BITS {
            let limit = limits::POOL_NUMBERS as u64;
            return Err(Error::TooLarge { what: "table of a pool".to_owned(), found, limit, unit: "numbers" });
        }
        Ok(Self { units: vec![0; found as usize], spec })
    }

    /// Adds a number to a place, rounded once to a whole number of units.
    ///
    /// # Errors  [`Error::InvalidValue`] for NaN, infinity or a number beyond the table's range
    ///
    /// # Panics
    /// If there is no such place.
    pub fn add(&mut self, place: usize, value: f64) -> Result<()> {
        // Scaling by a power of two is exact, so the only rounding is the one to a whole number of units.
        let units = (value * 2_f64.powi(self.spec.fraction_bits as i32)).round_ties_even();
        if !units.is_finite() || units.abs() > LARGEST {
            return Err(out_of_range(value));
        }
        self.units[place] = self.units[place].checked_add(units as i128).ok_or_else(|| out_of_range(value))?;
        Ok(())
    }

    /// The values, nearest 64-bit floats.
    pub fn to_f64(&self) -> Vec<f64> {
        let unit = 2_f64.powi(-(self.spec.fraction_bits as i32));
        self.units.iter().map(|&units| units as f64 * unit).collect()
    }

    fn absorb(&mut self, other: &Self) -> Result<()> {
        for (sum, &units) in self.units.iter_mut().zip(&other.units) {
            *sum = sum.checked_add(units).ok_or_else(|| out_of_range(f64::INFINITY))?;
        }
        Ok(())
    }

    /// Each number is two 64-bit words, the higher one first.
    fn to_tensor(&self) -> Tensor {
        let words = self.units.iter().flat_map(|&units| [(units >> 64) as i64, units as i64]);
        let shape: Vec<usize> = self.spec.shape.iter().copied().chain([2]).collect();
        Tensor::from_i64(&shape, &words.collect::<Vec<_>>())
    }

    fn of_tensor(name: &str, tensor: &Tensor, fraction_bits: u32) -> Result<Self> {
        let [shape @ .., 2] = tensor.shape() else {
            let detail = format!("table `{name}` is {}, expected two words for each number", tensor.spec());
            return Err(Error::Decode { what: WHAT, detail });
        };
        let mut table = Self::zeros(TableSpec { shape: shape.to_vec(), fraction_bits })?;
        for (units, words) in table.units.iter_mut().zip(tensor.to_i64(name)?.chunks_exact(2)) {
            *units = (i128::from(words[0]) << 64) | i128::from(words[1] as u64);
        }
        Ok(table)
    }
}

/// Entries by name (a label, say), each with the same tables, and tables that are added up name by name.
///
/// A pool is what one member contributes, and what all of them contribute together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    specs: TableSpecs,
    entries: BTreeMap<String, BTreeMap<String, Table>>,
}

impl Pool {
    /// A pool without entries.
    pub fn new(specs: TableSpecs) -> Self {
        Self { specs, entries: BTreeMap::new() }
    }

    /// What the tables of an entry look like.
    pub fn specs(&self) -> &TableSpecs {
        &self.specs
    }

    /// Names of the entries, sorted.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A table of an entry.
    pub fn table(&self, entry: &str, table: &str) -> Option<&Table> {
        self.entries.get(entry)?.get(table)
    }

    /// A count below zero, if there is one: its entry and table.
    pub fn negative_count(&self) -> Option<(&str, &str)> {
        let tables =
            self.entries.iter().flat_map(|(entry, tables)| tables.iter().map(move |(name, t)| (entry, name, t)));
        let mut counts = tables.filter(|(.., table)| table.spec.fraction_bits == 0);
        let found = counts.find(|(.., table)| table.units.iter().any(|&units| units < 0));
        found.map(|(entry, table, _)| (entry.as_str(), table.as_str()))
    }

    /// Adds a number to a place in a table of an entry, which is made of zeros if it is not there yet.
    ///
    /// # Errors  [`Error::InvalidValue`] for NaN, infinity or a number beyond the table's range; [`Error::TooLarge`]
    ///
    /// # Panics
    /// If entries have no such table, or the table no such place.
    pub fn add(&mut self, entry: &str, table: &str, place: usize, value: f64) -> Result<()> {
        self.entry(entry)?.get_mut(table).expect("entries have the tables of their pool").add(place, value)
    }

    /// The same pool without some entries.
    #[must_use]
    pub fn retain(mut self, mut keeps: impl FnMut(&str) -> bool) -> Self {
        self.entries.retain(|entry, _| keeps(entry));
        self
    }

    /// Adds another pool to this one: the same bits in every order.
    ///
    /// # Errors  [`Error::InvalidValue`] if the tables differ or a sum leaves the range; this pool is then of no use
    pub fn absorb(&mut self, other: &Self) -> Result<()> {
        if self.specs != other.specs {
            let (found, expected) = ("other tables".to_owned(), "the tables of the reference");
            return Err(Error::InvalidValue { what: WHAT, found, expected });
        }
        for (entry, tables) in &other.entries {
            let sums = self.entry(entry)?;
            sums.values_mut().zip(tables.values()).try_for_each(|(sum, table)| sum.absorb(table))?;
        }
        Ok(())
    }

    /// The file that travels and is stored; the same bytes for the same sums.
    pub fn to_bytes(&self) -> Vec<u8> {
        let named = self.entries.iter().flat_map(|(entry, tables)| {
            tables.iter().map(move |(table, sums)| (format!("{entry}{BETWEEN}{table}"), sums.to_tensor()))
        });
        let specs = serde_json::to_string(&self.specs).expect("names and numbers are JSON");
        named.collect::<StateDict>().to_safetensors(Some(&specs))
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors  [`Error::Decode`], [`Error::TooLarge`], [`Error::InvalidName`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let decode = |detail: String| Error::Decode { what: WHAT, detail };
        let (tensors, specs) = StateDict::from_safetensors(WHAT, bytes)?;
        let specs = specs.ok_or_else(|| decode("the file does not say what its tables look like".to_owned()))?;
        let mut pool = Self::new(serde_json::from_str(&specs).map_err(|e| decode(e.to_string()))?);
        for (name, tensor) in tensors.iter() {
            let known = |(entry, table)| Some((entry, table, pool.specs.get(table)?));
            let Some((entry, table, spec)) = name.rsplit_once(BETWEEN).and_then(known) else {
                return Err(decode(format!("it has a tensor `{name}`, which is no table of its entries")));
            };
            if tensor.dtype() != DType::I64 {
                return Err(decode(format!("table `{name}` is {}, expected 64-bit integers", tensor.spec())));
            }
            let sums = Table::of_tensor(name, tensor, spec.fraction_bits)?;
            if sums.spec != *spec {
                return Err(decode(format!("table `{name}` is {:?}, expected {:?}", sums.spec.shape, spec.shape)));
            }
            pool.entries.entry(entry.to_owned()).or_default().insert(table.to_owned(), sums);
        }
        match pool.entries.iter().find(|(_, tables)| !tables.keys().eq(pool.specs.keys())) {
            None => Ok(pool),
            Some((entry, _)) => Err(decode(format!("entry `{entry}` lacks a table"))),
        }
    }

    fn entry(&mut self, entry: &str) -> Result<&mut BTreeMap<String, Table>> {
        if !self.entries.contains_key(entry) {
            let zeros = |(name, spec): (&String, &TableSpec)| Ok((name.clone(), Table::zeros(spec.clone())?));
            let tables = self.specs.iter().map(zeros).collect::<Result<_>>()?;
            self.entries.insert(entry.to_owned(), tables);
        }
        Ok(self.entries.get_mut(entry).expect("it is there now"))
    }
}

/// Checks the tables that a layout declares for a pool: their names must not look like an entry's.
///
/// # Errors  [`Error::InvalidValue`], [`Error::TooLarge`]
pub(crate) fn check(specs: &TableSpecs) -> Result<()> {
    for (name, spec) in specs {
        if name.is_empty() || name.contains(BETWEEN) {
            let (found, expected) = (name.clone(), "text without a `/`");
            return Err(Error::InvalidValue { what: "name of a table", found, expected });
        }
        Table::zeros(spec.clone())?;
    }
    Ok(())
}

const WHAT: &str = "pool";
/// Between the names of an entry and a table.
const BETWEEN: char = '/';
/// Bits behind the point beyond which a 64-bit float of usual size has none left to give.
const MOST_FRACTION_BITS: u32 = 60;
/// Units of one number that is added, at most 2^96: of a sum there can be 2^31 before it leaves 128 bits.
const LARGEST: f64 = 79_228_162_514_264_337_593_543_950_336.0;

fn out_of_range(value: f64) -> Error {
    Error::InvalidValue { what: "number of a pool", found: value.to_string(), expected: "a number within its range" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn specs() -> TableSpecs {
        BTreeMap::from([("n".to_owned(), TableSpec::counts(&[])), ("sum".to_owned(), TableSpec::sums(&[2]))])
    }

    /// Cells of two labels, by their position.
    type Cells = Vec<(bool, f32, f32)>;

    fn of(cells: &Cells) -> Pool {
        let mut pool = Pool::new(specs());
        for &(is_t, x, y) in cells {
            let label = if is_t { "T/NK cell" } else { "B cell" };
            pool.add(label, "n", 0, 1.0).unwrap();
            pool.add(label, "sum", 0, x.into()).unwrap();
            pool.add(label, "sum", 1, y.into()).unwrap();
        }
        pool
    }

    fn cells() -> impl Strategy<Value = Cells> {
        proptest::collection::vec((any::<bool>(), -1e6_f32..1e6, -1e-3_f32..1e-3), 0..20)
    }

    fn sum(members: &[&Pool]) -> Pool {
        let mut total = Pool::new(specs());
        members.iter().for_each(|member| total.absorb(member).unwrap());
        total
    }

    proptest! {
        #[test]
        fn a_total_is_the_same_bits_in_every_order_and_grouping(a in cells(), b in cells(), c in cells()) {
            let (a, b, c) = (of(&a), of(&b), of(&c));
            let all = sum(&[&a, &b, &c]).to_bytes();
            prop_assert_eq!(&all, &sum(&[&c, &a, &b]).to_bytes());
            prop_assert_eq!(&all, &sum(&[&sum(&[&a, &b]), &c]).to_bytes());
            prop_assert_eq!(&all, &sum(&[&a, &sum(&[&c, &b])]).to_bytes());
        }

        #[test]
        fn the_total_of_sites_is_that_of_all_their_cells(a in cells(), b in cells()) {
            prop_assert_eq!(sum(&[&of(&a), &of(&b)]), of(&[a, b].concat()));
        }

        #[test]
        fn a_pool_round_trips(a in cells()) {
            let pool = of(&a);
            prop_assert_eq!(Pool::from_bytes(&pool.to_bytes()).unwrap(), pool);
        }
    }

    #[test]
    fn floats_would_not_do() {
        // What the integers are for: these three have two sums in 64-bit floats.
        let (a, b, c) = (0.1_f64, 0.2, 0.3);
        assert_ne!((a + b) + c, a + (b + c));
        let sum = |order: [f64; 3]| {
            let mut table = Table::zeros(TableSpec::sums(&[])).unwrap();
            order.into_iter().for_each(|x| table.add(0, x).unwrap());
            table
        };
        assert_eq!(sum([a, b, c]), sum([c, b, a]));
        assert!((sum([a, b, c]).to_f64()[0] - 0.6).abs() < 1e-11);
    }

    #[test]
    fn negative_and_large_numbers_keep_every_bit() {
        let mut pool = Pool::new(specs());
        for value in [-1.0, 1e15, -0.5_f64.powi(40)] {
            pool.add("T", "sum", 0, value).unwrap();
        }
        let read = Pool::from_bytes(&pool.to_bytes()).unwrap();
        assert_eq!(read, pool);
        assert_eq!(read.table("T", "sum").unwrap().units[0], ((1_000_000_000_000_000_i128 - 1) << 40) - 1);
    }

    #[test]
    fn what_is_no_number_of_the_range_is_refused() {
        let mut table = Table::zeros(TableSpec::sums(&[1])).unwrap();
        for bad in [f64::NAN, f64::INFINITY, 1e300] {
            assert!(matches!(table.add(0, bad), Err(Error::InvalidValue { .. })), "{bad}");
        }
        assert!(Table::zeros(TableSpec::counts(&[usize::MAX, 3])).is_err());
        assert!(check(&BTreeMap::from([("a/b".to_owned(), TableSpec::counts(&[]))])).is_err());
    }

    #[test]
    fn a_member_of_other_tables_and_a_file_that_is_no_pool_are_refused() {
        let mut pool = of(&vec![(true, 1.0, 2.0)]);
        assert!(pool.absorb(&Pool::new(BTreeMap::new())).is_err());
        let refused = |tensors: &[(&str, Tensor)], specs: Option<&str>| {
            let tensors: StateDict = tensors.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
            Pool::from_bytes(&tensors.to_safetensors(specs)).is_err()
        };
        let specs = serde_json::to_string(&specs()).unwrap();
        let (n, half) = (Tensor::from_i64(&[2], &[0, 1]), Tensor::from_i64(&[2, 2], &[0, 1, 0, 1]));
        assert!(!refused(&[("T/n", n.clone()), ("T/sum", half.clone())], Some(&specs)));
        assert!(refused(&[("T/n", n.clone()), ("T/sum", half.clone())], None));
        assert!(refused(&[("T/n", n.clone())], Some(&specs)), "a table is missing");
        assert!(refused(&[("T/n", half.clone()), ("T/sum", half.clone())], Some(&specs)), "another shape");
        assert!(refused(&[("T/x", n), ("T/sum", half.clone())], Some(&specs)), "an unknown table");
        assert!(refused(&[("T/n", Tensor::from_f32(&[2], &[0.0; 2])), ("T/sum", half)], Some(&specs)), "floats");
    }

    #[test]
    fn entries_can_be_left_out() {
        let pool = of(&vec![(true, 1.0, 2.0), (false, 1.0, 2.0)]);
        assert_eq!(pool.retain(|entry| entry == "B cell").entries().collect::<Vec<_>>(), ["B cell"]);
    }
}
