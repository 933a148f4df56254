//! What genes say: integrated gradients as they are meant, and with upstream's faults.

use archipelago_models::{
    nn::Mode,
    zoo::sagenet::attribution::{Quadrature, attributions, upstream_attributions, upstream_importance},
};
use tch::Tensor;

use super::{config, holds, network, networks::logits, tolerance};
use crate::case::{Tolerance, run};

pub(super) fn is_one(name: &str) -> bool {
    name == "importance"
}

#[test]
fn what_genes_say_is_what_upstream_says_with_its_faults_and_without() {
    run("sagenet", is_one, |case, report| {
        let double = tolerance(case, "f64");
        let rule = Quadrature::usual();
        report.close(case, "quadrature/alphas", &Tensor::from_slice(&rule.points), double);
        report.close(case, "quadrature/step_sizes", &Tensor::from_slice(&rule.weights), double);

        let network = network(case, &config(case).unwrap(), &case.group("param/"), "in/adj");
        let (x, classes) = (case.tensor("in/X"), Vec::<i64>::try_from(case.tensor("in/y")).unwrap());
        let clean = attributions(&network, &x, &classes);
        report.close(case, "clean/attributions", &clean, double);
        // What the attributions share out: sharply by the network itself. Their sum is it up to the error of the rule, because the
        // rectifier has an edge; that sum is the case's, digit by digit, as the attributions are.
        let own = |x: &Tensor| {
            let found = logits(&network, x, Mode::Evaluation);
            found.gather(1, &case.tensor("in/y").unsqueeze(1), false).squeeze_dim(1)
        };
        report.close(case, "clean/logit_minus_baseline", &(own(&x) - own(&x.zeros_like())), double);

        let minibatch = case.json["batch_size"].as_u64().unwrap() as usize;
        let first =
            upstream_attributions(&network, &x.narrow(0, 0, minibatch as i64), &classes[..minibatch], minibatch);
        report.close(case, "upstream/first_batch_attributions", &first.unwrap(), double);
        let (sums, column) = upstream_importance(&network, &x, &classes, minibatch).unwrap();
        let sums = Tensor::from_slice(sums.as_standard_layout().as_slice().unwrap());
        report.close(case, "upstream/importances", &sums, double);
        let column: Vec<i64> = column.into_iter().map(i64::from).collect();
        report.close(
            case,
            "upstream/importance_column",
            &Tensor::from_slice(&column),
            Tolerance { rtol: 0.0, atol: 0.0 },
        );

        let isolated: Vec<usize> = serde_json::from_value(case.json["isolated_genes"].clone()).unwrap();
        let has = network.graph().has_neighbours();
        holds(
            report,
            case,
            "other genes are isolated",
            has.iter().enumerate().all(|(gene, has)| *has != isolated.contains(&gene)),
        );
    });
}
