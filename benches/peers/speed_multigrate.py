"""Times Multigrate on the files of one case: training, embedding, surgery. Prints one JSON object.

usage: speed_multigrate.py <folder with reference.h5ad, reference_validation.h5ad, query.h5ad, query_validation.h5ad>
                           [--model multigrate] [--epochs 3] [--threads 2]

The second modality is the logarithm of the first 50 genes' counts. Needs multigrate 1.0.1 in a Python 3.12.
"""
import argparse, gc, json, logging, os, sys, time, warnings

ap = argparse.ArgumentParser()
ap.add_argument("folder")
ap.add_argument("--model", default="multigrate", choices=["multigrate"])
ap.add_argument("--epochs", type=int, default=3)
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--seed", type=int, default=0)
a = ap.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
warnings.filterwarnings("ignore")
import anndata, lightning.pytorch as pl, numpy as np, scvi, torch
from multigrate.model import MultiVAE

torch.set_num_threads(a.threads)
scvi.settings.verbosity = logging.ERROR
for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(name).setLevel(logging.ERROR)
N_SECOND = 50
TRAIN = dict(accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, logger=False,
             train_size=1.0, batch_size=128, max_epochs=a.epochs, early_stopping=False)


class Clock(pl.Callback):
    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, *_):
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_):
        self.epochs.append(time.perf_counter() - self.start)


def read(name):
    """Genes and the second modality side by side."""
    adata = anndata.read_h5ad(f"{a.folder}/{name}.h5ad")
    genes = adata.X.toarray().astype(np.float32)
    both = anndata.AnnData(np.hstack([genes, np.log1p(genes[:, :N_SECOND])]), obs=adata.obs)
    both.uns["modality_lengths"] = [genes.shape[1], N_SECOND]
    return both


def reset_peak():
    gc.collect()
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def peak_mib():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def elbo(model, adata):
    """Minus reconstruction and divergence per cell, one draw, as ours."""
    scvi.settings.seed = 0
    adata = model._validate_anndata(adata)
    model.module.eval()
    total = 0.0
    with torch.no_grad():
        for tensors in model._make_data_loader(adata=adata, batch_size=128):
            _, _, losses = model.module(tensors, loss_kwargs={"kl_weight": 1.0})
            total += float(sum(losses.reconstruction_loss.values()).sum() + sum(losses.kl_local.values()).sum())
    return -total / adata.n_obs


out = {"scvi-tools": scvi.__version__, "torch": torch.__version__}
adata = read("reference")
MultiVAE.setup_anndata(adata, categorical_covariate_keys=["batch"], rna_indices_end=adata.uns["modality_lengths"][0])
scvi.settings.seed = a.seed
model = MultiVAE(adata, losses=["nb", "mse"])
clock = Clock()
model.train(callbacks=[clock], **TRAIN)
out["train"] = {"epochs_s": clock.epochs, "peak_mib": peak_mib()}
reset_peak()
passes = []
for _ in range(a.epochs):
    start = time.perf_counter()
    model.get_model_output(adata, batch_size=128)
    passes.append(time.perf_counter() - start)
out["latent"] = {"epochs_s": passes, "peak_mib": peak_mib(), "elbo": None}
out["train"]["elbo"] = elbo(model, read("reference_validation"))
del adata
reset_peak()
query = read("query")
mapped = MultiVAE.load_query_data(query, model, accelerator="cpu")
clock = Clock()
mapped.train(callbacks=[clock], weight_decay=0.0, **TRAIN)
out["surgery"] = {"epochs_s": clock.epochs, "peak_mib": peak_mib(), "elbo": elbo(mapped, read("query_validation"))}
json.dump(out, sys.stdout)
