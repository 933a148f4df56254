"""Times scArches' trVAE on the files of one case: training, embedding, surgery. Prints one JSON object.

usage: speed_native.py <folder with reference.h5ad, reference_validation.h5ad, query.h5ad, query_validation.h5ad>
                       [--model trvae] [--epochs 3] [--threads 2]

Needs scArches 0.6.1 in a Python 3.11 of its own: it does not work with current releases of what it is built on.
"""
import argparse, contextlib, gc, io, json, logging, os, sys, time, warnings

ap = argparse.ArgumentParser()
ap.add_argument("folder")
ap.add_argument("--model", default="trvae", choices=["trvae"])
ap.add_argument("--epochs", type=int, default=3)
ap.add_argument("--threads", type=int, default=2)
a = ap.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import anndata, numpy as np, torch

with contextlib.redirect_stdout(io.StringIO()):
    import scarches
    from scarches.models import TRVAE
    from scarches.trainers.trvae.trainer import Trainer

torch.set_num_threads(a.threads)
TRAIN = dict(n_epochs=a.epochs, use_early_stopping=False, seed=0, monitor=False, train_frac=1.0)
epochs = []
on_epoch_end = Trainer.on_epoch_end


def timed(self, *args, **kwargs):
    now = time.perf_counter()
    epochs.append(now - timed.last)
    timed.last = now
    return on_epoch_end(self, *args, **kwargs)


Trainer.on_epoch_end = timed


def read(name):
    adata = anndata.read_h5ad(f"{a.folder}/{name}.h5ad")
    adata.X = adata.X.toarray().astype(np.float32)
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    return adata


def reset_peak():
    gc.collect()
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def peak_mib():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def train(model, **more):
    epochs.clear()
    timed.last = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        model.train(**TRAIN, **more)
    return list(epochs)


def elbo(model, adata):
    """Minus reconstruction and divergence per cell, one draw, as ours."""
    torch.manual_seed(0)
    net, total = model.model.eval(), 0.0
    for s in range(0, adata.n_obs, 512):
        x = torch.tensor(adata.X[s:s + 512])
        batch = torch.tensor([net.condition_encoder[v] for v in adata.obs["batch"].values[s:s + 512]])
        with torch.no_grad():
            recon, kl = net(x=x, batch=batch, sizefactor=x.sum(1))[:2]
        total += len(x) * (float(recon) + float(kl))
    return -total / adata.n_obs


out = {"scarches": scarches.__version__, "torch": torch.__version__}
adata = read("reference")
torch.manual_seed(0)
model = TRVAE(adata, condition_key="batch", hidden_layer_sizes=[128, 128])
out["train"] = {"epochs_s": train(model), "peak_mib": peak_mib()}
reset_peak()
passes = []
for _ in range(a.epochs):
    start = time.perf_counter()
    model.get_latent(adata.X, adata.obs["batch"].values, mean=True)
    passes.append(time.perf_counter() - start)
out["latent"] = {"epochs_s": passes, "peak_mib": peak_mib(), "elbo": None}
out["train"]["elbo"] = elbo(model, read("reference_validation"))
del adata
reset_peak()
query = read("query")
with contextlib.redirect_stdout(io.StringIO()):
    mapped = TRVAE.load_query_data(query, model)
seconds = train(mapped, weight_decay=0)
out["surgery"] = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": elbo(mapped, read("query_validation"))}
json.dump(out, sys.stdout)
