"""Times scvi-tools on the files of one case: training, embedding, surgery. Prints one JSON object.

usage: speed.py <folder with reference.h5ad, reference_validation.h5ad, query.h5ad, query_validation.h5ad>
                [--model scvi] [--epochs 3] [--threads 2] [--seed 0] [--likelihood nb] [--csr] [--cuda]
"""
import argparse, gc, json, logging, os, sys, time, warnings

ap = argparse.ArgumentParser()
ap.add_argument("folder")
ap.add_argument("--model", default="scvi", choices=["scvi", "scanvi"])
ap.add_argument("--epochs", type=int, default=3)
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--seed", type=int, default=0)
ap.add_argument("--likelihood", default="nb")
ap.add_argument("--csr", action="store_true", help="keep counts as compressed rows: less memory, more time")
ap.add_argument("--cuda", action="store_true", help="on the first CUDA device")
a = ap.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
warnings.filterwarnings("ignore")
import anndata, lightning.pytorch as pl, numpy as np, scvi, torch

torch.set_num_threads(a.threads)
scvi.settings.verbosity = logging.ERROR
for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(name).setLevel(logging.ERROR)
OPTIONS = dict(n_layers=2, n_hidden=128, n_latent=10, gene_likelihood=a.likelihood, use_batch_norm="none",
               use_layer_norm="both", encode_covariates=True, deeply_inject_covariates=False)
ACCELERATOR = "gpu" if a.cuda else "cpu"
TRAIN = dict(accelerator=ACCELERATOR, enable_progress_bar=False, enable_model_summary=False, logger=False,
             train_size=1.0, batch_size=128, max_epochs=a.epochs)


class Clock(pl.Callback):
    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, *_):
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_):
        self.epochs.append(time.perf_counter() - self.start)


def read(name):
    adata = anndata.read_h5ad(f"{a.folder}/{name}.h5ad")
    adata.X = adata.X.astype(np.float32) if a.csr else adata.X.toarray().astype(np.float32)
    return adata


def reset_peak():
    gc.collect()
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def peak_mib():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def elbo(model, adata):
    scvi.settings.seed = 0
    value = float(model.get_elbo(adata, batch_size=128))
    # The sign is that of the ELBO in this version; a loss would be positive.
    return value


out = {"scvi-tools": scvi.__version__, "torch": torch.__version__}
adata = read("reference")
if a.model == "scvi":
    Model = scvi.model.SCVI
    Model.setup_anndata(adata, batch_key="batch")
else:
    Model = scvi.model.SCANVI
    Model.setup_anndata(adata, labels_key="cell_type", unlabeled_category="Unknown", batch_key="batch")
scvi.settings.seed = a.seed
model = Model(adata, **OPTIONS)
clock = Clock()
model.train(callbacks=[clock], **TRAIN)
out["train"] = {"epochs_s": clock.epochs, "peak_mib": peak_mib()}
reset_peak()
passes = []
for _ in range(a.epochs):
    start = time.perf_counter()
    model.get_latent_representation(batch_size=128)
    passes.append(time.perf_counter() - start)
out["latent"] = {"epochs_s": passes, "peak_mib": peak_mib()}
out["train"]["elbo"] = elbo(model, read("reference_validation"))
out["latent"]["elbo"] = None
del adata
reset_peak()
query = read("query")
scvi.settings.seed = a.seed
mapped = Model.load_query_data(query, model, accelerator=ACCELERATOR, freeze_dropout=True)
clock = Clock()
mapped.train(callbacks=[clock], plan_kwargs={"weight_decay": 0.0}, **TRAIN)
out["surgery"] = {"epochs_s": clock.epochs, "peak_mib": peak_mib(), "elbo": elbo(mapped, read("query_validation"))}
json.dump(out, sys.stdout)
