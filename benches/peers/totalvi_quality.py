"""totalVI on the real CITE-seq pair: scvi-tools' figures, and ours scored the same way.

Reference: 200 PBMC with 29 antibodies. Query: 200 PBMC of another experiment with 14 of them. Three questions, each with seeds 0 to 7:

* joint: both batches are trained together on the 14 shared proteins, those of the query hidden; its proteins are imputed
  as the reference measured them (25 draws) and compared with what was measured.
* surgery: the same after a reference of the first batch alone, onto which the query is mapped without proteins.
* pair: reference with 29 proteins, query mapped with its 14; fit and mixing.

    python benches/peers/totalvi_quality.py peer --data <folder of cite_pbmc5k.h5ad> --out peer.json
    python benches/peers/totalvi_quality.py score --data <the same folder> --ours <folder that our program wrote> --out ours.json
    python benches/peers/totalvi_quality.py table peer.json ours.json

Needs scvi-tools 1.4 (`pip install scvi-tools`). Our program: `cargo run --release -p archipelago-benches --example totalvi_quality`.
"""

import argparse
import json
import pathlib
import statistics
import warnings

import anndata
import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

SEEDS = range(8)
EPOCHS, SURGERY_EPOCHS, N_DRAWS, K = 200, 100, 25, 15
SURGERY = {"use_layer_norm": "both", "use_batch_norm": "none", "n_layers_decoder": 2, "n_layers_encoder": 2}
PROTEINS = "protein_expression"


def pair(data):
    """Reference and query, and the proteins both have, in the reference's order."""
    reference = anndata.read_h5ad(data / "cite_pbmc5k.h5ad")
    query = anndata.read_h5ad(data / "cite_pbmc10k.h5ad")
    shared = [name for name in reference.obsm[PROTEINS].columns if name in query.obsm[PROTEINS].columns]
    return reference, query, shared


def with_proteins(adata, names, hidden=False):
    """A copy with these proteins; what was not measured, or is hidden, is zero, as scvi-tools wants it."""
    copy = adata.copy()
    frame = adata.obsm[PROTEINS].reindex(columns=names, fill_value=0)
    copy.obsm[PROTEINS] = frame * 0 if hidden else frame
    return copy


def imputation(imputed, measured, names):
    """Correlations of imputed values with log counts, by protein and over all proteins of a cell after standardisation."""
    imputed = np.log1p(np.asarray(imputed, dtype=float))
    measured = np.log1p(measured[names].to_numpy(dtype=float))
    by_protein = {}
    for i, name in enumerate(names):
        a, b = imputed[:, i], measured[:, i]
        by_protein[name] = [float(np.corrcoef(a, b)[0, 1]), float(spearmanr(a, b).statistic)]
    return {
        "pearson": float(np.mean([value[0] for value in by_protein.values()])),
        "spearman": float(np.mean([value[1] for value in by_protein.values()])),
        "overall pearson": float(np.corrcoef(imputed.ravel(), measured.ravel())[0, 1]),
        "by protein": by_protein,
    }


def mixing(latent, batches):
    """Mean share of a cell's nearest neighbours from the other batch."""
    neighbours = NearestNeighbors(n_neighbors=K + 1).fit(latent).kneighbors(latent, return_distance=False)[:, 1:]
    return float((batches[neighbours] != batches[:, None]).mean())


def peer_seed(data, seed):
    import scvi
    import torch

    torch.set_num_threads(1)
    reference, query, shared = pair(data)
    model_class = scvi.model.TOTALVI
    setup = {"batch_key": "batch", "protein_expression_obsm_key": PROTEINS}
    quiet = {"accelerator": "cpu", "enable_progress_bar": False}

    def imputed(model, adata):
        batch = reference.obs["batch"].iloc[0]
        return model.get_normalized_expression(
            adata, indices=np.flatnonzero(adata.obs["batch"] == query.obs["batch"].iloc[0]), n_samples=N_DRAWS,
            return_mean=True, transform_batch=[batch])[1]

    figures = {}
    scvi.settings.seed = seed
    both = anndata.concat([with_proteins(reference, shared), with_proteins(query, shared, hidden=True)], index_unique="-")
    both.obs["batch"] = both.obs["batch"].astype("category")
    model_class.setup_anndata(both, **setup)
    joint = model_class(both)
    joint.train(max_epochs=EPOCHS, **quiet)
    figures["joint"] = imputation(imputed(joint, both), query.obsm[PROTEINS], shared)
    figures["joint"]["mixing"] = mixing(joint.get_latent_representation(), both.obs["batch"].to_numpy().astype(str))

    def mapped(names, hidden):
        scvi.settings.seed = seed
        first = with_proteins(reference, names)
        model_class.setup_anndata(first, **setup)
        model = model_class(first, **SURGERY)
        model.train(max_epochs=EPOCHS, **quiet)
        second = with_proteins(query, names, hidden)
        grown = model_class.load_query_data(second, model, freeze_dropout=True)
        grown.train(max_epochs=SURGERY_EPOCHS, plan_kwargs={"weight_decay": 0.0}, **quiet)
        return model, grown, first, second

    _, grown, _, second = mapped(shared, hidden=True)
    figures["surgery"] = imputation(imputed(grown, second), query.obsm[PROTEINS], shared)
    model, grown, first, second = mapped(list(reference.obsm[PROTEINS].columns), hidden=False)
    latent = np.concatenate([model.get_latent_representation(), grown.get_latent_representation()])
    batches = np.array(["r"] * first.n_obs + ["q"] * second.n_obs)
    figures["pair"] = {
        "mixing": mixing(latent, batches),
        "elbo reference": float(model.get_elbo()),
        "elbo query": float(grown.get_elbo()),
    }
    return figures


def our_seed(data, ours, seed):
    """Scores the files `{question}_seed{seed}_{what}.csv` and `..._fit.json` that our program wrote."""
    _, query, shared = pair(data)
    read = lambda name: pd.read_csv(ours / f"{name}.csv", index_col=0)  # noqa: E731
    figures = {}
    for question in ("joint", "surgery"):
        figures[question] = imputation(read(f"{question}_seed{seed}_imputed")[shared], query.obsm[PROTEINS], shared)
    for question in ("joint", "pair"):
        latent = read(f"{question}_seed{seed}_latent")
        figures.setdefault(question, {})["mixing"] = mixing(
            latent.drop(columns="batch").to_numpy(), latent["batch"].to_numpy().astype(str))
    fit = json.loads((ours / f"pair_seed{seed}_fit.json").read_text())
    figures["pair"].update({"elbo reference": fit["reference"], "elbo query": fit["query"]})
    return figures


def table(peer, ours):
    rows = [("joint", "pearson"), ("joint", "spearman"), ("joint", "overall pearson"), ("joint", "mixing"),
            ("surgery", "pearson"), ("surgery", "spearman"), ("surgery", "overall pearson"),
            ("pair", "mixing"), ("pair", "elbo reference"), ("pair", "elbo query")]
    print("| question | figure | Archipelago | scvi-tools 1.4.2 | difference in sd |")
    print("|---|---|---|---|---|")
    for question, figure in rows:
        both = [[seed[question][figure] for seed in side] for side in (ours, peer)]
        (mean, sd), (other, other_sd) = [(statistics.mean(values), statistics.stdev(values)) for values in both]
        gap = (mean - other) / max(other_sd, 1e-9)
        print(f"| {question} | {figure} | {mean:.3f} ± {sd:.3f} | {other:.3f} ± {other_sd:.3f} | {gap:+.1f} |")
    names = list(peer[0]["joint"]["by protein"])
    print("\n| protein (Pearson) | " + " | ".join(["joint, ours", "joint, peer", "surgery, ours", "surgery, peer"]) + " |")
    print("|---|---|---|---|---|")
    for name in names:
        values = [statistics.mean(seed[question]["by protein"][name][0] for seed in side)
                  for question in ("joint", "surgery") for side in (ours, peer)]
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("peer", "score"):
        command = commands.add_parser(name)
        command.add_argument("--data", type=pathlib.Path, required=True)
        command.add_argument("--out", type=pathlib.Path, required=True)
        if name == "score":
            command.add_argument("--ours", type=pathlib.Path, required=True)
    command = commands.add_parser("table")
    command.add_argument("peer", type=pathlib.Path)
    command.add_argument("ours", type=pathlib.Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.command == "table":
        table(json.loads(args.peer.read_text()), json.loads(args.ours.read_text()))
        return
    one = (lambda seed: peer_seed(args.data, seed)) if args.command == "peer" else (
        lambda seed: our_seed(args.data, args.ours, seed))
    figures = []
    for seed in SEEDS:
        figures.append(one(seed))
        args.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
