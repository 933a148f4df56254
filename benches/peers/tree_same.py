#!/usr/bin/env python3
"""Whether our trees and scHPL's are the same on real cells: both learn, predict and update on one latent space.

    python benches/peers/tree_same.py target/release/archipelago-worker pbmc_5batch.h5ad cell_type
    python benches/peers/tree_same.py target/release/archipelago-worker pbmc_sorted_hierarchy.h5ad label_fine

The space is ten principal components of log-normalised counts. Data sets are the batches, the query those of obs column
`split`; without it three random parts. Needs what `speed_trees.py` needs. `svm converged` gives scHPL a solver that ends.
"""
import contextlib, copy, io, json, os, subprocess, sys, tempfile, warnings

os.environ.setdefault("MPLBACKEND", "Agg")
warnings.filterwarnings("ignore")
import anndata as ad, numpy as np, scHPL, scHPL.train
from sklearn import svm
from sklearn.decomposition import PCA


class Converged(svm.LinearSVC):
    def __init__(self, random_state=1):
        super().__init__(random_state=random_state, dual=False, tol=1e-8, max_iter=100_000)

    def get_params(self, deep=True):
        return {"random_state": self.random_state}


def plain(node):
    return {"name": [str(n) for n in node.name], "children": [plain(c) for c in node.descendants]}


def main():
    worker, path, key = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3]
    a = ad.read_h5ad(path)
    x = np.asarray(a.X.todense(), dtype=np.float32)
    logs = np.log1p(x / np.maximum(x.sum(1, keepdims=True), 1) * 1e4)
    if "split" in a.obs:
        part, query = a.obs.batch.astype(str).values, (a.obs.split == "query").values
    else:
        cut = np.round(np.cumsum((.4, .4)) * a.n_obs).astype(int)
        drawn = np.random.default_rng(0).permutation(np.repeat(np.arange(3), np.diff([0, *cut, a.n_obs])))
        part, query = np.array([f"part{i}" for i in drawn]), drawn == 2
    b = ad.AnnData(PCA(10, random_state=0).fit(logs[~query]).transform(logs).astype(np.float32), obs=a.obs[[]].copy())
    b.obs["part"], b.obs["label"], b.obs["query"] = part, [f"{t}-{p}" for t, p in zip(a.obs[key].astype(str), part)], query
    b = b[b.obs.label.map(b.obs.label.value_counts()).values > 1].copy()
    ref, qry = b[~b.obs["query"].values].copy(), b[b.obs["query"].values].copy()
    order, new = sorted(set(ref.obs.part)), sorted(set(qry.obs.part))
    os.chdir(tempfile.mkdtemp())
    b.write_h5ad("b.h5ad"), qry.write_h5ad("q.h5ad")
    run = lambda *args: subprocess.run([worker, "tree", *args, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    tree_of = lambda folder: json.load(open(f"{folder}/tree.json"))["tree"]
    original = svm.LinearSVC
    for name in ("knn", "svm", "svm converged"):
        scHPL.train.svm.LinearSVC = Converged if "converged" in name else original
        clf = name.split()[0]
        args = dict(batch_key="part", cell_type_key="label", classifier=clf)
        with contextlib.redirect_stdout(io.StringIO()):
            tree, _ = scHPL.learn.learn_tree(data=ref, batch_order=order, **args)
            labels, _ = scHPL.predict.predict_labels(qry.X, tree=tree)
            grown, _ = scHPL.learn.learn_tree(data=b, tree=copy.deepcopy(tree), retrain=False, batch_added=order, batch_order=new, **args)
        run("learn", "b.h5ad", "--use-rep", "X", "--batch-key", "part", "--labels-key", "label", "--order", ",".join(order),
            "--classifier", clf, "--upstream-rules", "--out", "t", "--overwrite")
        run("predict", "t", "q.h5ad", "--out", "p.h5ad", "--overwrite")
        run("update", "t", "b.h5ad", "--order", ",".join(new), "--out", "l", "--overwrite")
        found = ad.read_h5ad("p.h5ad").obs.tree_label.astype(str).values
        same = sum(f == l for f, l in zip(found, map(str, labels)))
        print(f"{name:14} tree the same: {tree_of('t') == plain(tree[0])}, updated tree the same: {tree_of('l') == plain(grown[0])}, "
              f"labels the same: {same} of {len(found)}")


main()
