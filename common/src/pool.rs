//! Sums that add exactly: what several sites know of one thing, put together without an order.
//!
//! Floating-point addition depends on its order, so two coordinators, or the same one after a withdrawal, could end at
//! different totals. A [`Pool`] keeps every number as an integer multiple of a fixed unit in 128 bits. Addition is then
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

/// One table of a pool: integers, each so many units of `2^-fraction_bits`.
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

    /// What it looks like.
    pub fn spec(&self) -> &TableSpec {
        &self.spec
    }

    /// Adds a number to an entry, rounded once to a whole number of units.
    ///
    /// # Errors  [`Error::InvalidValue`] for NaN, infinity or a number beyond the table's range
    ///
    /// # Panics
    /// If there is no such entry.
    pub fn add(&mut self, entry: usize, value: f64) -> Result<()> {
        // Scaling by a power of two is exact, so the only rounding is the one to a whole number of units.
        let units = (value * 2_f64.powi(self.spec.fraction_bits as i32)).round_ties_even();
        if !units.is_finite() || units.abs() > LARGEST {
            return Err(out_of_range(value));
        }
        self.units[entry] = self.units[entry].checked_add(units as i128).ok_or_else(|| out_of_range(value))?;
        Ok(())
    }

    /// The values, nearest 64-bit floats.
    pub fn to_f64(&self) -> Vec<f64> {
        let unit = 2_f64.powi(-(self.spec.fraction_bits as i32));
        self.units.iter().map(|&units| units as f64 * unit).collect()
    }

    fn absorb(&mut self, other: &Self) -> Result<()> {
        if self.spec != other.spec {
            return Err(differing());
        }
        for (sum, &units) in self.units.iter_mut().zip(&other.units) {
            *sum = sum.checked_add(units).ok_or_else(|| out_of_range(f64::INFINITY))?;
        }
        Ok(())
    }
}

/// Tables that are added up name by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Pool(BTreeMap<String, Table>);

impl Pool {
    /// A pool of zeros.
    ///
    /// # Errors  [`Error::TooLarge`]
    pub fn zeros(tables: &BTreeMap<String, TableSpec>) -> Result<Self> {
        tables
            .iter()
            .map(|(name, spec)| Ok((name.clone(), Table::zeros(spec.clone())?)))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The sum of some members; zeros for none. The same bits in every order.
    ///
    /// # Errors  [`Error::InvalidValue`] if the members' tables differ from `tables`, or a sum leaves the range
    pub fn total<'a>(
        tables: &BTreeMap<String, TableSpec>,
        members: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Self> {
        let mut total = Self::zeros(tables)?;
        members.into_iter().try_for_each(|member| total.absorb(member))?;
        Ok(total)
    }

    /// The table of this name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.0.get(name)
    }

    /// The table of this name, to add to.
    pub fn table_mut(&mut self, name: &str) -> Option<&mut Table> {
        self.0.get_mut(name)
    }

    /// What its tables look like.
    pub fn specs(&self) -> BTreeMap<String, TableSpec> {
        self.0.iter().map(|(name, table)| (name.clone(), table.spec.clone())).collect()
    }

    /// Adds another pool's tables to this one's.
    ///
    /// # Errors  [`Error::InvalidValue`] if the tables differ or a sum leaves the range; this pool is then of no use
    pub fn absorb(&mut self, other: &Self) -> Result<()> {
        if !self.0.keys().eq(other.0.keys()) {
            return Err(differing());
        }
        self.0.values_mut().zip(other.0.values()).try_for_each(|(sum, member)| sum.absorb(member))
    }

    /// The file that travels and is stored; the same bytes for the same sums. Each number is two 64-bit words, the higher
    /// one first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut tensors = StateDict::new();
        for (name, table) in &self.0 {
            let words = table.units.iter().flat_map(|&units| [(units >> 64) as i64, units as i64]);
            let shape: Vec<usize> = table.spec.shape.iter().copied().chain([2]).collect();
            tensors.insert(name.clone(), Tensor::from_i64(&shape, &words.collect::<Vec<_>>()));
        }
        let bits: BTreeMap<&str, u32> =
            self.0.iter().map(|(n, table)| (n.as_str(), table.spec.fraction_bits)).collect();
        let bits = serde_json::to_string(&bits).expect("names and numbers are JSON");
        tensors.to_safetensors(Some(&bits))
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors  [`Error::Decode`], [`Error::TooLarge`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let decode = |detail: String| Error::Decode { what: WHAT, detail };
        let (tensors, bits) = StateDict::from_safetensors(WHAT, bytes)?;
        let bits = bits.ok_or_else(|| decode("the file does not say where the binary point is".to_owned()))?;
        let bits: BTreeMap<String, u32> = serde_json::from_str(&bits).map_err(|e| decode(e.to_string()))?;
        if !tensors.iter().map(|(name, _)| name).eq(bits.keys().map(String::as_str)) {
            return Err(decode("its tables and its binary points have different names".to_owned()));
        }
        let table = |(name, tensor): (&str, &Tensor)| {
            let [shape @ .., 2] = tensor.shape() else {
                return Err(decode(format!("table `{name}` is {}, expected two words for each number", tensor.spec())));
            };
            if tensor.dtype() != DType::I64 {
                return Err(decode(format!("table `{name}` is {}, expected 64-bit integers", tensor.spec())));
            }
            let mut table = Table::zeros(TableSpec { shape: shape.to_vec(), fraction_bits: bits[name] })?;
            for (units, words) in table.units.iter_mut().zip(tensor.to_i64(name)?.chunks_exact(2)) {
                *units = (i128::from(words[0]) << 64) | i128::from(words[1] as u64);
            }
            Ok((name.to_owned(), table))
        };
        tensors.iter().map(table).collect::<Result<_>>().map(Self)
    }
}

const WHAT: &str = "pool";
/// Bits behind the point beyond which a 64-bit float of usual size has none left to give.
const MOST_FRACTION_BITS: u32 = 60;
/// Units of one number that is added, at most 2^96: of a sum there can be 2^31 before it leaves 128 bits.
const LARGEST: f64 = 79_228_162_514_264_337_593_543_950_336.0;

fn out_of_range(value: f64) -> Error {
    Error::InvalidValue { what: "number of a pool", found: value.to_string(), expected: "a number within its range" }
}

fn differing() -> Error {
    Error::InvalidValue { what: "pool", found: "other tables".to_owned(), expected: "the tables of the reference" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tables() -> BTreeMap<String, TableSpec> {
        BTreeMap::from([("n".to_owned(), TableSpec::counts(&[])), ("sum".to_owned(), TableSpec::sums(&[2]))])
    }

    fn of(rows: &[(f32, f32)]) -> Pool {
        let mut pool = Pool::zeros(&tables()).unwrap();
        for &(x, y) in rows {
            pool.table_mut("n").unwrap().add(0, 1.0).unwrap();
            pool.table_mut("sum").unwrap().add(0, x.into()).unwrap();
            pool.table_mut("sum").unwrap().add(1, y.into()).unwrap();
        }
        pool
    }

    fn rows() -> impl Strategy<Value = Vec<(f32, f32)>> {
        proptest::collection::vec((-1e6_f32..1e6, -1e-3_f32..1e-3), 0..20)
    }

    fn total(members: &[&Pool]) -> Pool {
        Pool::total(&tables(), members.iter().copied()).unwrap()
    }

    proptest! {
        #[test]
        fn a_total_is_the_same_bits_in_every_order_and_grouping(a in rows(), b in rows(), c in rows()) {
            let (a, b, c) = (of(&a), of(&b), of(&c));
            let all = total(&[&a, &b, &c]).to_bytes();
            prop_assert_eq!(&all, &total(&[&c, &a, &b]).to_bytes());
            prop_assert_eq!(&all, &total(&[&total(&[&a, &b]), &c]).to_bytes());
            prop_assert_eq!(&all, &total(&[&a, &total(&[&c, &b])]).to_bytes());
        }

        #[test]
        fn the_total_of_sites_is_that_of_all_their_cells(a in rows(), b in rows()) {
            prop_assert_eq!(total(&[&of(&a), &of(&b)]), of(&[a, b].concat()));
        }

        #[test]
        fn a_pool_round_trips(a in rows()) {
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
        let mut pool = Pool::zeros(&tables()).unwrap();
        for value in [-1.0, 1e15, -0.5_f64.powi(40)] {
            pool.table_mut("sum").unwrap().add(0, value).unwrap();
        }
        let read = Pool::from_bytes(&pool.to_bytes()).unwrap();
        assert_eq!(read, pool);
        assert_eq!(read.table("sum").unwrap().units[0], ((1_000_000_000_000_000_i128 - 1) << 40) - 1);
    }

    #[test]
    fn what_is_no_number_of_the_range_is_refused() {
        let mut table = Table::zeros(TableSpec::sums(&[1])).unwrap();
        for bad in [f64::NAN, f64::INFINITY, 1e300] {
            assert!(matches!(table.add(0, bad), Err(Error::InvalidValue { .. })), "{bad}");
        }
        assert!(Table::zeros(TableSpec::counts(&[usize::MAX, 3])).is_err());
    }

    #[test]
    fn members_of_other_tables_are_refused() {
        let mut pool = Pool::zeros(&tables()).unwrap();
        let other = Pool::zeros(&BTreeMap::from([("n".to_owned(), TableSpec::counts(&[]))])).unwrap();
        assert!(pool.absorb(&other).is_err());
        assert!(Pool::from_bytes(&StateDict::new().to_safetensors(None)).is_err());
    }
}
