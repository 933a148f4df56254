//! SageNet without its networks, computed by scArches 0.6.1 with scikit-learn 1.6.1 and leidenalg 0.12.

use archipelago_analysis::graph::Edge;
use archipelago_analysis::space::{
    Alphas, DistanceMap, confidence, directed_modularity, entropies, gene_network, spatial_graph, spatial_partitions,
};
use ndarray::Array2;
use serde_json::Value;

use crate::case::Case;

#[test]
fn networks_of_genes_are_scikit_learn_s() {
    for name in ["glasso_list", "glasso_grid"] {
        let case = Case::read("sagenet", name);
        let alphas = match &case.facts["alphas"] {
            Value::Array(given) => Alphas::Given(given.iter().map(|alpha| alpha.as_f64().unwrap()).collect()),
            n => Alphas::Grid(n.as_u64().unwrap() as usize),
        };
        let found = gene_network(case.matrix("in/X").view(), &alphas).unwrap();
        case.close("alpha", &[found.alpha], &[case.facts["chosen_alpha"].as_f64().unwrap()], (1e-6, 0.0));
        assert_eq!(found.n_sweeps as u64, case.facts["iterations"].as_u64().unwrap(), "{name}");
        // The last penalty of the case, 0, is not one to choose.
        let alphas = case.matrix("out/cv_alphas").into_raw_vec_and_offset().0;
        case.close("penalties", &found.alphas, &alphas[..alphas.len() - 1], (1e-6, 0.0));
        let scores = case.matrix("out/cv_split_scores");
        for (at, of_alpha) in found.scores.iter().enumerate() {
            case.close("scores", of_alpha, &scores.column(at).to_vec(), (1e-4, 0.0));
        }
        let flat = |matrix: &Array2<f64>| matrix.iter().copied().collect::<Vec<f64>>();
        case.close("precision", &flat(&found.precision), &flat(&case.matrix("out/precision")), (1e-3, 1e-4));
        case.close("covariance", &flat(&found.covariance), &flat(&case.matrix("out/covariance")), (1e-3, 1e-4));
        let adjacency = case.matrix("out/adj");
        let n = adjacency.nrows();
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let expected: Vec<(usize, usize)> = pairs.filter(|&(i, j)| adjacency[[i, j]] != 0.0).collect();
        assert_eq!(found.edges(), expected, "{name}");
    }
}

#[test]
fn partitions_are_as_good_as_leidenalg_s() {
    let case = Case::read("sagenet", "leiden_partitions");
    let adjacency = case.matrix("in/adj");
    let edge = |((i, j), &weight): ((usize, usize), &f64)| Edge { head: i as u32, tail: j as u32, weight };
    let edges: Vec<Edge> = adjacency.indexed_iter().filter(|(_, weight)| **weight > 0.0).map(edge).collect();
    let positions = case.matrix("in/xy").mapv(|value| value as f32);
    let mut own = spatial_graph(positions.view(), 6).unwrap();
    own.sort_by_key(|edge| (edge.head, edge.tail));
    assert_eq!(own, edges, "the graph of six nearest neighbours");
    let results = case.facts["results"].as_array().unwrap();
    let resolutions: Vec<f64> = results.iter().map(|facts| facts["resolution"].as_f64().unwrap()).collect();
    let found = spatial_partitions(&edges, adjacency.nrows(), &resolutions, 0).unwrap();
    for ((parts, facts), &resolution) in found.iter().zip(results).zip(&resolutions) {
        let labels: Vec<u32> = case.matrix(&format!("labels/{resolution:?}")).iter().map(|&l| l as u32).collect();
        let expected = facts["quality"].as_f64().unwrap();
        assert!((directed_modularity(&edges, &labels, resolution) - expected).abs() < 1e-9, "at {resolution}");
        let quality = directed_modularity(&edges, parts, resolution);
        assert!(quality >= 0.99 * expected, "at {resolution}: {quality}, upstream reaches {expected}");
        let mut sizes = vec![0; 1 + *parts.iter().max().unwrap() as usize];
        parts.iter().for_each(|&part| sizes[part as usize] += 1);
        assert!(sizes.is_sorted_by(|a, b| a >= b), "at {resolution}: {sizes:?}");
    }
}

#[test]
fn a_map_from_given_probabilities_is_upstream_s() {
    let case = Case::read("sagenet", "query_mapping");
    let tolerance = (1e-7, 1e-9);
    let mut map = DistanceMap::new(case.matrix("in/X").nrows());
    let mut of_all = Vec::new();
    for tag in case.facts["model_order"].as_array().unwrap() {
        let tag = tag.as_str().unwrap();
        let probabilities = case.matrix(&format!("out/{tag}/prob"));
        let found = entropies(probabilities.view());
        let one_hot = case.matrix(&format!("draw/{tag}"));
        let drawn: Vec<usize> =
            one_hot.rows().into_iter().map(|row| row.iter().position(|&drawn| drawn == 1.0).unwrap()).collect();
        map.add(probabilities.view(), &drawn).unwrap();
        of_all.push(found);
    }
    let flat = |matrix: Array2<f64>| matrix.into_iter().collect::<Vec<f64>>();
    case.close("distances", &flat(map.distances().to_owned()), &flat(case.matrix("out/dist_map")), tolerance);
    case.close("confidence", &confidence(&of_all).unwrap(), &flat(case.matrix("out/confidence")), tolerance);
}
