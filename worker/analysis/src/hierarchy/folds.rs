//! Folds of a cross-validation, the same as scikit-learn's `StratifiedKFold(5, shuffle=True, random_state=0)`: thresholds
//! that come from them are upstream's, digit by digit.

use rand_mt::Mt;

use crate::{AnalysisError, Labels, Result};

/// The fold of each cell; every label is spread over all folds.
///
/// # Errors   [`AnalysisError::TooFew`] when no label has a cell for every fold
pub(super) fn stratified(labels: &Labels, n_folds: usize) -> Result<Vec<usize>> {
    // Labels by first appearance, as the reference encodes them.
    let mut rank = vec![usize::MAX; labels.names().len()];
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (cell, &code) in labels.codes().iter().enumerate() {
        let rank = &mut rank[code as usize];
        if *rank == usize::MAX {
            *rank = members.len();
            members.push(Vec::new());
        }
        members[*rank].push(cell);
    }
    let largest = members.iter().map(Vec::len).max().unwrap_or(0);
    if largest < n_folds {
        let (needed, found) = (n_folds, largest);
        return Err(AnalysisError::TooFew {
            step: "the threshold of reconstruction",
            unit: "cells of some type",
            needed,
            found,
        });
    }
    let mut random = Mt::new(0);
    let mut folds = vec![0; labels.len()];
    let mut n_before = 0;
    for cells in &members {
        // Dealt out in turn over all cells sorted by label.
        let mut of_label = vec![0; n_folds];
        (n_before..n_before + cells.len()).for_each(|place| of_label[place % n_folds] += 1);
        n_before += cells.len();
        let mut dealt: Vec<usize> = (0..n_folds).flat_map(|fold| vec![fold; of_label[fold]]).collect();
        shuffle(&mut dealt, &mut random);
        cells.iter().zip(dealt).for_each(|(&cell, fold)| folds[cell] = fold);
    }
    Ok(folds)
}

/// The shuffle of NumPy's `RandomState`: from the end, numbers beyond the bound are drawn again.
fn shuffle(values: &mut [usize], random: &mut Mt) {
    for last in (1..values.len()).rev() {
        let mask = u32::MAX.checked_shr((last as u32).leading_zeros()).unwrap_or(0);
        let drawn = loop {
            let drawn = (random.next_u32() & mask) as usize;
            if drawn <= last {
                break drawn;
            }
        };
        values.swap(last, drawn);
    }
}
