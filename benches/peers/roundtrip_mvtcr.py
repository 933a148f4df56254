"""mvTCR through a reference and back, before and after surgery:

1. trained and saved by mvtcr, imported: our latent means are mvtcr's;
2. exported again, loaded by mvtcr: its latent means are what they were;
3. mapped by us, exported, loaded by mvtcr on all cells: its latent means of reference and query are ours.

    make peers

or, with an environment of one's own (mvtcr 0.2.1.2):

    python benches/peers/roundtrip_mvtcr.py --worker target/release/archipelago-worker

Prints one line per variant and exits with 1 if any differs.
"""

import argparse
import pathlib
import sys
import tempfile

import anndata
import numpy as np
import torch

from of_mvtcr import LETTERS, VARIANTS, prepared, silently
from ours import TOLERANCE, must

N_CELLS, N_GENES, LENGTH = 90, 30, 12
REFERENCE, ALL = ["d0", "d1"], ["d0", "d1", "d2"]


def cells(seed=0):
    """Log-normalised expression, both chains, three donors."""
    rng = np.random.default_rng(seed)
    adata = anndata.AnnData(np.log1p(rng.poisson(2.0, (N_CELLS, N_GENES))).astype(np.float32))
    adata.var_names = [f"gene{i:03}" for i in range(N_GENES)]
    adata.obs_names = [f"cell{i}" for i in range(N_CELLS)]
    adata.obs["donor"] = rng.permutation(np.resize(ALL, N_CELLS)).astype(str)
    chain = lambda start: [start + "".join(rng.choice(list(LETTERS), rng.integers(3, 8))) + "F" for _ in range(N_CELLS)]
    adata.obs["alpha"], adata.obs["beta"] = chain("CA"), chain("CAS")
    # Whatever the longest is, both sides are to see the same length.
    adata.obs.loc[adata.obs_names[:2], "alpha"] = "C" + "A" * (LENGTH - 2) + "F"
    adata.obs["clonotype"] = [str(i) for i in range(N_CELLS)]
    adata.obs["set"] = np.where(np.arange(N_CELLS) % 5 == 0, "val", "train")
    return adata


def architecture():
    joint = dict(activation="leakyrelu", batch_norm=True, dropout=0.1, hdim=8, losses=["MSE", "CE"], num_layers=1,
                 shared_hidden=[10], zdim=4, c_embedding_dim=3)
    rna = dict(activation="leakyrelu", batch_norm=True, dropout=0.1, gene_hidden=[12], num_layers=1, output_activation="linear")
    tcr = dict(embedding_size=8, num_heads=2, forward_expansion=2, encoding_layers=1, decoding_layers=1, dropout=0.1)
    return dict(batch_size=32, learning_rate=1e-3, loss_weights=[1.0, 0.1, 1e-4], joint=joint, rna=rna, tcr=tcr)


def model_of(kind, adata):
    params = architecture()
    return VARIANTS[kind](adata, params, "clonotype", [], "donor_ohe", None, None, torch.device("cpu"))


def latent(model, adata):
    return np.asarray(silently(model.get_latent, adata, metadata=[], return_mean=True).X)


def differ(one, other):
    return float(np.abs(one - other).max())


def roundtrip(kind, worker, folder):
    at = lambda name: str(folder / f"{kind}-{name}")
    adata = cells()
    adata.write_h5ad(at("cells.h5ad"))
    known = adata[adata.obs["donor"].isin(REFERENCE)].copy()
    known.write_h5ad(at("known.h5ad"))
    theirs = prepared(known, "donor", REFERENCE, LENGTH)
    model = model_of(kind, theirs)
    silently(model.train, 4, 32, 1e-3, [1.0, 0.1, 1e-4], None, None, str(folder), None)
    model.save(at("saved.pt"))
    places = latent(model, theirs)
    fields = ["--field", "receptor=obs/alpha", "--field", "receptor=obs/beta"]
    must(worker, "import", at("saved.pt"), "--cells", at("known.h5ad"), "--out", at("imported"))
    must(worker, "latent", at("imported"), at("known.h5ad"), "--batch-key", "donor", "--owner", "reference", "--dataset",
          "atlas", *fields, "--out", at("latent.h5ad"))
    ours = anndata.read_h5ad(at("latent.h5ad")).obsm["X_archipelago"]
    figures = {"imported": differ(places, ours)}

    must(worker, "export", at("imported"), "--out", at("exported"))
    again = model_of(kind, theirs)
    again.load(at("exported/model.pt"), map_location=torch.device("cpu"))
    figures["exported"] = differ(places, latent(again, theirs))

    query = adata[~adata.obs["donor"].isin(REFERENCE)].copy()
    query.write_h5ad(at("query.h5ad"))
    must(worker, "map", at("imported"), at("query.h5ad"), "--batch-key", "donor", "--owner", "reference", "--dataset",
          "atlas", *fields, "--epochs", "2", "--out", at("mapped"))
    must(worker, "export", at("mapped"), "--out", at("grown"))
    everyone = prepared(adata, "donor", ALL, LENGTH)
    grown = model_of(kind, everyone)
    grown.load(at("grown/model.pt"), map_location=torch.device("cpu"))
    of_query = anndata.read_h5ad(at("mapped/mapped.h5ad"))
    seen = latent(grown, everyone)
    is_query = (~adata.obs["donor"].isin(REFERENCE)).to_numpy()
    figures["mapped"] = max(differ(seen[is_query], of_query.obsm["X_archipelago"]), differ(seen[~is_query], ours))
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", required=True)
    args = parser.parse_args()
    worker = str(pathlib.Path(args.worker).resolve())
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for kind in VARIANTS:
            figures = roundtrip(kind, worker, pathlib.Path(folder))
            worst = max(worst, *figures.values())
            print(kind, ", ".join(f"{name} {value:.2e}" for name, value in figures.items()))
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
