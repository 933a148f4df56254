"""A consortium of real processes on the loopback, for the scripts beside this one: founded, started, hurt and asked by the product's own
commands. It needs Python alone.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

PATIENCE_S = 120


class Failed(Exception):
    pass


def wait_until(what, is_so, patience_s=PATIENCE_S):
    end = time.monotonic() + patience_s
    while True:
        found = is_so()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"in {patience_s} s it did not come to this: {what}")
        time.sleep(0.25)


def free_ports(n):
    """Ports on which both a TCP and a UDP socket can be opened now."""
    held, ports = [], []
    while len(ports) < n:
        tcp = socket.socket()
        tcp.bind(("127.0.0.1", 0))
        held.append(tcp)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        held.append(udp)
        try:
            udp.bind(tcp.getsockname())
            ports.append(tcp.getsockname()[1])
        except OSError:
            continue
    for one in held:
        one.close()
    return ports


def get(url):
    """Status and text; None if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return None


class Consortium:
    """Three coordinators and some sites under one folder. Every process ends with it.

    With `root`, programs see that folder as the whole system, and `work` and `programs` are paths in it; they have no environment then.
    """

    def __init__(self, programs, work, root=None):
        self.coordinator, self.worker = (pathlib.Path(folder) / f"archipelago-{name}" for name, folder in zip(("coordinator", "worker"), programs))
        self.root, self.inside = root, pathlib.Path(work)
        self.work = root / self.inside.relative_to("/") if root else self.inside
        self.running = {}
        ports = free_ports(6)
        self.nodes, self.ops = ports[:3], ports[3:]
        self.site_ops = {}

    def options(self):
        """How a program is started."""
        config = {"ARCHIPELAGO_CONFIG": str(self.inside / "lung/operator/operator.toml")}
        if self.root is None:
            return {"cwd": self.work, "env": dict(os.environ, **config)}

        def enter():
            os.chroot(self.root)
            os.chdir(self.inside)

        return {"preexec_fn": enter, "env": config}

    def run(self, program, *args):
        done = subprocess.run([program, *map(str, args)], capture_output=True, text=True, **self.options())
        if done.returncode != 0:
            raise Failed(f"{program.name} {' '.join(map(str, args))}: {done.stderr}")
        return done.stdout

    def start(self, name, *command):
        with open(self.work / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, **self.options())

    def lives(self, name):
        if self.running[name].poll() is not None:
            raise Failed(f"{name} has ended: {(self.work / f'{name}.log').read_text()[-1000:]}")
        return True

    def stop(self, name, how=signal.SIGKILL):
        process = self.running.pop(name)
        process.send_signal(how)
        process.wait()

    def end(self):
        for name in list(self.running):
            self.stop(name)

    def found(self):
        nodes = ",".join(f"127.0.0.1:{port}" for port in self.nodes)
        self.run(self.coordinator, "found", "lung", "--nodes", nodes, "--operator", "anna")
        for n in (1, 2, 3):
            prepend(self.work / f"lung/node{n}/node.toml", f'ops = "127.0.0.1:{self.ops[n - 1]}"\nops_names = true\n')
            self.start_node(n)
        wait_until("every coordinator is ready", lambda: all(is_ready(port) for port in self.ops))

    def start_node(self, n):
        self.start(f"node{n}", self.coordinator, "serve", "--config", f"lung/node{n}/node.toml")
        wait_until(f"node {n} answers", lambda: self.lives(f"node{n}") and get(f"http://127.0.0.1:{self.ops[n - 1]}/healthz"))

    def leader(self):
        for n, port in enumerate(self.ops, 1):
            answer = get(f"http://127.0.0.1:{port}/metrics")
            if answer and "\narchipelago_raft_is_leader 1\n" in answer[1]:
                return n
        return None

    def publish_reference(self):
        """A small reference of made-up cells, published as `lung`."""
        self.generate("shared", "one,two", 1)
        self.run(self.worker, "train", "shared.h5ad", "--batch-key", "batch", "--owner", "anna", "--dataset", "core",
                 "--epochs", 2, "--out", "reference")
        self.run(self.coordinator, "reference", "publish", "lung", "reference")

    def generate(self, name, batches, seed):
        self.run(self.worker, "generate", "--out", f"{name}.h5ad", "--batches", batches, "--seed", seed,
                 "--n-cells", 300, "--n-genes", 80, "--n-types", 2, "--n-donors", 3)

    def ask_in(self, site):
        """A site with made-up cells asks to be let in. Returns the fingerprint that a person would read out on the telephone."""
        self.generate(site, f"{site}-1", 2)
        self.run(self.coordinator, "invite", site)
        self.start(f"join-{site}", self.worker, "join", f"{site}.invite", "--data", f"{site}.h5ad", "--batch-key", "batch")
        return wait_until(f"{site} asks to be let in", lambda: self.key_of(site))

    def key_of(self, site):
        text = self.run(self.coordinator, "requests")
        found = re.search(rf"^{site}  asks .*\n    key (\S+)$", text, flags=re.M)
        return found and found[1]

    def let_in(self, site):
        """A site comes in, and its worker begins to serve."""
        self.run(self.coordinator, "approve", site, "--fingerprint", self.ask_in(site))
        self.running.pop(f"join-{site}").wait(PATIENCE_S)
        self.site_ops[site] = free_ports(1)[0]
        prepend(self.work / f"{site}/site.toml", f'ops = "127.0.0.1:{self.site_ops[site]}"\n')
        self.start(site, self.worker, "serve", "--config", f"{site}/site.toml")
        wait_until(f"the worker of {site} is ready", lambda: self.lives(site) and is_ready(self.site_ops[site]))


def prepend(path, text):
    path.write_text(text + path.read_text())


def is_ready(port):
    answer = get(f"http://127.0.0.1:{port}/readyz")
    return answer is not None and answer[0] == 200
