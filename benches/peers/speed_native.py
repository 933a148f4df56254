"""Times scArches' native models on the files of one case: training, embedding, mapping. Prints one JSON object.

usage: speed_native.py <folder with reference.h5ad, reference_validation.h5ad, query.h5ad, query_validation.h5ad>
                       [--model trvae|scgen|expimap|scpoli] [--epochs 3] [--threads 2]

Needs scArches 0.6.1 in a Python 3.11 of its own: it does not work with current releases of what it is built on.
"""
import argparse, contextlib, gc, importlib, io, json, logging, os, sys, time, warnings

ap = argparse.ArgumentParser()
ap.add_argument("folder")
ap.add_argument("--model", default="trvae", choices=["trvae", "scgen", "expimap", "scpoli"])
ap.add_argument("--epochs", type=int, default=3)
ap.add_argument("--threads", type=int, default=2)
a = ap.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import anndata, numpy as np, torch

with contextlib.redirect_stdout(io.StringIO()):
    import scarches
    from scarches.models import EXPIMAP, TRVAE, scPoli, scgen

torch.set_num_threads(a.threads)
epochs = []


def timed_epochs(trainer):
    """Notes when each epoch of a trainer's ends."""
    on_epoch_end = trainer.on_epoch_end

    def timed(self, *args, **kwargs):
        now = time.perf_counter()
        epochs.append(now - timed_epochs.last)
        timed_epochs.last = now
        return on_epoch_end(self, *args, **kwargs)

    trainer.on_epoch_end = timed


def read(name):
    adata = anndata.read_h5ad(f"{a.folder}/{name}.h5ad")
    adata.X = adata.X.toarray().astype(np.float32)
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    return adata


def log_normalised(name):
    """As scGen takes them, under the names that it asks for."""
    adata = read(name)
    adata.X = np.log1p(adata.X / np.maximum(adata.X.sum(1, keepdims=True), 1) * 1e4).astype(np.float32)
    adata.obs["cell_type"] = adata.obs["every_cell_type"].astype(str)
    adata.obs["study"] = adata.obs["batch"]
    adata.obs_names = [f"{name}-{cell}" for cell in adata.obs_names]
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
    timed_epochs.last = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        model.train(n_epochs=a.epochs, monitor=False, **more)
    return list(epochs)


def passes(embed):
    seconds = []
    for _ in range(a.epochs):
        start = time.perf_counter()
        embed()
        seconds.append(time.perf_counter() - start)
    return seconds


def elbo(model, adata):
    """Minus reconstruction and divergence per cell, one draw, as ours."""
    torch.manual_seed(0)
    net, total = model.model.eval(), 0.0
    for s in range(0, adata.n_obs, 512):
        x = torch.tensor(adata.X[s:s + 512])
        names = adata.obs["batch"].values[s:s + 512]
        with torch.no_grad():
            if a.model == "scpoli":
                batch = torch.tensor([net.condition_encoders["batch"][v] for v in names])[:, None]
                joint = torch.tensor([net.conditions_combined_encoder[v] for v in names])
                recon, kl = net(x=x, batch=batch, combined_batch=joint, sizefactor=x.sum(1))[1:3]
            else:
                batch = torch.tensor([net.condition_encoder[v] for v in names])
                recon, kl = net(x=x, batch=batch, sizefactor=x.sum(1))[:2]
        total += len(x) * (float(recon) + float(kl))
    return -total / adata.n_obs


def trvae(out):
    timed_epochs(importlib.import_module("scarches.trainers.trvae.trainer").Trainer)
    options = dict(use_early_stopping=False, seed=0, train_frac=1.0)
    adata = read("reference")
    torch.manual_seed(0)
    model = TRVAE(adata, condition_key="batch", hidden_layer_sizes=[128, 128])
    out["train"] = {"epochs_s": train(model, **options), "peak_mib": peak_mib()}
    reset_peak()
    seconds = passes(lambda: model.get_latent(adata.X, adata.obs["batch"].values, mean=True))
    out["latent"] = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": None}
    out["train"]["elbo"] = elbo(model, read("reference_validation"))
    del adata
    reset_peak()
    query = read("query")
    with contextlib.redirect_stdout(io.StringIO()):
        mapped = TRVAE.load_query_data(query, model)
    seconds = train(mapped, weight_decay=0, **options)
    out["surgery"] = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": elbo(mapped, read("query_validation"))}


def expimap(out):
    """Sets without a meaning, the same as ours: each gene is in two of 200."""
    timed_epochs(importlib.import_module("scarches.trainers.expimap.regularized").expiMapTrainer)
    options = dict(use_early_stopping=False, seed=0, train_frac=1.0, weight_decay=0, print_stats=False)
    adata = read("reference")
    genes, sets = np.arange(adata.n_vars), np.arange(200)[:, None]
    mask = ((genes % 200 == sets) | ((7 * genes + 3) % 200 == sets)).astype(int).tolist()
    torch.manual_seed(0)
    model = EXPIMAP(adata, condition_key="batch", hidden_layer_sizes=[256, 256, 256], mask=mask)
    out["train"] = {"epochs_s": train(model, alpha=0.7, alpha_kl=0.5, **options), "peak_mib": peak_mib()}
    reset_peak()
    seconds = passes(lambda: model.get_latent(adata.X, adata.obs["batch"].values, mean=True))
    out["latent"] = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": None}
    out["train"]["elbo"] = elbo(model, read("reference_validation"))
    del adata
    reset_peak()
    query = read("query")
    with contextlib.redirect_stdout(io.StringIO()):
        mapped = EXPIMAP.load_query_data(query, model)
    seconds = train(mapped, alpha_kl=0.1, **options)
    out["surgery"] = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": elbo(mapped, read("query_validation"))}


def scgen_(out):
    """Mapping takes the reference's corrected cells; correcting them is not part of the time."""
    trainer = importlib.import_module("scarches.trainers.scgen.trainer")
    timed_epochs(trainer.vaeArithTrainer)
    adata = log_normalised("reference")
    torch.manual_seed(0)
    model = scgen(adata, hidden_layer_sizes=[256, 128])
    out["train"] = {"epochs_s": train(model, seed=0), "peak_mib": peak_mib(), "elbo": None}
    reset_peak()
    with torch.no_grad():
        seconds = passes(lambda: model.get_latent(adata.X))
    out["latent"] = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": None}
    with contextlib.redirect_stdout(io.StringIO()):
        corrected = model.batch_removal(adata, batch_key="study", cell_label_key="cell_type", return_latent=True)
    reset_peak()
    query = log_normalised("query")
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        scgen.map_query_data(corrected, query, model, batch_key="study", return_latent=True)
    seconds = [time.perf_counter() - start]
    out["surgery"] = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": None}


def scpoli(out):
    timed_epochs(importlib.import_module("scarches.trainers.scpoli.trainer").scPoliTrainer)
    options = dict(use_early_stopping=False, seed=0, train_frac=1.0)
    adata = read("reference")
    torch.manual_seed(0)
    model = scPoli(adata, condition_keys="batch", embedding_dims=5)
    out["train"] = {"epochs_s": train(model, **options), "peak_mib": peak_mib()}
    reset_peak()
    seconds = passes(lambda: model.get_latent(adata, mean=True))
    out["latent"] = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": None}
    out["train"]["elbo"] = elbo(model, read("reference_validation"))
    del adata
    reset_peak()
    query = read("query")
    with contextlib.redirect_stdout(io.StringIO()):
        mapped = scPoli.load_query_data(query, model, labeled_indices=[])
    seconds = train(mapped, weight_decay=0, **options)
    out["surgery"] = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": elbo(mapped, read("query_validation"))}


out = {"scarches": scarches.__version__, "torch": torch.__version__}
{"trvae": trvae, "scgen": scgen_, "expimap": expimap, "scpoli": scpoli}[a.model](out)
json.dump(out, sys.stdout)
