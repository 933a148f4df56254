//! What pulls groups of cells, and modalities of the same cells, together.

use std::collections::BTreeSet;

use tch::{Kind, Tensor};

use super::{
    config::{Alignment, KernelType, MultigrateConfig, Release},
    experts::Latent,
};
use crate::{fast::discrepancy_within, losses::mmd::Coefficients};

/// How far apart latent states are, a scalar: those of groups jointly, those of modalities and of groups in each, or both, as
/// the options say.
///
/// # Shapes   `marginal`: one for each modality; `present`: `[n, n_modalities]`, 1 where a cell has the modality; `groups`: `[n]`
pub(super) fn alignment(
    config: &MultigrateConfig,
    joint: &Latent,
    marginal: &[Latent],
    present: &Tensor,
    groups: &Tensor,
) -> Tensor {
    let zero = Tensor::zeros([], (joint.z.kind(), joint.z.device()));
    let Some(kind) = config.modality_alignment else { return zero };
    let apart = |one: &Latent, other: &Latent| match kind {
        Alignment::Mmd => {
            let both = || Tensor::cat(&[&one.z, &other.z], 0);
            let codes = || [vec![0; one.n()], vec![1; other.n()]].concat();
            let by_kernels =
                (config.kernel_type == KernelType::Gaussian).then(|| of_groups(&both(), codes())).flatten();
            by_kernels.unwrap_or_else(|| discrepancy(config.kernel_type, &one.z, &other.z))
        }
        Alignment::Jeffreys => jeffreys(one, other),
    };
    let between_groups = |latent: &Latent, groups: &Tensor| {
        if (kind, config.kernel_type) == (Alignment::Mmd, KernelType::Gaussian)
            && let Some(sum) = of_groups(&latent.z, codes_of(groups))
        {
            return sum;
        }
        let each: Vec<Latent> = members(groups).iter().map(|cells| latent.of_cells(cells)).collect();
        let pairs = each.iter().enumerate().flat_map(|(i, one)| each[i + 1..].iter().map(move |other| (one, other)));
        pairs.fold(zero.shallow_clone(), |sum, (one, other)| sum + apart(one, other))
    };
    let mut terms = Vec::new();
    if config.alignment_type.joint() {
        terms.push(between_groups(joint, groups));
    }
    if config.alignment_type.marginal() {
        let has = |m: usize| present.select(1, m as i64).ne(0.0);
        for i in 0..marginal.len() {
            for j in i + 1..marginal.len() {
                let both = match config.release {
                    Release::Current => has(i).logical_and(&has(j)),
                    // It means both too, and takes the cells that lack the first one with them.
                    Release::Legacy => has(j),
                };
                let both = both.nonzero().view(-1);
                if both.numel() > 0 {
                    terms.push(apart(&marginal[i].of_cells(&both), &marginal[j].of_cells(&both)));
                }
            }
        }
        for (i, latent) in marginal.iter().enumerate() {
            let cells = has(i).nonzero().view(-1);
            terms.push(between_groups(&latent.of_cells(&cells), &groups.index_select(0, &cells)));
        }
    }
    terms.into_iter().fold(zero, |sum, term| sum + term)
}

/// The sum of the discrepancies of every two groups of rows, by the kernels where they can compute it.
fn of_groups(z: &Tensor, groups: Vec<i64>) -> Option<Tensor> {
    let mut coefficients = Coefficients::default();
    if !coefficients.set_pairs(groups, 2, |_, _| true) {
        return Some(Tensor::zeros([], (z.kind(), z.device())));
    }
    let sum = discrepancy_within(z, &coefficients, &GAMMAS.map(|gamma| -gamma as f32))?;
    Some(sum / GAMMAS.len() as f64)
}

fn codes_of(groups: &Tensor) -> Vec<i64> {
    Vec::try_from(groups).expect("codes are integers")
}

/// The cells of each group, by ascending code.
fn members(groups: &Tensor) -> Vec<Tensor> {
    let codes: BTreeSet<i64> = codes_of(groups).into_iter().collect();
    codes.into_iter().map(|code| groups.eq(code).nonzero().view(-1)).collect()
}

/// Maximum mean discrepancy of two sets of rows, a scalar; 0 where one of them is a single row.
fn discrepancy(kernel: KernelType, x: &Tensor, y: &Tensor) -> Tensor {
    if x.size()[0] < 2 || y.size()[0] < 2 {
        return Tensor::zeros([], (x.kind(), x.device()));
    }
    let mean = |tensor: Tensor| tensor.mean(None::<Kind>);
    match kernel {
        KernelType::Gaussian => mean(gaussians(x, x)) + mean(gaussians(y, y)) - mean(gaussians(x, y)) * 2.0,
        KernelType::Moments => {
            let centre = |rows: &Tensor| rows.mean_dim([0_i64].as_slice(), true, None::<Kind>);
            let covariance = |rows: &Tensor| {
                let centred = rows - centre(rows);
                centred.tr().matmul(&centred) / (rows.size()[0] - 1) as f64
            };
            mean((centre(x) - centre(y)).square()) + mean((covariance(x) - covariance(y)).square())
        }
    }
}

/// A mean of Gaussians of every two rows. Distances are squared from the start: the root's gradient at 0, which upstream takes as 0,
/// is never asked for.
fn gaussians(x: &Tensor, y: &Tensor) -> Tensor {
    let squared = (x.unsqueeze(1) - y.unsqueeze(0)).square().sum_dim_intlist([-1_i64].as_slice(), false, x.kind());
    let sum = GAMMAS.iter().map(|gamma| (&squared * -gamma).exp()).reduce(|sum, one| sum + one);
    sum.expect("there are gammas") / GAMMAS.len() as f64
}

/// Divergence of the posteriors of two sets of cells in both directions, row by row, a mean over all numbers. The sets are of one
/// size: the recipe refuses a run where they would not be, as upstream does in the middle of it.
fn jeffreys(one: &Latent, other: &Latent) -> Tensor {
    let squared = (&one.mean - &other.mean).square();
    let divergence = |p: &Tensor, q: &Tensor| ((q - p) + (p.exp() + &squared) / q.exp() - 1.0) * 0.5;
    let both = (divergence(&one.log_var, &other.log_var), divergence(&other.log_var, &one.log_var));
    both.0.mean(None::<Kind>) + both.1.mean(None::<Kind>)
}

/// Of Gaussians `exp(-gamma |u - v|²)`.
const GAMMAS: [f64; 19] =
    [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 100.0, 1e3, 1e4, 1e5, 1e6];

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tch::Device;

    use super::*;
    use crate::{
        model::Config,
        nn::{Noise, SeededNoise},
    };

    /// The alignment of two modalities in three groups, one of them of a single cell, and its gradients, in this precision.
    fn aligned(drawn: &[Tensor; 3], kind: Kind) -> Vec<Tensor> {
        let leaves = drawn.each_ref().map(|drawn| drawn.to_kind(kind).detach().set_requires_grad(true));
        let of = |z: &Tensor| Latent { mean: z.shallow_clone(), log_var: z.shallow_clone(), z: z.shallow_clone() };
        let options = Config::from([
            ("modality_alignment".to_owned(), json!("MMD")),
            ("alignment_type".to_owned(), json!("both")),
        ]);
        let groups = Tensor::from_slice(&[vec![0_i64; 9], vec![2; 11], vec![1]].concat());
        // The second modality is that of all cells but four.
        let present = Tensor::ones([21, 2], (kind, Device::Cpu));
        let _ = present.narrow(0, 3, 4).select(1, 1).zero_();
        let marginal = [of(&leaves[1]), of(&leaves[2])];
        let config = MultigrateConfig::parse(&options).unwrap();
        let value = alignment(&config, &of(&leaves[0]), &marginal, &present, &groups);
        value.backward();
        [value.detach()].into_iter().chain(leaves.iter().map(Tensor::grad)).collect()
    }

    #[test]
    fn the_kernels_align_as_autograd_does() {
        let mut noise = SeededNoise::new([1; 32]);
        let drawn = [0; 3].map(|_| noise.normal("states", &[21, 4], Device::Cpu));
        for (at, (ours, theirs)) in aligned(&drawn, Kind::Float).iter().zip(&aligned(&drawn, Kind::Double)).enumerate()
        {
            let off = ((ours - theirs).abs().max() / theirs.abs().max()).double_value(&[]);
            assert!(theirs.abs().max().double_value(&[]) > 1e-3 && off < 1e-4, "{at}: off by {off}");
        }
    }
}
