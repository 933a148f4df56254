"""Times scHPL on the cells of one case: learning a tree from three data sets, predicting a fourth, updating with it. Prints one JSON object.

usage: speed_trees.py <folder with cells.h5ad> [--model treearches] [--epochs 1] [--threads 1] [--seed 0]

Seconds are the processor's, of all threads. Needs scHPL 1.0.5 with pandas < 2, numpy < 2, scikit-learn < 1.5, anndata, newick and
matplotlib; FAISS must not be there, so that both sides search exactly.
"""
import argparse, contextlib, copy, io, json, os, sys, time, warnings

ap = argparse.ArgumentParser()
ap.add_argument("folder")
ap.add_argument("--model", default="treearches", choices=["treearches"])
ap.add_argument("--epochs", type=int, default=1)
ap.add_argument("--threads", type=int, default=1)
ap.add_argument("--seed", type=int, default=0)
a = ap.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
os.environ.setdefault("MPLBACKEND", "Agg")
warnings.filterwarnings("ignore")
import anndata as ad, numpy as np, scHPL

out = {"scHPL": "1.0.5"}


def peak_mib():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def timed(kind, work):
    start = time.process_time()
    result = work()
    out[kind] = {"epochs_s": [time.process_time() - start], "peak_mib": peak_mib(), "elbo": None}
    return result


data = ad.read_h5ad(f"{a.folder}/cells.h5ad")
data.obs = data.obs.astype(str)
known, query = data[data.obs.batch != "3"].copy(), np.asarray(data.X[(data.obs.batch == "3").values])
for classifier in ["knn", "svm"]:
    args = dict(batch_key="batch", cell_type_key="label", classifier=classifier)
    with contextlib.redirect_stdout(io.StringIO()):
        tree, _ = timed(f"learn-{classifier}", lambda: scHPL.learn.learn_tree(data=known, batch_order=["0", "1", "2"], **args))
        timed(f"predict-{classifier}", lambda: scHPL.predict.predict_labels(query, tree=tree))
        grown = copy.deepcopy(tree)
        timed(f"update-{classifier}", lambda: scHPL.learn.learn_tree(
            data=data, tree=grown, retrain=False, batch_added=["0", "1", "2"], batch_order=["3"], **args))
json.dump(out, sys.stdout)
