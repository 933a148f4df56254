"""Makes gaussian.json: (epsilon, delta) of Gaussian noise by Google's dp-accounting and by mpmath, for worker/src/privacy.rs.

Deltas are by mpmath at 60 digits, and were compared with an integral that does not know the formula. Epsilons are by
get_epsilon_gaussian (after Balle & Wang 2018), those of compositions by the accountant of privacy loss distributions, which knows
nothing of mu. With Python 3.11:

    python3 -m venv venv && venv/bin/pip install dp-accounting==0.6.0 mpmath==1.4.1 && venv/bin/python make.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import mpmath as mp
from dp_accounting import dp_event, get_epsilon_gaussian
from dp_accounting.pld import pld_privacy_accountant as pld
from dp_accounting.privacy_accountant import NeighboringRelation

mp.mp.dps = 60


def delta(mu, epsilon):
    """The definition, by the normal distribution at 60 digits."""
    mu, epsilon = mp.mpf(mu), mp.mpf(epsilon)
    return mp.ncdf(mu / 2 - epsilon / mu) - mp.exp(epsilon) * mp.ncdf(-mu / 2 - epsilon / mu)


def by_integral(mu, epsilon):
    """The same from the densities of N(0, 1) and N(mu, 1), without the formula: the mass by which one exceeds the other."""
    mu, epsilon = mp.mpf(mu), mp.mpf(epsilon)
    exceeds = lambda x: mp.npdf(x, mu) - mp.exp(epsilon) * mp.npdf(x)
    start = epsilon / mu + mu / 2
    unit = 1 / (1 + start)
    steps = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    return mp.quad(exceeds, [start + step * unit for step in steps] + [start + 40])


deltas = []
for mu in ["0.001", "0.05", "0.3", "1", "2.5", "8", "40"]:
    for epsilon in ["0", "0.01", "0.5", "1", "3", "10", "80"]:
        value, integral = delta(mu, epsilon), by_integral(mu, epsilon)
        if value < mp.mpf("1e-60"):
            continue
        assert abs(value - integral) <= mp.mpf("1e-8") * value, (mu, epsilon, value, integral)
        deltas.append({"mu": float(mu), "epsilon": float(epsilon), "delta": float(value)})

epsilons = []
for mu in [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 20.0]:
    for at in [1e-9, 1e-6, 1e-5, 1e-3]:
        epsilons.append({"mu": mu, "delta": at, "epsilon": get_epsilon_gaussian(1 / mu, at, tol=1e-12)})

# What an accountant of its own makes of several releases with noise of different sizes. It discretises, and is never too small.
composed = []
for mus in [[0.5] * 4, [1.0, 0.25, 0.25], [0.3] * 30, [2.0, 1.0, 0.1]]:
    accountant = pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    for mu in mus:
        accountant.compose(dp_event.GaussianDpEvent(1 / mu))
    composed.append({"mus": mus, "delta": 1e-6, "epsilon": accountant.get_epsilon(1e-6)})

made = {name: version(name) for name in ["dp-accounting", "mpmath"]}
table = {"made_with": made, "delta": deltas, "epsilon": epsilons, "composed": composed}
Path(__file__).with_name("gaussian.json").write_text(json.dumps(table, indent=1) + "\n")
