//! What cells say together: sums of the terms of a loss, and how these add up to one.

/// Sums over cells, in nats.
#[derive(Clone, Copy, Default, Debug)]
pub struct Terms {
    /// Loss with the warm-up weight.
    pub loss: f64,
    /// Negative ELBO.
    pub negative_elbo: f64,
    /// Negative log-likelihood.
    pub reconstruction: f64,
    /// Figures of the model's own.
    pub further: Further,
}

/// Figures beyond those that every model has, by their names; each is the sum over cells, or that of a minibatch once for each of its
/// cells.
#[derive(Clone, Copy, Default, Debug)]
pub struct Further([Option<(&'static str, f64)>; MOST]);

impl Terms {
    /// All divided by a number.
    #[must_use]
    pub fn over(self, n: f64) -> Self {
        let mut further = Further::default();
        self.further.iter().for_each(|(name, value)| further.add(name, value / n));
        let (loss, negative_elbo, reconstruction) = (self.loss / n, self.negative_elbo / n, self.reconstruction / n);
        Self { loss, negative_elbo, reconstruction, further }
    }

    /// Adds the sums over other cells.
    pub fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.negative_elbo += other.negative_elbo;
        self.reconstruction += other.reconstruction;
        other.further.iter().for_each(|(name, value)| self.further.add(name, value));
    }
}

impl Further {
    /// Adds to a figure.
    ///
    /// # Panics  if there are more figures than any model has: our own defect
    pub fn add(&mut self, name: &'static str, value: f64) {
        let is_it = |slot: &&mut Option<(&'static str, f64)>| slot.is_none_or(|(own, _)| own == name);
        let slot = self.0.iter_mut().find(is_it).expect("no model has so many figures");
        *slot = Some((name, slot.map_or(value, |(_, sum)| sum + value)));
    }

    /// All figures.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.0.iter().copied().flatten()
    }
}

/// How the terms of a pass add up to a loss.
#[derive(Clone, Copy)]
pub(super) struct Objective {
    /// Factors of the cells' sum and of the labelled cells' cross entropy.
    pub(super) cells: f32,
    pub(super) labelled: f32,
    pub(super) kl_weight: f64,
    /// Whether gradients are wanted.
    pub(super) differentiates: bool,
}

impl Default for Objective {
    /// Sums over cells, without gradients.
    fn default() -> Self {
        Self { cells: 1.0, labelled: 1.0, kl_weight: 0.0, differentiates: false }
    }
}

/// Figures of a model's own.
const MOST: usize = 8;
