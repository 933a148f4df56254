//! What the cases of scArches' own models say alike.

use archipelago_models::zoo::family::Output;
use ndarray::Array2;
use tch::Tensor;

use crate::case::{Case, Report, Tolerance};

/// Compares what a decoder says of the cells of an evaluation pass.
pub(crate) fn output(case: &Case, output: &Output, theta: Option<&Tensor>, report: &mut Report) {
    let forward = case.tolerance("forward");
    match output {
        Output::Values(values) | Output::Rates(values) => report.close(case, "out.recon_x", values, forward),
        Output::Counts { share, rate, dropout } => {
            report.close(case, "out.dec_mean_gamma", share, forward);
            report.close(case, "out.dec_mean", rate, forward);
            report.close(case, "out.dispersion", theta.unwrap(), forward);
            if let Some(logits) = dropout {
                report.close(case, "out.dec_dropout_logits", logits, forward);
            }
        }
    }
}

/// Compares the gradients of the tensors that train upstream.
pub(crate) fn gradients(
    case: &Case,
    prefix: &str,
    ours: &std::collections::BTreeMap<String, Tensor>,
    tolerance: Tolerance,
    report: &mut Report,
) {
    for (name, _) in case.group(prefix).iter() {
        report.close(case, &format!("{prefix}{name}"), &ours[name], tolerance);
    }
}

/// A matrix as rows.
pub(crate) fn rows(tensor: &Tensor) -> Array2<f32> {
    let (n_rows, n_columns) = tensor.size2().unwrap();
    let values = Vec::<f32>::try_from(tensor.contiguous().reshape(-1)).unwrap();
    Array2::from_shape_vec((n_rows as usize, n_columns as usize), values).unwrap()
}
