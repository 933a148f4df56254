"""Our commands, as the scripts beside this one run them, and what they write."""

import csv
import subprocess

import numpy as np

TOLERANCE = 1e-5


def run(worker, *words):
    """One of our commands; what it said where it failed."""
    done = subprocess.run([worker, *map(str, words), "--quiet"], capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr


def must(worker, *words):
    """One of our commands, which has to work."""
    failed = run(worker, *words)
    assert failed is None, f"{' '.join(map(str, words))}:\n{failed}"


def table(path, column):
    """The columns of a CSV whose names begin with `column`, cell by cell."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith(column)]
    return np.array([[float(row[name]) for name in names] for row in rows])
