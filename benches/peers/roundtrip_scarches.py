"""Models of scArches' own through a reference and back, before and after surgery:

1. trained and saved by scArches, imported: our latent means are scArches';
2. exported again, loaded by scArches: its latent means are what they were;
3. mapped by scArches onto our export, saved, imported: our latent means of the query are scArches';
4. mapped by us, exported, loaded by scArches: its latent means of reference and query are ours.

    make peers

or, with an environment of one's own (scArches 0.6.1):

    python benches/peers/roundtrip_scarches.py --worker target/release/archipelago-worker

Prints one line per model and exits with 1 if any differs.
"""

import argparse
import contextlib
import io
import logging
import pathlib
import pickle
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import anndata
import numpy as np
import torch

from ours import TOLERANCE, must, table

with contextlib.redirect_stdout(io.StringIO()):
    from scarches.models import EXPIMAP, TRVAE, scPoli, scgen

N_CELLS, N_GENES, N_TERMS = 120, 40, 6
TERMS = [f"TERM {i}" for i in range(N_TERMS)]
HIDDEN = [16, 8]
BATCHES, QUERY = ["b0", "b1", "b2"], ["q0", "q1"]


def cells(batches, seed):
    """Counts with a batch, a chemistry and a label; genes in overlapping sets."""
    rng = np.random.default_rng(seed)
    label = rng.choice(["B", "T", "NK"], N_CELLS)
    mean = 1 + 4 * (np.arange(N_GENES) % 3 == np.array([["B", "T", "NK"].index(one) for one in label])[:, None])
    adata = anndata.AnnData(rng.poisson(mean).astype(np.float32))
    adata.var_names = [f"gene{i:03}" for i in range(N_GENES)]
    adata.obs_names = [f"cell{seed}-{i}" for i in range(N_CELLS)]
    adata.obs["batch"] = rng.permutation(np.resize(batches, N_CELLS)).astype(str)
    # Names of a query are new on every condition key.
    adata.obs["chemistry"] = [f"{batch[0]}-v{3 if batch.endswith('1') else 2}" for batch in adata.obs["batch"]]
    adata.obs["label"] = label
    member = np.arange(N_GENES)[:, None] % (np.arange(N_TERMS) + 2) == 0
    adata.varm["I"] = member.astype(np.float32)
    adata.uns["terms"] = np.array(TERMS)
    return adata


def logged(adata):
    """Normalised log values in place of counts."""
    adata.X = np.log1p(adata.X / adata.X.sum(1, keepdims=True) * 50).astype(np.float32)
    return adata


class Peer:
    """How a model is made, trained, loaded, mapped and asked by scArches, and what our commands are told."""

    epochs = {"n_epochs": 2, "seed": 0}
    query_options, map_options, import_options = {}, [], []
    queried = QUERY
    read = ["--batch-key", "batch"]

    def __init__(self, name, **options):
        self.name, self.options = name, options

    def prepare(self, adata):
        return logged(adata) if self.options.get("recon_loss") == "mse" else adata

    def make(self, adata):
        return self.cls(adata, condition_key="batch", hidden_layer_sizes=HIDDEN, **self.options)

    def train(self, model):
        model.train(**self.epochs, monitor=False)
        model.model.eval()
        return model

    def load(self, folder, adata):
        return self.cls.load(str(folder), adata.copy())

    def surgery(self, folder, query):
        return self.train(self.cls.load_query_data(query.copy(), str(folder), **self.query_options))

    def latent(self, model, adata):
        return model.get_latent(adata.X, adata.obs["batch"].to_numpy(), mean=True)

    def check(self, worker, folder, model):
        """What else there is to compare."""


class Trvae(Peer):
    cls = TRVAE

    def __init__(self, name, **options):
        super().__init__(name, latent_dim=4, **options)


class Scpoli(Peer):
    cls = scPoli
    epochs = {"n_epochs": 2, "pretraining_epochs": 1, "seed": 0}

    def __init__(self, name, keys="batch", **options):
        super().__init__(name, latent_dim=4, embedding_dims=3, **options)
        self.keys = keys
        if keys != "batch":
            self.read = []

    def make(self, adata):
        return scPoli(adata, condition_keys=self.keys, cell_type_keys="label", hidden_layer_sizes=HIDDEN, **self.options)

    def surgery(self, folder, query):
        return self.train(scPoli.load_query_data(query.copy(), str(folder), labeled_indices=[]))

    def latent(self, model, adata):
        return model.get_latent(adata.copy(), mean=True)


class Expimap(Peer):
    cls = EXPIMAP
    epochs = {"n_epochs": 2, "alpha": 0.01, "seed": 0}
    import_options = ["--terms", "cells.h5ad"]

    def __init__(self, name, extended=False, **options):
        super().__init__(name, mask_key="I", **options)
        if extended:
            self.query_options = {"new_n_ext": 2, "use_hsic": True}
            self.map_options = ["--n-ext", "2", "--use-hsic"]
            # Each batch gets terms of its own here, and there is one place for them in a folder.
            self.queried = QUERY[:1]

    def check(self, worker, folder, model):
        """Terms have the names of the cells' file, also after an export."""
        must(worker, "results", "terms", folder / "reference", "--out", folder / "terms.csv")
        with open(folder / "terms.csv") as file:
            found = [line.split(",")[0] for line in file.read().splitlines()[1:]]
        assert found[:N_TERMS] == TERMS, found
        with open(folder / "again" / "attr.pkl", "rb") as file:
            assert pickle.load(file)["terms_"][:N_TERMS] == TERMS


class Scgen(Peer):
    cls = scgen
    epochs = {"n_epochs": 2}

    def prepare(self, adata):
        return logged(adata)

    def make(self, adata):
        return scgen(adata, hidden_layer_sizes=HIDDEN, z_dimension=4)

    def latent(self, model, adata):
        with torch.no_grad():
            return model.model.encoder(torch.tensor(adata.X))[0].numpy()

    # It maps without training, and no layer knows of batches: a folder is all there is.
    surgery = None


def peers():
    yield Trvae("trVAE")
    yield Trvae("trVAE, zinb, MMD on y", recon_loss="zinb", mmd_on="y")
    yield Trvae("trVAE, mse, batch norm", recon_loss="mse", use_bn=True)
    yield Scpoli("scPoli")
    yield Scpoli("scPoli, poisson", recon_loss="poisson")
    yield Scpoli("scPoli, two condition keys", keys=["batch", "chemistry"])
    yield Expimap("expiMap")
    yield Expimap("expiMap, soft mask", soft_mask=True)
    yield Expimap("expiMap, mse", recon_loss="mse")
    yield Expimap("expiMap, library encoder", use_l_encoder=True)
    yield Expimap("expiMap, new terms", extended=True)
    yield Scgen("scGen")


def ours(worker, peer, reference, cells):
    """Latent means by our command."""
    out = reference.with_name(f"{reference.name}-{cells.stem}.csv")
    owner = ["--owner", "reference", "--dataset", "atlas"]
    must(worker, "latent", reference, cells, *peer.read, *owner, "--device", "cpu", "--out", out)
    return table(out, "mean_")


def gap(a, b):
    assert a.shape == b.shape, f"{a.shape} and {b.shape}"
    return float((np.abs(a - b) / np.maximum(np.abs(b), 1)).max())


def differences(worker, peer, folder):
    """The largest difference of each of the four ways."""
    known, query = (peer.prepare(cells(batches, seed)) for batches, seed in [(BATCHES, 0), (peer.queried, 1)])
    known.write_h5ad(folder / "cells.h5ad")
    query.write_h5ad(folder / "query.h5ad")
    imported = [folder / word if word == "cells.h5ad" else word for word in peer.import_options]
    bring = lambda saved, out: must(worker, "import", folder / saved, *imported, "--out", folder / out)

    model = peer.train(peer.make(known.copy()))
    model.save(str(folder / "saved"), overwrite=True)
    theirs = peer.latent(model, known)
    bring("saved", "reference")
    gaps = [gap(ours(worker, peer, folder / "reference", folder / "cells.h5ad"), theirs)]

    must(worker, "export", folder / "reference", "--out", folder / "again")
    gaps.append(gap(peer.latent(peer.load(folder / "again", known), known), theirs))
    peer.check(worker, folder, model)
    if peer.surgery is None:
        return gaps

    grown = peer.surgery(folder / "again", query)
    grown.save(str(folder / "grown"), overwrite=True)
    bring("grown", "grown-reference")
    gaps.append(gap(ours(worker, peer, folder / "grown-reference", folder / "query.h5ad"), peer.latent(grown, query)))

    owner = ["--owner", "reference", "--dataset", "atlas"]
    mapping = [*peer.read, *owner, *peer.map_options, "--epochs", 2, "--device", "cpu", "--out", folder / "mapped"]
    must(worker, "map", folder / "reference", folder / "query.h5ad", *mapping)
    must(worker, "export", folder / "mapped", "--out", folder / "mapped-saved")
    loaded = peer.load(folder / "mapped-saved", query)
    of_mapped = [gap(peer.latent(loaded, adata), ours(worker, peer, folder / "mapped", folder / file))
                 for adata, file in [(query, "query.h5ad"), (known, "cells.h5ad")]]
    return [*gaps, max(of_mapped)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--worker", required=True, help="the program `archipelago-worker`")
    parser.add_argument("--only", default="", help="only models whose names begin so")
    arguments = parser.parse_args()
    worker = str(pathlib.Path(arguments.worker).resolve())
    failed = 0
    for peer in peers():
        if not peer.name.startswith(arguments.only):
            continue
        torch.manual_seed(0)
        np.random.seed(0)
        # scArches tells of every layer and every epoch.
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            gaps = differences(worker, peer, pathlib.Path(folder))
        is_same = max(gaps) <= TOLERANCE
        failed += not is_same
        ways = ["imported", "exported", "their surgery", "our surgery"]
        shown = ", ".join(f"{way} {found:.1e}" for way, found in zip(ways, gaps))
        print(f"{peer.name:28} {shown}  {'ok' if is_same else 'DIFFERENT'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
