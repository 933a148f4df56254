"""Makes the golden cases `query_*` from `surgery_*`: what a query model is after steps of `train()` in scvi-tools with a current Lightning.

The reference and query of a surgery case are built again by the public API (`setup_anndata`, `load_query_data`, `train`), with the case's
own tensors, cells and noise; the query is one minibatch. A case holds the tensors after one and three steps and in which mode they ran.

    python benches/peers/query_cases.py tests/golden
"""

import json
import pathlib
import sys

import anndata
import lightning
import pandas as pd
import scvi
import torch
from safetensors.torch import load_file, save_file

CASES = {
    "scvi": ["default_zinb", "encoded_library_ln", "genebatch_deep", "tutorial_nb_layernorm"],
    "scanvi": ["default_zinb_unlabelled", "tutorial_from_scvi_unlabelled"],
    "totalvi": ["default_nb"],
}
CLASSES = {"scvi": scvi.model.SCVI, "scanvi": scvi.model.SCANVI, "totalvi": scvi.model.TOTALVI}


def group(tensors, prefix):
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def cells_of(case, tensors, names):
    """Cells of these batches: the case's own where it has some of them, else as many copies of the first as the reference needs."""
    x = tensors["input/x"].numpy()
    codes = tensors["input/batch"].flatten().tolist()
    batch = [case["batch_codes"][code] for code in codes]
    if not set(batch) <= set(names):
        batch = [names[cell % len(names)] for cell in range(len(batch))]
    obs = pd.DataFrame({"batch": batch}, index=[f"cell{cell}" for cell in range(len(batch))])
    labels = case.get("label_categories")
    # A reference has cells of every label and of none; a query has none of any.
    known = names == case["reference_batches"]
    obs["cell_type"] = [labels[cell % len(labels)] if known else "Unknown" for cell in range(len(batch))] if labels else "any"
    cells = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{gene}" for gene in range(x.shape[1])]))
    if "input/proteins" in tensors:
        cells.obsm["proteins"] = tensors["input/proteins"].numpy()
    return cells


def query_model(model, case, tensors):
    cls = CLASSES[model]
    reference = cells_of(case, tensors, case["reference_batches"])
    setup = {"batch_key": "batch"}
    if model == "scanvi":
        setup |= {"labels_key": "cell_type", "unlabeled_category": "Unknown"}
    if model == "totalvi":
        setup |= {"protein_expression_obsm_key": "proteins"}
    cls.setup_anndata(reference, **setup)
    built = cls(reference, **case["constructor"])
    built.module.load_state_dict(group(tensors, "ref/"))
    built.is_trained_ = True
    query = cls.load_query_data(cells_of(case, tensors, case["query_batches"]), built)
    query.module.load_state_dict(group(tensors, "param/"))
    return query


class Watch(lightning.pytorch.Callback):
    """Keeps the tensors after steps, and the modes that these ran in."""

    def __init__(self):
        self.after, self.losses, self.modes = {}, [], set()

    def on_train_batch_start(self, trainer, plan, batch, batch_idx):
        self.modes.add(plan.module.training)

    def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.after[trainer.global_step] = {n: t.detach().clone() for n, t in plan.module.state_dict().items()}


def make(folder, model, variant):
    name = f"surgery_{variant}"
    case = json.loads((folder / model / f"{name}.json").read_text())
    tensors = load_file(folder / model / f"{name}.safetensors")
    noise = {tuple(value.shape): value for value in group(tensors, "noise/").values()}
    assert len(noise) == len(group(tensors, "noise/")), "noise is told by its shape"
    torch.distributions.normal._standard_normal = lambda shape, dtype, device: noise[tuple(shape)]
    torch.randperm = lambda n, **_: torch.arange(n)
    query = query_model(model, case, tensors)
    options = case["optimiser"]
    plan = query._training_plan_cls
    plan = type(plan.__name__, (plan,), {"kl_weight": property(lambda _: case["kl_weight"])})
    query._training_plan_cls = plan
    watch = Watch()
    further = {"early_stopping": False, "reduce_lr_on_plateau": False, "lr": options["lr"]} if model == "totalvi" else {}
    query.train(
        max_epochs=3, train_size=1.0, shuffle_set_split=False, batch_size=query.adata.n_obs, accelerator="cpu", devices=1, callbacks=[watch],
        enable_progress_bar=False, enable_model_summary=False, logger=False, enable_checkpointing=False,
        plan_kwargs={"lr": options["lr"], "eps": options["eps"], "weight_decay": options["weight_decay"]}, **further,
    )
    assert sorted(watch.after) == [1, 2, 3] and len(watch.modes) == 1
    # The first loss is that of the surgery case in the same mode: cells and noise are its own.
    expected = tensors["train/loss" if True in watch.modes else "eval/loss"].item()
    assert abs(watch.losses[0] - expected) < 1e-4 * abs(expected), (watch.losses, expected)
    out = {f"query{step}/{n}": t.contiguous() for step in (1, 3) for n, t in watch.after[step].items()}
    told = {
        "case": f"query_{variant}",
        "versions": {"scvi-tools": scvi.__version__, "lightning": lightning.__version__, "torch": torch.__version__},
        "of": name,
        "trains": watch.modes.pop(),
        "moved": sorted(n for n, t in watch.after[3].items() if not torch.equal(t, tensors[f"param/{n}"])),
        "glossary": {"query<k>/": "tensors of the query model after k steps of train(), from param/ of the case that `of` names, with its cells and noise"},
    }
    path = folder / model / f"query_{variant}.safetensors"
    save_file(out, path)
    path.chmod(0o644)
    (folder / model / f"query_{variant}.json").write_text(json.dumps(told, indent=1) + "\n")
    print(model, variant, "training mode" if told["trains"] else "evaluation mode", len(told["moved"]), "tensors moved")


if __name__ == "__main__":
    root, (draw, permute) = pathlib.Path(sys.argv[1]), (torch.distributions.normal._standard_normal, torch.randperm)
    for of_model, variants in CASES.items():
        for of_variant in variants:
            torch.distributions.normal._standard_normal, torch.randperm = draw, permute
            make(root, of_model, of_variant)
