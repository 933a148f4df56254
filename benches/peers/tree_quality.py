#!/usr/bin/env python3
"""Quality of trees of cell types learned by our own commands on real cells, by the figures of the upstream baselines.

    python benches/peers/tree_quality.py --worker target/release/archipelago-worker --data pbmc_5batch.h5ad \\
        --labels-key cell_type --coarse-key lineage --seeds 0,1,2 --peer BASELINES_external.json --out trees

Recipe: scVI with two layers, layer norm and ten latent dimensions on the reference for 80 epochs, surgery for 50; labels
made unique per data set; the tree of the reference data sets, prediction of the query, update with the query's labels,
and a tree whose first data set knows coarse labels only. With obs column `split` data sets are the batches, else three
random parts. Needs anndata and scikit-learn. Writes `<out>/summary.json` and prints a table; a figure passes if it is
better than the peer's mean or within two of the peer's standard deviations.
"""
import argparse, json, os, subprocess, warnings

warnings.filterwarnings("ignore")
import anndata as ad, numpy as np
from sklearn.metrics import f1_score

REJECTED = ("Rejected (RE)", "Rejection (dist)", "root")
LOWER = ("wrong", "rejected", "coarser", "missing_populations", "labels_lost", "nodes")


def run(o, *args):
    out = subprocess.run([o.worker, *map(str, args), "--format", "json", "--quiet"], capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(f"{args} failed:\n{out.stderr}")
    return json.loads(out.stdout)


class Tree:
    """A tree as `tree.json` holds it, with the path from the root of every label."""

    def __init__(self, folder):
        self.root = json.load(open(f"{folder}/tree.json"))["tree"]
        self.path, self.nodes = {}, []
        self.walk(self.root, ())

    def walk(self, node, above):
        path = above + (node["name"][0],)
        self.nodes.append((node, path))
        for name in node["name"]:
            self.path[name] = path
        for child in node["children"]:
            self.walk(child, path)


def below(a, b):
    return a[: len(b)] == b


def score_matches(tree, type_of, part_of, missing):
    labels = [l for l in type_of if l in tree.path]
    pairs = [(tree.path[p], tree.path[q], type_of[p] == type_of[q]) for i, p in enumerate(labels) for q in labels[:i] if part_of[p] != part_of[q]]
    node = np.array([a == b for a, b, _ in pairs])
    path = np.array([below(a, b) or below(b, a) for a, b, _ in pairs])
    true = np.array([t for *_, t in pairs])
    return {"match_recall": (node & true).sum() / max(true.sum(), 1), "match_precision": (node & true).sum() / max(node.sum(), 1),
            "path_recall": (path & true).sum() / max(true.sum(), 1), "path_precision": (path & true).sum() / max(path.sum(), 1),
            "nodes": len(tree.nodes) - 1, "missing_populations": len(missing), "labels_lost": sum(l not in tree.path for l in type_of)}


def score_predictions(tree, found, y, type_of):
    at = {n["name"][0]: {type_of[l] for l in n["name"] if l in type_of} for n, _ in tree.nodes}
    under = {p[-1]: set().union(*[at[q[-1]] for _, q in tree.nodes if below(q, p)]) for _, p in tree.nodes}
    why = np.array(["rejected" if p in REJECTED else "exact" if t in at[p] else "coarser" if t in under[p] else "wrong" for p, t in zip(found, y)])
    named = [t if w == "exact" else f"({w})" if w in ("rejected", "coarser") else sorted(at[p] or {"(inner)"})[0] for p, t, w in zip(found, y, why)]
    kept = why != "rejected"
    return {"accuracy": (why == "exact").mean(), "accuracy_or_coarser": np.isin(why, ["exact", "coarser"]).mean(),
            "accuracy_of_accepted": (why[kept] == "exact").mean(), "macro_f1": f1_score(y, named, average="macro", labels=np.unique(y)),
            "rejected": (~kept).mean(), "coarser": (why == "coarser").mean(), "wrong": (why == "wrong").mean()}


def score_edges(tree, coarse, fine, parent):
    found = {(c, f) for c in coarse if c in tree.path for f in fine if f in tree.path and below(tree.path[f], tree.path[c])}
    true = {(c, f) for c in coarse for f in fine if parent[fine[f]] == coarse[c]}
    return {"edge_recall": len(found & true) / len(true), "edge_precision": len(found & true) / max(len(found), 1)}


def one_seed(o, seed):
    work = f"{o.out}/{os.path.basename(o.data)}-{seed}"
    os.makedirs(work, exist_ok=True)
    file = lambda name: f"{work}/{name}"
    a = ad.read_h5ad(o.data)
    a = a[np.asarray(a.X.sum(1)).ravel() > 0].copy()
    rng = np.random.default_rng(seed)
    if "split" in a.obs:
        a.obs["part"], query = a.obs["batch"].astype(str).values, (a.obs.split == "query").values
    else:
        cut = np.round(np.cumsum((.4, .4)) * a.n_obs).astype(int)
        part = rng.permutation(np.repeat(np.arange(3), np.diff([0, *cut, a.n_obs])))
        a.obs["part"], query = [f"part{i}" for i in part], part == 2
    a.obs["type"] = a.obs[o.labels_key].astype(str).values
    a.obs["label"] = a.obs["type"].astype(str) + "-" + a.obs["part"].astype(str)
    a.write_h5ad(file("cells.h5ad"))
    order, new = sorted(set(a.obs.part[~query])), sorted(set(a.obs.part[query]))
    made = ["--overwrite"] if o.overwrite else []
    run(o, "train", file("cells.h5ad"), "--batch-key", "part", "--batches", ",".join(order), "--n-layers", 2, "--n-latent", 10,
        "--epochs", 80, "--seed", seed, "--out", file("reference"), *made)
    run(o, "latent", file("reference"), file("cells.h5ad"), "--batches", ",".join(order), "--out", file("r.h5ad"), *made)
    run(o, "map", file("reference"), file("cells.h5ad"), "--batches", ",".join(new), "--epochs", 50, "--seed", seed, "--out", file("mapped"), *made)
    ref, qry = ad.read_h5ad(file("r.h5ad")), ad.read_h5ad(file("mapped/mapped.h5ad"))

    def latents(name, parts):
        x = np.concatenate([p.obsm["X_archipelago"] for p in parts])
        obs = __import__("pandas").concat([p.obs[["part", "type", "label"]].astype(str) for p in parts])
        ad.AnnData(x.astype(np.float32), obs=obs).write_h5ad(file(name))
        return obs

    ref_obs, qry_obs, all_obs = latents("ref.h5ad", [ref]), latents("qry.h5ad", [qry]), latents("both.h5ad", [ref, qry])
    names = lambda obs: dict(zip(obs["label"], obs["type"]))
    part_of, y = dict(zip(all_obs["label"], all_obs["part"])), qry_obs["type"].values
    by = ["--batch-key", "part", "--use-rep", "X"]

    def predict(tree):
        run(o, "tree", "predict", tree, file("qry.h5ad"), "--out", file("placed.h5ad"), *made)
        found = ad.read_h5ad(file("placed.h5ad")).obs["tree_label"].astype(str).values
        os.remove(file("placed.h5ad"))
        return found

    out = {}
    for clf in o.classifiers.split(","):
        rules = ["--classifier", clf, "--min-cells", 2, "--overwrite"] + (["--upstream-rules"] if o.upstream_rules else [])
        told = run(o, "tree", "learn", file("ref.h5ad"), "--labels-key", "label", *by, "--order", ",".join(order), "--out", file("tree"), *rules)
        tree = Tree(file("tree"))
        r = out[clf] = {"tree": score_matches(tree, names(ref_obs), part_of, sum((s["missing"] for s in told["data_sets"]), []))}
        r["predict"] = score_predictions(tree, predict(file("tree")), y, names(ref_obs))
        told = run(o, "tree", "update", file("tree"), file("both.h5ad"), "--order", ",".join(new), "--min-cells", 2, "--out", file("larger"), "--overwrite")
        larger = Tree(file("larger"))
        r["tree_updated"] = score_matches(larger, names(all_obs), part_of, sum((s["missing"] for s in told["data_sets"]), []))
        if o.coarse_key:
            parent = dict(zip(a.obs["type"], a.obs[o.coarse_key].astype(str)))
            mixed = ad.read_h5ad(file("ref.h5ad"))
            first = (mixed.obs.part == order[0]).values
            mixed.obs["label"] = [f"{parent[t]}-{p}" if f else l for t, p, l, f in zip(mixed.obs.type, mixed.obs.part, mixed.obs.label, first)]
            mixed.write_h5ad(file("mixed.h5ad"))
            told = run(o, "tree", "learn", file("mixed.h5ad"), "--labels-key", "label", *by, "--order", ",".join(order), "--out", file("coarse"), *rules)
            tree, fine = Tree(file("coarse")), names(mixed.obs[~first].astype(str))
            coarse = {f"{parent[t]}-{order[0]}": parent[t] for t in mixed.obs.type[first]}
            r["hierarchy"] = score_edges(tree, coarse, fine, parent) | {"predict": score_predictions(tree, predict(file("coarse")), y, fine)}
        left = {}
        for t in [t for t in np.unique(y) if o.left_out and (y == t).sum() >= 15 and (ref_obs["type"] == t).any()]:
            rest = ad.read_h5ad(file("ref.h5ad"))
            rest[(rest.obs.type != t).values].copy().write_h5ad(file("rest.h5ad"))
            run(o, "tree", "learn", file("rest.h5ad"), "--labels-key", "label", *by, "--order", ",".join(order), "--out", file("left"), *rules)
            rejected, mine = np.isin(predict(file("left")), REJECTED), y == t
            left[t] = (rejected[mine].mean(), rejected[~mine].mean())
        if left:
            r["left_out_mean_rejected"], r["left_out_mean_rejected_others"] = map(float, np.mean(list(left.values()), axis=0))
    return out


def flat(value, at=""):
    if isinstance(value, dict):
        for k, v in value.items():
            yield from flat(v, f"{at}.{k}" if at else k)
    elif isinstance(value, (int, float, np.floating, np.integer)):
        yield at, float(value)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--worker", required=True)
    ap.add_argument("--data", required=True)
    ap.add_argument("--labels-key", default="cell_type")
    ap.add_argument("--coarse-key")
    ap.add_argument("--seeds", default="0,1,2")
    ap.add_argument("--classifiers", default="knn,svm")
    ap.add_argument("--upstream-rules", action="store_true")
    ap.add_argument("--no-left-out", dest="left_out", action="store_false")
    ap.add_argument("--overwrite", action="store_true")
    ap.add_argument("--peer", help="BASELINES_external.json")
    ap.add_argument("--out", default="trees-out")
    o = ap.parse_args()
    runs = [one_seed(o, int(seed)) for seed in o.seeds.split(",")]
    json.dump(runs, open(f"{o.out}/{os.path.basename(o.data)}.json", "w"), indent=1, default=float)
    peer = {}
    if o.peer:
        sets = json.load(open(o.peer))
        mine = [s for s in (sets.values() if isinstance(sets, dict) else sets) if isinstance(s, dict) and s.get("model") == "treearches"
                and s["input"] == [os.path.basename(o.data)] and not s["settings"].get("drop_type")]
        for r in mine[0]["runs"] if mine else []:
            for k, v in flat(r["treearches"]):
                peer.setdefault(k, []).append(v)
    ours = {}
    for r in runs:
        for k, v in flat(r):
            ours.setdefault(k, []).append(v)
    print("| figure | Archipelago | peer | within 2 sd or better |\n|---|---|---|---|")
    sd = lambda v: np.std(v, ddof=1) if len(v) > 1 else 0.0
    for k, v in ours.items():
        m, row = np.mean(v), f"| {k.replace('_', ' ').replace('.', ': ')} | {np.mean(v):.3f} ± {sd(v):.3f} |"
        if k in peer:
            p, low = np.mean(peer[k]), k.split(".")[-1] in LOWER or k.endswith("others")
            better = m <= p if low else m >= p
            ok = "yes" if better or abs(m - p) <= 2 * sd(peer[k]) + 1e-9 else "NO"
            row += f" {p:.3f} ± {sd(peer[k]):.3f} | {ok} |"
        else:
            row += " | |"
        print(row)


main()
