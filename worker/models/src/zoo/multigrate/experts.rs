//! How what several modalities say of a cell becomes one posterior.

use tch::Tensor;

use super::config::Mix;

/// Normal posteriors of cells, by mean and log variance, with a draw from each.
#[derive(Debug)]
pub struct Latent {
    /// Mean, `[n, n_latent]`.
    pub mean: Tensor,
    /// Log variance, `[n, n_latent]`; nothing bounds it.
    pub log_var: Tensor,
    /// A draw, `[n, n_latent]`.
    pub z: Tensor,
}

impl Latent {
    /// With a draw by this standard-normal noise.
    pub fn drawn(mean: Tensor, log_var: Tensor, noise: &Tensor) -> Self {
        let z = &mean + (&log_var * 0.5).exp() * noise.to_kind(mean.kind());
        Self { mean, log_var, z }
    }

    /// Number of cells.
    pub(super) fn n(&self) -> usize {
        self.z.size()[0] as usize
    }

    /// Those of some cells.
    pub(super) fn of_cells(&self, cells: &Tensor) -> Self {
        let rows = |tensor: &Tensor| tensor.index_select(0, cells);
        Self { mean: rows(&self.mean), log_var: rows(&self.log_var), z: rows(&self.z) }
    }
}

/// Mean and log variance of the joint posterior.
///
/// # Shapes   each of `experts` `[n, n_latent]`; `present`: `[n, n_modalities]`, 1 where a cell has the modality
/// # Source   product: Lotfollahi, Litinetskaya, Theis 2022; mixture: Multigrate 1.0.1
pub(super) fn mixed(mix: Mix, experts: &[Latent], present: &Tensor) -> (Tensor, Tensor) {
    let weights = |m: usize| present.narrow(1, m as i64, 1);
    match mix {
        Mix::Product => {
            // The prior is an expert that every cell has.
            let (mut precision, mut weighted) = (experts[0].mean.ones_like(), experts[0].mean.zeros_like());
            for (m, expert) in experts.iter().enumerate() {
                let own = weights(m) * (-&expert.log_var).exp();
                weighted += &own * &expert.mean;
                precision += own;
            }
            let var = precision.reciprocal();
            (weighted * &var, var.log())
        }
        Mix::Mixture => {
            let n_present = present.sum_dim_intlist([1_i64].as_slice(), true, present.kind());
            // A cell without any modality is where the prior has it.
            let none = n_present.eq(0.0).to_kind(present.kind());
            let share = |m: usize| weights(m) / n_present.clamp_min(1.0);
            let (mut mean, mut var) = (experts[0].mean.zeros_like(), experts[0].mean.zeros_like() + none);
            for (m, expert) in experts.iter().enumerate() {
                mean += share(m) * &expert.mean;
                var += share(m).square() * expert.log_var.exp();
            }
            (mean, var.log())
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn expert(mean: f64, var: f64) -> Latent {
        let full = |value: f64| Tensor::full([2, 1], value, (Kind::Double, Device::Cpu));
        Latent { mean: full(mean), log_var: full(var.ln()), z: full(mean) }
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(tensor.reshape(-1)).unwrap()
    }

    #[test]
    fn a_cell_without_any_modality_is_where_the_prior_is() {
        let present = Tensor::from_slice(&[1.0, 1.0, 0.0, 0.0]).view([2, 2]);
        for mix in [Mix::Product, Mix::Mixture] {
            let (mean, log_var) = mixed(mix, &[expert(2.0, 1.0), expert(-1.0, 0.5)], &present);
            assert_eq!((values(&mean)[1], values(&log_var)[1]), (0.0, 0.0), "{mix:?}");
        }
        let (mean, log_var) = mixed(Mix::Product, &[expert(2.0, 1.0), expert(-1.0, 0.5)], &present);
        // Precisions 1 + 1 + 2, weighted means 2 − 2.
        assert!(values(&mean)[0].abs() < 1e-12 && (values(&log_var)[0] - 0.25_f64.ln()).abs() < 1e-12);
        let (mean, log_var) = mixed(Mix::Mixture, &[expert(2.0, 1.0), expert(-1.0, 0.5)], &present);
        assert!((values(&mean)[0] - 0.5).abs() < 1e-12 && (values(&log_var)[0] - 0.375_f64.ln()).abs() < 1e-12);
    }
}
