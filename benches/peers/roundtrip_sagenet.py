#!/usr/bin/env python3
"""Networks of SageNet there and back: what each kind of layer says of cells, in scArches and here.

    python benches/peers/roundtrip_sagenet.py --worker target/release/archipelago-worker

scArches trains and saves; we import, map, export; scArches loads our export and maps. Parts must be the same and entropies within 1e-5.
Needs scArches 0.6.1, torch_geometric, captum and tensorboard.
"""
import argparse, logging, sys, tempfile, warnings
from pathlib import Path

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import anndata as ad, numpy as np, torch
from scarches.models.sagenet.classifier import Classifier
from scarches.models.sagenet.sagenet import sagenet
from scarches.models.sagenet.utils import glasso

from ours import must

# `MLP`, `GraphConv` and `GINConv` are names that upstream does not know itself; `Conv1d` does not fit its own sizes.
KINDS = ["TransformerConv", "GraphSAGE", "Chebnet", "GATConv", "GENConv", "MFConv"]
PARTITIONS = ["leiden_0.1", "leiden_0.5"]


def cells():
    rng, part = np.random.default_rng(0), np.arange(90) % 3
    x = rng.exponential(0.4, size=(90, 9)).astype("f4")
    x[:, 1] += 0.7 * x[:, 0]
    x[:, 4] += 0.5 * x[:, 3]
    for p in range(3):
        x[part == p, 3 * p] += 1.5
    adata = ad.AnnData(x)
    adata.var_names, adata.obs_names = [f"g{i}" for i in range(9)], [f"c{i}" for i in range(90)]
    adata.obs["batch"], adata.obs["leiden_0.1"] = "embryo_1", part
    adata.obs["leiden_0.5"] = (part + 2 * (np.arange(90) % 2)) % 4
    glasso(adata, [0.1, 0.25])
    return adata


def compare(what, ours, theirs):
    worst = 0.0
    for partition in PARTITIONS:
        name = f"embryo_1_{partition}"
        same = (ours.obs[f"pred_{name}"].astype(int).values == theirs.obs[f"pred_{name}"].astype(int).values).all()
        worst = max(worst, np.abs(ours.obs[f"ent_{name}"].values - theirs.obs[f"ent_{name}"].values).max() if same else np.inf)
    print(f"{what:40} {worst:.1e} {'yes' if worst < 1e-5 else 'NO'}")
    return worst < 1e-5


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", required=True)
    worker, passed = parser.parse_args().worker, []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            run = lambda *words: must(worker, "space", *words)
            adata, trained = cells(), sagenet(device="cpu")
            torch.manual_seed(0)
            trained.train(adata, comm_columns=PARTITIONS, tag="embryo_1", epochs=20, classifier=kind)
            (folder / "saved").mkdir()
            trained.save_as_folder(folder / "saved")
            query = ad.AnnData(adata.X, obs=adata.obs[["batch"]], var=adata.var[[]])
            query.write(folder / "cells.h5ad")
            trained.load_query_data(query)
            run("import", folder / "saved", "--cells", folder / "cells.h5ad", "--out", folder / "ensemble")
            run("map", folder / "ensemble", folder / "cells.h5ad", "--no-distances", "--out", folder / "mapped.h5ad")
            ours = ad.read_h5ad(folder / "mapped.h5ad")
            passed.append(compare(f"{kind}: saved there, imported", ours, query))
            run("export", folder / "ensemble", "--out", folder / "exported")
            back = sagenet(device="cpu")
            for partition in PARTITIONS:
                tag = f"embryo_1_{partition}"
                saved = torch.load(folder / f"exported/{tag}.pt", weights_only=True)
                back.models[tag] = Classifier(**saved["arguments"]).net
                back.models[tag].load_state_dict(saved["state_dict"])
                assert back.models[tag].dropout_GNN == trained.models[tag].dropout_GNN
                back.adjs[tag] = ad.read_h5ad(folder / f"exported/{tag}.h5ad").X
            again = ad.AnnData(adata.X, obs=adata.obs[["batch"]], var=adata.var[[]])
            back.load_query_data(again)
            passed.append(compare(f"{kind}: exported, loaded there", ours, again))
    print(f"{passed.count(False)} misses")
    sys.exit(0 if all(passed) else 1)


main()
