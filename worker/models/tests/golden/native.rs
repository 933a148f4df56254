//! What the cases of scArches' own models say alike.

use archipelago_models::zoo::family::Output;
use tch::Tensor;

use crate::case::{Case, Report};

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
