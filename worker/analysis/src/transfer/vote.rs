//! Majority vote of the nearest neighbours, each with one voice.

use super::check_rows;
use crate::neighbours::Neighbours;
use crate::{Labels, Result};

/// The most frequent label among each cell's neighbours, over the reference's names; ties go to the first in sort order.
///
/// # Errors   a neighbour row beyond the reference's labels
/// # Source   `KNeighborsClassifier` of scikit-learn with uniform weights
pub fn vote(neighbours: &Neighbours, reference: &Labels) -> Result<Labels> {
    check_rows(neighbours, reference.len())?;
    let mut votes = vec![0u32; reference.names().len()];
    let mut winners = Vec::with_capacity(neighbours.n_cells());
    for (rows, _) in neighbours.iter() {
        votes.fill(0);
        let mut winner = u32::MAX;
        for &row in rows {
            votes[reference.codes()[row as usize] as usize] += 1;
        }
        for (code, &count) in (0u32..).zip(&votes) {
            if winner == u32::MAX || count > votes[winner as usize] {
                winner = code;
            }
        }
        winners.push(winner);
    }
    Labels::from_codes(&winners, reference.names())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_goes_to_the_first_in_sort_order() {
        let reference = Labels::from_names(&["T", "B", "T", "B", "NK"]);
        let neighbours = Neighbours::from_parts(4, vec![0, 1, 2, 3, 4, 0, 2, 1], vec![0.0; 8]).unwrap();
        let voted = vote(&neighbours, &reference).unwrap();
        assert_eq!(voted.iter().collect::<Vec<_>>(), ["B", "T"]);
    }

    #[test]
    fn neighbours_of_another_table_are_refused() {
        let neighbours = Neighbours::from_parts(1, vec![2], vec![0.0]).unwrap();
        assert!(vote(&neighbours, &Labels::from_names(&["B", "T"])).is_err());
    }
}
