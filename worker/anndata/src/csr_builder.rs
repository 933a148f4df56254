//! A sparse matrix that comes in pieces and may be larger than memory.

use crate::{Csr, Error, Growing, Result, Storage};

/// Lays matrices of equal width below each other, in a [`Storage`].
#[derive(Debug)]
pub struct CsrBuilder {
    n_cols: usize,
    indptr: Vec<usize>,
    indices: Growing<u32>,
    data: Growing<f32>,
    storage: Storage,
}

impl CsrBuilder {
    /// A matrix without rows, which will have about `most` stored values (a full disk is told of them).
    pub fn new(n_cols: usize, storage: &Storage, most: usize) -> Self {
        let (indices, data) = (storage.growing(most), storage.growing(most));
        Self { n_cols, indptr: vec![0], indices, data, storage: storage.clone() }
    }

    /// Appends the rows of another matrix.
    ///
    /// # Errors
    /// When its width differs; [`Error::Scratch`] when it does not fit into memory and the disk does not take it.
    pub fn push(&mut self, rows: &Csr) -> Result<()> {
        if rows.n_cols() != self.n_cols {
            let detail = format!("{} columns stacked on {}", rows.n_cols(), self.n_cols);
            return Err(Error::Invalid { kind: "CSR matrix", detail });
        }
        let offset = self.data.len();
        self.indices.extend(rows.indices())?;
        self.data.extend(rows.data())?;
        self.indptr.extend(rows.indptr()[1..].iter().map(|end| end + offset));
        Ok(())
    }

    /// The finished matrix.
    ///
    /// # Errors
    /// [`Error::Scratch`]
    pub fn finish(self) -> Result<Csr> {
        let (indices, data) = (self.indices.finish()?, self.data.finish()?);
        Ok(Csr::built(self.n_cols, self.indptr, indices, data, self.storage))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Some rows, by their dense values: most are zero.
    fn rows() -> impl Strategy<Value = Vec<Vec<f32>>> {
        let value = prop_oneof![3 => Just(0.0_f32), 1 => (1_u8..200).prop_map(f32::from)];
        proptest::collection::vec(proptest::collection::vec(value, 5), 0..24)
    }

    fn built(storage: &Storage, rows: &[Vec<f32>], piece: usize) -> Csr {
        let mut builder = CsrBuilder::new(5, storage, 0);
        for some in rows.chunks(piece) {
            builder.push(&Csr::from_dense(some.len(), 5, &some.concat()).unwrap()).unwrap();
        }
        builder.finish().unwrap()
    }

    proptest! {
        #[test]
        fn a_spilled_matrix_is_the_one_in_memory(
            rows in rows(), budget in 0_u64..400, piece in 1_usize..7, seed in any::<u64>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let storage = Storage::new(budget, folder.path());
            let (spilled, kept) = (built(&storage, &rows, piece), built(&Storage::memory(), &rows, 5));
            prop_assert_eq!(spilled.is_spilled(), 8 * kept.nnz() as u64 > budget);
            prop_assert_eq!(&spilled, &kept);
            prop_assert_eq!(spilled.clone().into_parts(), kept.clone().into_parts());
            prop_assert_eq!(spilled.to_dense(), rows.concat());
            prop_assert_eq!(spilled.row_sums(), kept.row_sums());
            let targets = [Some(1), None, Some(0), Some(1), None];
            prop_assert_eq!(spilled.map_cols(&targets, 2).unwrap(), kept.map_cols(&targets, 2).unwrap());
            prop_assert_eq!(spilled.select_cols(&[4, 0]).unwrap(), kept.select_cols(&[4, 0]).unwrap());
            let n = rows.len();
            let chosen: Vec<usize> = (0..n).filter(|row| seed >> row & 1 == 1).chain(0..n / 2).collect();
            prop_assert_eq!(spilled.select_rows(&chosen), kept.select_rows(&chosen));
            prop_assert_eq!(spilled.select_rows_stored(&chosen).unwrap(), kept.select_rows(&chosen));
            for row in 0..n {
                spilled.will_need(row);
                prop_assert_eq!(spilled.row(row), kept.row(row));
                prop_assert_eq!(spilled.value(row, 3), kept.value(row, 3));
            }
        }
    }

    #[test]
    fn all_rows_in_order_are_shared_and_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::new(0, folder.path());
        let matrix = built(&storage, &[vec![1.0; 5], vec![2.0; 5]], 1);
        let spilled = storage.spilled();
        assert_eq!(matrix.select_rows_stored(&[0, 1]).unwrap(), matrix);
        assert_eq!(storage.spilled(), spilled);
        assert!(matrix.select_rows_stored(&[1]).unwrap().is_spilled());
    }
}
