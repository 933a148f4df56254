#!/usr/bin/env python3
"""scHPL on the cells of the example `hierarchy` of the analysis crate, timed: processor seconds of one thread.

    RAYON_NUM_THREADS=1 cargo run --release -p archipelago-analysis --example hierarchy -- 10000 10 10 knn cells.f32
    python benches/peers/tree_speed.py cells.f32 10 10 knn

Needs scHPL 1.0.5 with pandas < 2, numpy < 2, scikit-learn < 1.3, anndata, newick and matplotlib; FAISS must not be
there, so that both sides search exactly. Set OMP_NUM_THREADS=1.
"""
import copy, sys, time, warnings

warnings.filterwarnings("ignore")
import anndata as ad, numpy as np, pandas as pd, scHPL


def main():
    path, n_dims, n_types, classifier = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), (sys.argv[4:] or ["knn"])[0]
    x = np.fromfile(path, "<f4").reshape(-1, n_dims)
    cell = np.arange(len(x))
    batch = (cell % 4).astype(str)
    label = np.array([f"type{t:02}-{b}" for t, b in zip(cell // 4 % n_types, batch)])
    data = ad.AnnData(x, obs=pd.DataFrame({"batch": batch, "label": label}, index=cell.astype(str)))
    args = dict(batch_key="batch", cell_type_key="label", classifier=classifier.replace("-", "_"))

    def timed(name, work):
        start = time.process_time()
        result = work()
        print(f"{name:8} {time.process_time() - start:8.2f} s", file=sys.stderr)
        return result

    known = data[data.obs.batch != "3"].copy()
    tree, _ = timed("learn", lambda: scHPL.learn.learn_tree(data=known, batch_order=["0", "1", "2"], **args))
    query = x[batch == "3"]
    timed("predict", lambda: scHPL.predict.predict_labels(query, tree=tree))
    grown = copy.deepcopy(tree)
    timed("update", lambda: scHPL.learn.learn_tree(data=data, tree=grown, retrain=False, batch_added=["0", "1", "2"], batch_order=["3"], **args))


main()
