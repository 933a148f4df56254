//! Equal sequences are computed once. Without dropout a network makes the same of them, and clones have many cells.

use std::{cell::RefCell, collections::BTreeMap};

use tch::{Device, Tensor};

use crate::nn::{Mode, Pass};

/// What a network makes of sequences of tokens; of one that does not train it is kept.
#[derive(Default, Debug)]
pub(super) struct Sequences {
    kept: RefCell<Kept>,
}

/// Whether a network's weights stay as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WeightsOf {
    Frozen,
    Training,
}

/// What is known of sequences: a row each.
#[derive(Debug, Default)]
struct Kept {
    places: BTreeMap<Vec<i64>, i64>,
    rows: Option<Tensor>,
}

impl Sequences {
    /// What `compute` makes of the sequences of cells, `[n, n_tokens]`: a row for each of its input.
    pub(super) fn of(
        &self,
        tokens: &Tensor,
        weights: WeightsOf,
        pass: &mut Pass<'_>,
        compute: impl FnOnce(&Tensor, &mut Pass<'_>) -> Tensor,
    ) -> Tensor {
        if pass.mode == Mode::Training || tokens.device() != Device::Cpu {
            return compute(tokens, pass);
        }
        let mut kept = self.kept.borrow_mut();
        if weights == WeightsOf::Training {
            *kept = Kept::default();
            return Kept::default().of(tokens, pass, compute);
        }
        kept.of(tokens, pass, compute)
    }
}

impl Kept {
    fn of(
        &mut self,
        tokens: &Tensor,
        pass: &mut Pass<'_>,
        compute: impl FnOnce(&Tensor, &mut Pass<'_>) -> Tensor,
    ) -> Tensor {
        let n_tokens = tokens.size()[1] as usize;
        let all: Vec<i64> = Vec::try_from(tokens.contiguous().view(-1)).expect("tokens are integers");
        if self.rows.as_ref().is_some_and(|rows| rows.numel() > MOST_NUMBERS) {
            *self = Self::default();
        }
        let (mut places, mut first_cells) = (Vec::new(), Vec::new());
        for (cell, sequence) in (0_i64..).zip(all.chunks_exact(n_tokens)) {
            let place = match self.places.get(sequence) {
                Some(&place) => place,
                None => {
                    let next = self.places.len() as i64;
                    self.places.insert(sequence.to_vec(), next);
                    first_cells.push(cell);
                    next
                }
            };
            places.push(place);
        }
        if !first_cells.is_empty() {
            let fresh = compute(&tokens.index_select(0, &Tensor::from_slice(&first_cells)), pass);
            self.rows = Some(match self.rows.take() {
                Some(rows) => Tensor::cat(&[rows, fresh], 0),
                None => fresh,
            });
        }
        let rows = self.rows.as_ref().expect("there is a row for each sequence");
        rows.index_select(0, &Tensor::from_slice(&places))
    }
}

/// When this many numbers are known they are forgotten, before the next cells: 32 MiB.
const MOST_NUMBERS: usize = 1 << 23;

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::nn::SeededNoise;

    /// The tokens of cells as numbers, and of how many sequences they were computed.
    fn found((sequences, weights): (&Sequences, WeightsOf), mode: Mode, cells: &[[i64; 2]]) -> (Vec<f64>, i64) {
        let tokens = Tensor::from_slice2(cells);
        let (mut pass, mut n) = (Pass { mode, noise: &mut SeededNoise::new([0; 32]) }, 0);
        let of = sequences.of(&tokens, weights, &mut pass, |tokens, _| {
            n = tokens.size()[0];
            (tokens * Tensor::from_slice(&[10_i64, 1])).sum_dim_intlist([1_i64].as_slice(), true, Kind::Double)
        });
        (Vec::try_from(of.view(-1)).unwrap(), n)
    }

    #[test]
    fn equal_sequences_are_computed_once_and_those_of_a_frozen_network_never_again() {
        let cells = [[1, 2], [3, 4], [1, 2]];
        for (weights, n_later) in [(WeightsOf::Frozen, 1), (WeightsOf::Training, 2)] {
            let sequences = (&Sequences::default(), weights);
            assert_eq!(found(sequences, Mode::Evaluation, &cells), (vec![12.0, 34.0, 12.0], 2));
            assert_eq!(found(sequences, Mode::Evaluation, &[[5, 6], [3, 4]]), (vec![56.0, 34.0], n_later));
            // Dropout makes something else of each cell.
            assert_eq!(found(sequences, Mode::Training, &cells), (vec![12.0, 34.0, 12.0], 3));
        }
    }
}
