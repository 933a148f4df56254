#!/usr/bin/env python3
"""References and upstream's surgery by scvi-tools, for `archipelago-quality --upstream`: both sides then map onto the same references.

usage: surgery_quality.py INPUT.h5ad OUT [--seeds 0,1,2] [--norm layer] [--reference-epochs 100] [--epochs 50]
                          [--batch-key batch] [--labels-key cell_type] [--reference a,b --query c,d] [--share-of-genes 1.0]

INPUT has whole counts in X. Batches of the reference and the query are those that obs column `split` calls so, unless they are named.
OUT/seed-N gets `reference` (a saved scVI of the reference batches), `query.h5ad` (the query's cells, without the genes that are hidden),
`upstream.h5ad` (what surgery makes of them, in obsm `X_archipelago`) and `upstream.json` (their ELBO and reconstruction error).
What is there already is left as it is.
"""
import argparse, json, os, pathlib, warnings
os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")
import anndata as ad, numpy as np, scvi, torch

ap = argparse.ArgumentParser()
ap.add_argument("input"); ap.add_argument("out", type=pathlib.Path)
ap.add_argument("--seeds", default="0,1,2"); ap.add_argument("--norm", choices=("layer", "batch"), default="layer")
ap.add_argument("--reference-epochs", type=int, default=100); ap.add_argument("--epochs", type=int, default=50)
ap.add_argument("--batch-key", default="batch"); ap.add_argument("--labels-key", default="cell_type")
ap.add_argument("--reference", default=""); ap.add_argument("--query", default="")
ap.add_argument("--share-of-genes", type=float, default=1.0)
o = ap.parse_args()
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

cells = ad.read_h5ad(o.input)
cells.X = cells.X.astype(np.float32)
batch = cells.obs[o.batch_key].astype(str)
cells.obs = cells.obs[[o.batch_key, o.labels_key]].astype(str).assign(**({"split": cells.obs["split"].astype(str)} if "split" in cells.obs else {}))
part = lambda name, named: batch.isin(named.split(",")) if named else cells.obs["split"] == name
reference, query = (cells[part(name, named).values].copy() for name, named in (("reference", o.reference), ("query", o.query)))
for layer in list(reference.layers):
    del reference.layers[layer], query.layers[layer]

norms = dict(use_layer_norm="both", use_batch_norm="none") if o.norm == "layer" else dict(use_layer_norm="none", use_batch_norm="both")
arch = dict(n_layers=2, n_latent=10, n_hidden=128, dropout_rate=0.1, encode_covariates=True, deeply_inject_covariates=False,
            gene_likelihood="zinb", **norms)
quiet = dict(accelerator="cpu", devices=1, enable_progress_bar=False, enable_model_summary=False, logger=False)
number = lambda v: float(v["reconstruction_loss"]) if isinstance(v, dict) else float(v)

for seed in map(int, o.seeds.split(",")):
    out = o.out / f"seed-{seed}"
    if (out / "upstream.json").exists():
        continue
    out.mkdir(parents=True, exist_ok=True)
    scvi.settings.seed = seed
    if not (out / "reference").exists():
        own = reference.copy()
        scvi.model.SCVI.setup_anndata(own, batch_key=o.batch_key)
        model = scvi.model.SCVI(own, **arch)
        model.train(max_epochs=o.reference_epochs, **quiet)
        model.save(str(out / "reference"), save_anndata=False)
    scvi.settings.seed = seed
    # Hidden genes are drawn by a generator of their own: a seed hides the same ones whatever else was drawn.
    n_kept = round(o.share_of_genes * query.n_vars)
    kept = np.sort(np.random.default_rng(seed).permutation(query.n_vars)[:n_kept])
    mapped = query[:, kept].copy()
    mapped.write_h5ad(out / "query.h5ad", compression="gzip")
    scvi.model.SCVI.prepare_query_anndata(mapped, str(out / "reference"))
    model = scvi.model.SCVI.load_query_data(mapped, str(out / "reference"))
    model.train(max_epochs=o.epochs, plan_kwargs=dict(weight_decay=0.0), **quiet)
    elbo = np.mean([number(model.get_elbo(return_mean=True)) for _ in range(5)])
    error = np.mean([number(model.get_reconstruction_error()) for _ in range(5)])
    placed = ad.AnnData(obs=mapped.obs, obsm={"X_archipelago": model.get_latent_representation()})
    placed.write_h5ad(out / "upstream.h5ad")
    (out / "upstream.json").write_text(json.dumps({"elbo_query": elbo, "reconstruction_query": error, "epochs": o.epochs}))
    print(out, f"ELBO {elbo:.1f}", flush=True)
