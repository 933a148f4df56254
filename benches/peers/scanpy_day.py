"""A data scientist's day by our commands, and the same steps in scanpy, on the same real cells.

    cargo build --release -p archipelago-worker
    python benches/peers/scanpy_day.py --worker target/release/archipelago-worker --data ../shared/data

Every file that a command writes is opened with anndata. Prints one line per comparison, what was found and what is asked
for, and exits with 1 if any is missed. Needs scanpy 1.11, scikit-misc, igraph, leidenalg and scib-metrics.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import anndata
import numpy as np
import scanpy as sc
import scipy.sparse as sp
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.distance import cdist
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

warnings.filterwarnings("ignore")


class Day:
    """Commands in a directory, and what was compared."""

    def __init__(self, worker, folder):
        self.worker, self.folder, self.n_missed = worker, pathlib.Path(folder), 0

    def run(self, *args):
        """A command's result as JSON."""
        command = [self.worker, *map(str, args), "--format", "json", "--quiet"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return json.loads(done.stdout)

    def open(self, name):
        return anndata.read_h5ad(self.folder / name)

    def check(self, what, found, bound, least=True):
        holds = found >= bound if least else found <= bound
        self.n_missed += not holds
        sign = ">=" if least else "<="
        print(f"{'ok    ' if holds else 'MISSED'} {what}: {found:.6g} ({sign} {bound:g})")

    def same(self, what, ours, theirs, tolerance):
        ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
        both_undefined = ~np.isfinite(ours) & ~np.isfinite(theirs)
        gap = np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1.0)
        self.check(f"{what}, largest relative difference", float(np.max(np.where(both_undefined, 0, gap))), tolerance, False)


def dense(matrix):
    return matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)


def preprocessing(day, data):
    """Figures of quality, filters, normalisation and highly variable genes of each flavor."""
    raw = data / "pbmc_sorted_hierarchy.h5ad"
    day.run("preprocess", raw, "--min-genes", 150, "--min-cells", 20, "--target-sum", "1e4", "--out", "clean.h5ad")
    ours, theirs = day.open("clean.h5ad"), anndata.read_h5ad(raw)
    theirs.var["mt"] = theirs.var_names.str.startswith("MT-")
    sc.pp.calculate_qc_metrics(theirs, qc_vars=["mt"], percent_top=None, log1p=False, inplace=True)
    sc.pp.filter_cells(theirs, min_genes=150)
    sc.pp.filter_genes(theirs, min_cells=20)
    day.check("cells and genes kept as scanpy keeps them", float(
        list(ours.obs_names) == list(theirs.obs_names) and list(ours.var_names) == list(theirs.var_names)), 1)
    for column in ["total_counts", "n_genes_by_counts", "pct_counts_mt"]:
        day.same(column, ours.obs[column], theirs.obs[column], 1e-5)
    counts = theirs.X.copy()
    sc.pp.normalize_total(theirs, target_sum=1e4)
    sc.pp.log1p(theirs)
    day.same("normalised values", dense(ours.X), dense(theirs.X), 1e-5)
    day.same("counts in a layer", dense(ours.layers["counts"]), dense(counts), 0)
    raw = data / "pbmc_5batch.h5ad"
    for flavor in ["seurat", "cell_ranger", "seurat_v3"]:
        for batch_key in [None, "batch"]:
            flags = ["--batch-key", batch_key] if batch_key else []
            day.run("preprocess", raw, "--target-sum", "1e4", "--n-top-genes", 400, "--flavor", flavor, *flags, "--out", "hvg.h5ad")
            ours, theirs = day.open("hvg.h5ad"), anndata.read_h5ad(raw)
            if flavor != "seurat_v3":
                sc.pp.normalize_total(theirs, target_sum=1e4)
                sc.pp.log1p(theirs)
            try:
                sc.pp.highly_variable_genes(theirs, n_top_genes=400, flavor=flavor, batch_key=batch_key)
            except ValueError as error:
                print(f"       highly variable genes, {flavor}, batch {batch_key}: scanpy gives up ({error})")
                continue
            a, b = set(ours.var_names[ours.var.highly_variable]), set(theirs.var_names[theirs.var.highly_variable])
            day.check(f"highly variable genes, {flavor}, batch {batch_key}, overlap", len(a & b) / len(a | b), 0.995)
            column = "variances_norm" if flavor == "seurat_v3" else "dispersions_norm"
            if flavor == "seurat_v3":
                day.same(f"{column}, {flavor}, batch {batch_key}", np.sort(ours.var[column]), np.sort(theirs.var[column]), 1e-3)
            else:
                day.same(f"{column}, {flavor}, batch {batch_key}", ours.var[column], theirs.var[column], 1e-3)


def joining(day, data):
    """Concatenation, inner and outer."""
    a, b = data / "cite_pbmc5k.h5ad", data / "kang_ifnb_donor101.h5ad"
    for join in ["inner", "outer"]:
        day.run("concat", a, b, "--join", join, "--index-unique", "--label", "lab", "--keys", "x,y", "--out", "both.h5ad")
        ours = day.open("both.h5ad")
        theirs = anndata.concat({"x": anndata.read_h5ad(a), "y": anndata.read_h5ad(b)}, join=join, label="lab", index_unique="-")
        day.check(f"{join} join, same cells", float(list(ours.obs_names) == list(theirs.obs_names)), 1)
        day.check(f"{join} join, same genes", float(set(ours.var_names) == set(theirs.var_names)), 1)
        day.same(f"{join} join, values", dense(ours[:, theirs.var_names].X), np.nan_to_num(dense(theirs.X)), 0)


def pictures(day, data):
    """Components, neighbours, places and clusters."""
    day.run("preprocess", data / "pbmc_5batch.h5ad", "--target-sum", "1e4", "--n-top-genes", 800, "--out", "cells.h5ad")
    day.run("pca", "cells.h5ad", "--n-comps", 30, "--in-place")
    for command in [["neighbors"], ["umap"], ["leiden", "--resolution", 1], ["tsne"]]:
        day.run(command[0], "cells.h5ad", *command[1:], "--in-place")
    ours = day.open("cells.h5ad")
    theirs = ours.copy()
    sc.pp.pca(theirs, n_comps=30, svd_solver="arpack", random_state=0)
    day.same("variance of components", ours.uns["pca"]["variance_ratio"], theirs.uns["pca"]["variance_ratio"], 1e-4)
    day.same("components up to sign", np.abs(ours.obsm["X_pca"][:, :10]), np.abs(theirs.obsm["X_pca"][:, :10]), 2e-2)
    theirs.obsm["X_pca"] = ours.obsm["X_pca"]
    sc.pp.neighbors(theirs, n_neighbors=15, use_rep="X_pca")
    overlap = (ours.obsp["distances"] > 0).multiply(theirs.obsp["distances"] > 0).sum() / (theirs.obsp["distances"] > 0).sum()
    day.check("neighbours that scanpy finds too", float(overlap), 0.99)
    gap = np.abs(ours.obsp["connectivities"] - theirs.obsp["connectivities"])
    day.check("connectivities, mean difference per edge", float(gap.sum() / theirs.obsp["connectivities"].nnz), 0.01, False)
    sc.tl.umap(theirs)
    sc.tl.tsne(theirs, use_rep="X_pca")
    x = ours.obsm["X_pca"]
    for name in ["X_umap", "X_tsne"]:
        a = trustworthiness(x, ours.obsm[name], n_neighbors=15)
        b = trustworthiness(x, theirs.obsm[name], n_neighbors=15)
        print(f"       trustworthiness of {name}: ours {a:.4f}, scanpy's {b:.4f}")
        day.check(f"trustworthiness of {name} beside scanpy's", a - b, -0.01)
    # Their clusters on our graph: two seeds of theirs say how much agreement can be asked for.
    for seed in [0, 1]:
        sc.tl.leiden(theirs, resolution=1, random_state=seed, key_added=f"leiden{seed}", flavor="leidenalg")
    with_ours = max(adjusted_rand_score(ours.obs["leiden"], theirs.obs[f"leiden{seed}"]) for seed in [0, 1])
    among = adjusted_rand_score(theirs.obs["leiden0"], theirs.obs["leiden1"])
    print(f"       Leiden, adjusted Rand index: ours with scanpy's {with_ours:.3f}, scanpy's two seeds {among:.3f}")
    day.check("agreement of Leiden clusters", with_ours, min(0.85, among - 0.1))
    sc.tl.umap(ours)
    sc.tl.leiden(ours, flavor="igraph", n_iterations=2)
    day.check("scanpy goes on from our graph", float(ours.obsm["X_umap"].shape[1]), 2)
    fast = day.run("neighbors", "cells.h5ad", "--method", "approximate", "--out", "fast.h5ad")
    fast = day.open("fast.h5ad")
    exact = ours.obsp["distances"] > 0
    day.check("recall of approximate neighbours", float((fast.obsp["distances"] > 0).multiply(exact).sum() / exact.sum()), 0.95)


def transferred(day, data):
    """Labels by the field's weighted neighbours, written out in NumPy, and the figures of scikit-learn and scib-metrics."""
    for name, batches in [("reference", "10x_3pv1,10x_3pv2,facs_sorted"), ("query", "10x_5p,10x_pbmc3k")]:
        day.run("subset", "cells.h5ad", "--obs", f"batch={batches}", "--out", f"{name}.h5ad")
    result = day.run("transfer", "reference.h5ad", "query.h5ad", "--labels-key", "cell_type", "--use-rep", "X_pca",
                     "--n-neighbors", 50, "--max-uncertainty", 0.2, "--out", "labelled.h5ad")
    reference, query = day.open("reference.h5ad"), day.open("labelled.h5ad")
    x, y = reference.obsm["X_pca"].astype(float), query.obsm["X_pca"].astype(float)
    d = np.sqrt(np.maximum((y**2).sum(1)[:, None] + (x**2).sum(1)[None] - 2 * y @ x.T, 0))
    near = np.argsort(d, axis=1, kind="stable")[:, :50]
    d = np.take_along_axis(d, near, 1)
    w = np.exp(-d / (2 / d.std(1, keepdims=True)) ** 2)
    w /= w.sum(1, keepdims=True)
    labels = reference.obs["cell_type"].to_numpy()[near]
    names = np.unique(labels)
    shares = np.stack([(w * (labels == name)).sum(1) for name in names], 1)
    day.same("uncertainty", query.obs["cell_type_transfer_uncert"], np.maximum(1 - shares.max(1), 0), 1e-4)
    found = query.obs["cell_type_transferred_label_unfiltered"].astype(str).to_numpy()
    day.check("transferred labels", float((found == names[shares.argmax(1)]).mean()), 0.999)
    judged = result["columns"]["cell_type"]["judged"]
    day.same("accuracy", judged["accuracy"], (found == query.obs["cell_type"].astype(str)).mean(), 1e-6)

    figures = day.run("metrics", "cells.h5ad", "--use-rep", "X_pca", "--labels-key", "cell_type", "--batch-key", "batch")
    figures = {figure["name"]: figure["value"] for figure in figures["embeddings"][0][1]["figures"]}
    cells = day.open("cells.h5ad")
    x, labels, batches = cells.obsm["X_pca"], cells.obs["cell_type"].astype(str).to_numpy(), cells.obs["batch"].astype(str).to_numpy()
    day.same("asw_label beside scikit-learn", figures["asw_label"], (silhouette_score(x, labels) + 1) / 2, 1e-5)
    best = 0
    for step in range(1, 21):
        sc.tl.leiden(cells, resolution=step / 10, flavor="igraph", n_iterations=-1, key_added="cluster")
        best = max(best, normalized_mutual_info_score(labels, cells.obs["cluster"]))
    day.same("nmi_leiden beside scanpy and scikit-learn", figures["nmi_leiden"], best, 0.05)
    import scib_metrics

    code = lambda values: np.unique(values, return_inverse=True)[1]
    theirs = scib_metrics.silhouette_label(x, code(labels))
    day.same("asw_label beside scib-metrics", figures["asw_label"], theirs, 1e-4)
    theirs = scib_metrics.silhouette_batch(x, code(labels), code(batches))
    day.same("asw_batch beside scib-metrics", figures["asw_batch"], theirs, 1e-4)
    theirs = scib_metrics.isolated_labels(x, code(labels), code(batches))
    print(f"       isolated labels: ours {figures['isolated_asw']}, scib-metrics {theirs:.4f}")
    on_the_same_neighbours(day, figures, x, code(labels), code(batches))


def exact(x, k):
    """Rows and distances of the `k` nearest other cells of each, nearest first."""
    d = cdist(x.astype(float), x.astype(float))
    np.fill_diagonal(d, np.inf)
    near = np.argsort(d, axis=1, kind="stable")[:, :k]
    return near, np.take_along_axis(d, near, 1)


def on_the_same_neighbours(day, figures, x, labels, batches):
    """Figures of scib-metrics that depend on neighbours, from the neighbours that ours are defined by.

    scib-metrics asks for the neighbours; what it is given decides as much as its formulas. Its graph connectivity takes
    strong components of one-way edges, where scib's (and so ours) joins cells if either is near the other: it is given the
    edges both ways. Its LISI takes neighbours in the embedding, where scib's takes the 90 nearest by paths through the graph
    of connectivities: it is given those. Its kBET counts a cell among its own neighbours.
    """
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults, pynndescent

    n = len(x)
    near, distances = exact(x, 15)
    both_ways = sp.csr_matrix((np.ones(near.size), near.ravel(), np.arange(0, near.size + 1, 15)), shape=(n, n))
    both_ways = both_ways + both_ways.T
    given = NeighborsResults(indices=near, distances=distances)
    one_way = scib_metrics.graph_connectivity(given, labels)
    given.__dict__["knn_graph_distances"] = both_ways.tocsr()
    day.same("graph_connectivity beside scib-metrics", figures["graph_connectivity"], scib_metrics.graph_connectivity(given, labels), 1e-6)
    print(f"       graph connectivity by strong components of one-way edges: {one_way:.4f}")

    paths = dijkstra(day.open("cells.h5ad").obsp["connectivities"], directed=False)
    np.fill_diagonal(paths, np.inf)
    near = np.argsort(paths, axis=1, kind="stable")[:, :90]
    given = NeighborsResults(indices=near, distances=np.take_along_axis(paths, near, 1))
    day.check("cells that reach 90 others", float(np.isfinite(given.distances).all(1).mean()), 1)
    day.same("ilisi beside scib-metrics", figures["ilisi"], scib_metrics.ilisi_knn(given, batches), 2e-3)
    day.same("clisi beside scib-metrics", figures["clisi"], scib_metrics.clisi_knn(given, labels), 2e-3)
    near = pynndescent(x, n_neighbors=90, random_state=0)
    print(f"       on neighbours in the embedding: iLISI {scib_metrics.ilisi_knn(near, batches):.3f}, cLISI {scib_metrics.clisi_knn(near, labels):.3f}")

    accepted = []
    for label in np.unique(labels):
        own, own_batches = x[labels == label], batches[labels == label]
        sizes = np.unique(own_batches, return_counts=True)[1]
        if len(own) < 10 or len(sizes) == 1:
            continue
        k = min(70, max(10, int(sizes.mean() / 4)), len(own) - 1)
        near, distances = exact(own, k)
        near, distances = np.c_[np.arange(len(own)), near], np.c_[np.zeros(len(own)), distances]
        accepted.append(scib_metrics.kbet(NeighborsResults(indices=near, distances=distances), own_batches)[0])
    day.same("kbet beside scib-metrics", figures["kbet"], np.mean(accepted), 1e-3)
    given = pynndescent(x, n_neighbors=50, random_state=0)
    print(f"       kBET by labels on diffusion neighbours: {scib_metrics.kbet_per_label(given, batches, labels):.4f}; ours {figures['kbet']:.4f}")


def proteins_and_sets(day, data):
    """Centred log-ratios and gene sets."""
    day.run("preprocess", data / "cite_pbmc5k.h5ad", "--clr", "protein_expression", "--out", "proteins.h5ad")
    adata = day.open("proteins.h5ad")
    raw = np.asarray(adata.obsm["protein_expression"], float)
    theirs = np.log1p(raw / np.exp(np.log1p(raw).mean(0)))
    day.same("centred log-ratios", np.asarray(adata.obsm["protein_expression_clr"]), theirs, 1e-5)
    day.run("preprocess", data / "kang_ifnb_unlabelled.h5ad", "--gene-sets", data / "reactome_v7.5.1.symbols.gmt",
            "--min-genes-of-set", 12, "--out", "sets.h5ad")
    adata = day.open("sets.h5ad")
    day.check("gene sets in varm and uns", float(adata.varm["I"].shape[1] == len(adata.uns["terms"]) > 100), 1)
    day.check("the smallest set has more than 12 genes", float(dense(adata.varm["I"]).sum(0).min()), 13)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", required=True, help="the program archipelago-worker")
    parser.add_argument("--data", default="../shared/data", help="folder of the real data sets")
    args = parser.parse_args()
    worker, data = pathlib.Path(args.worker).resolve(), pathlib.Path(args.data).resolve()
    with tempfile.TemporaryDirectory() as folder:
        day = Day(str(worker), folder)
        for part in [preprocessing, joining, proteins_and_sets, pictures, transferred]:
            print(f"# {part.__doc__}")
            part(day, data)
    print(f"{day.n_missed} comparisons missed")
    sys.exit(1 if day.n_missed else 0)


if __name__ == "__main__":
    main()
