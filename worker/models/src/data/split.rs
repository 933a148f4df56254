//! Which cells are trained on, which validate, which are left for a test.

use super::RandomState;

/// Share of cells that is trained on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum TrainSize {
    /// The field's 0.9; a remainder of one or two cells in the last minibatch leaves the training set.
    Default,
    /// A share that was chosen; all of it is used.
    Share(f64),
}

/// Positions of the cells in each part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Split {
    /// Cells to train on.
    pub train: Vec<usize>,
    /// Cells to validate on.
    pub validation: Vec<usize>,
    /// The rest.
    pub test: Vec<usize>,
}

impl TrainSize {
    /// The field's share.
    pub const DEFAULT_SHARE: f64 = 0.9;

    /// The share.
    pub fn share(self) -> f64 {
        match self {
            Self::Default => Self::DEFAULT_SHARE,
            Self::Share(share) => share,
        }
    }
}

impl Split {
    /// Splits `n_cells` cells in the order of `numpy.random.RandomState(seed).permutation`: validation, training, rest.
    pub fn new(n_cells: usize, size: TrainSize, validation: Option<f64>, minibatch: usize, seed: u32) -> Self {
        let (n_train, n_validation) = Self::sizes(n_cells, size, validation, minibatch);
        let order = RandomState::new(seed).permutation(n_cells);
        let (held_out, rest) = order.split_at(n_validation);
        let (train, test) = rest.split_at(n_train);
        Self { train: train.to_vec(), validation: held_out.to_vec(), test: test.to_vec() }
    }

    /// Splits groups of cells one by one, with the same shares and seed, and joins the parts in order of the groups. The
    /// shares count as chosen: no cell leaves the training set for the size of its last minibatch.
    pub fn of_groups(groups: &[Vec<usize>], size: TrainSize, validation: Option<f64>, seed: u32) -> Self {
        let share = size.share();
        let mut joined = Self { train: vec![], validation: vec![], test: vec![] };
        for group in groups {
            let part = Self::new(group.len(), TrainSize::Share(share), validation, 1, seed);
            joined.train.extend(part.train.iter().map(|&i| group[i]));
            joined.validation.extend(part.validation.iter().map(|&i| group[i]));
            joined.test.extend(part.test.iter().map(|&i| group[i]));
        }
        joined
    }

    /// Numbers of training and validation cells.
    pub fn sizes(n_cells: usize, size: TrainSize, validation: Option<f64>, minibatch: usize) -> (usize, usize) {
        let share = size.share();
        let n = n_cells as f64;
        let n_train = ((share * n).ceil() as usize).min(n_cells);
        let n_validation = match validation {
            None => n_cells - n_train,
            Some(share) => ((share * n).floor() as usize).min(n_cells - n_train),
        };
        let remainder = n_train % minibatch.max(1);
        if size != TrainSize::Default || !(1..=2).contains(&remainder) || n_train == remainder {
            return (n_train, n_validation);
        }
        // The removed cells join validation, or the test set where there is no validation.
        let n_validation = if n_validation > 0 { n_validation + remainder } else { 0 };
        (n_train - remainder, n_validation)
    }
}
