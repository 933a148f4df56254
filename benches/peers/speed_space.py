"""Times SageNet on one section: its network of genes, an epoch of its networks, importances, mapping. Prints one JSON object.

usage: speed_space.py <folder with section.h5ad> [--model sagenet] [--epochs 3] [--threads 1] [--seed 0]

Seconds are the processor's, of all threads. Needs scArches 0.6.1, torch_geometric, captum and tensorboard.
"""
import argparse, json, logging, os, sys, time, warnings

ap = argparse.ArgumentParser()
ap.add_argument("folder")
ap.add_argument("--model", default="sagenet", choices=["sagenet"])
ap.add_argument("--epochs", type=int, default=3)
ap.add_argument("--threads", type=int, default=1)
ap.add_argument("--seed", type=int, default=0)
a = ap.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import anndata as ad, torch
from scarches.models.sagenet.sagenet import sagenet
from scarches.models.sagenet.utils import glasso

torch.set_num_threads(a.threads)
torch.manual_seed(a.seed)


def peak_mib():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def timed(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(*seconds):
    return {"epochs_s": list(seconds), "peak_mib": peak_mib(), "elbo": None}


section = ad.read_h5ad(f"{a.folder}/section.h5ad")
section.X = section.X.toarray()
columns = sorted(name for name in section.obs if name.startswith("leiden_"))
for name in columns:
    section.obs[name] = section.obs[name].astype(int)
out = {"genes": measured(timed(lambda: glasso(section, [0.25, 0.5])))}
networks = sagenet(device="cpu")
train = lambda cells, columns, **more: networks.train(cells, comm_columns=columns, tag="s", **more)
out["train"] = measured(timed(lambda: train(section, columns, epochs=a.epochs)) / a.epochs)
# One network's importances, by the difference of two trainings of one epoch.
plain = timed(lambda: train(section, columns[:1], epochs=1))
out["importance"] = measured(timed(lambda: train(section, columns[:1], epochs=1, importance=True)) - plain)
out["map"] = measured(timed(lambda: networks.load_query_data(section.copy())))
json.dump(out, sys.stdout)
