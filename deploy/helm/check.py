#!/usr/bin/env python3
"""Lints and renders the chart, and validates what comes of it against the schemas of Kubernetes.

    deploy/helm/check.py

Needs `helm-python-sdk`, `kubernetes-validate` and `pyyaml` of Python's registry; without them it says so and ends well. No cluster is asked.
"""

import pathlib
import sys

CHART = pathlib.Path(__file__).resolve().parent / "archipelago"
KUBERNETES = "1.31"
INFO = 1
# What is rendered: by default, and with everything that can be switched on.
VALUES = {
    "default": {},
    "everything": {
        "nodes": 5,
        "addresses": [f"node{n}.example.org:7101" for n in range(1, 6)],
        "external": {"enabled": True, "annotations": {"example.org/pool": "consortium"}},
        "storage": {"className": "fast"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "consortium", "operator": "Exists"}],
    },
}
REFUSED = {"`nodes` is 2": {"nodes": 2}, "`addresses` has 1": {"addresses": ["a:7101"]}}


def main():
    try:
        import helm_python
        import kubernetes_validate
        import yaml
    except ImportError as missing:
        print(f"skipped: `{missing.name}` is not installed (pip install helm-python-sdk kubernetes-validate pyyaml)")
        return 0
    report = helm_python.lint(CHART)
    problems = [m for m in report["messages"] if m["severity"] != INFO]
    if problems:
        sys.exit(f"lint: {problems}")
    chart = helm_python.Chart.load(CHART)
    for name, values in VALUES.items():
        kinds = []
        for path, text in sorted(chart.render(values, name="lung", namespace="atlas").items()):
            for manifest in filter(None, yaml.safe_load_all(text)):
                kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
                kinds.append(manifest["kind"])
        print(f"ok  {name}: {', '.join(kinds)}")
    for words, values in REFUSED.items():
        try:
            chart.render(values, name="lung", namespace="atlas")
        except helm_python.HelmError as error:
            if words not in str(error):
                sys.exit(f"{values} is refused with other words: {error}")
        else:
            sys.exit(f"{values} is not refused")
    print("ok  values that cannot be are refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
