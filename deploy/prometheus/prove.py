#!/usr/bin/env python3
"""Runs a Prometheus beside a real consortium, hurts that, and looks whether the alerts fire and the dashboards have data.

    deploy/prometheus/prove.py --bin target/release [--keep DIR]

Needs Python alone, the two programs, and `prometheus` (Debian's package); without it, it says so and ends well. Everything listens on
the loopback. The rules are those of this folder with shorter patience, so that an alert of five minutes need not be waited for.
"""

import argparse
import json
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from consortium import Consortium, Failed, free_ports, get, is_ready, wait_until  # noqa: E402

DASHBOARDS = HERE.parent / "grafana"
# No reconstruction is that good.
GATE = ("--max-reconstruction", "0.000001")


class World(Consortium):
    """A consortium, and who watches it."""

    def watch(self):
        """Starts Prometheus with the rules of this folder, with shorter patience."""
        self.prometheus = free_ports(1)[0]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["*.rules.yml"],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{p}" for p in ports], "labels": {"consortium": "lung"}}]}
                for job, ports in (("archipelago-coordinators", self.ops), ("archipelago-workers", self.site_ops.values()))
            ],
        }
        for rules in HERE.glob("*.rules.yml"):
            text = re.sub(r"^(\s+for:) .*$", r"\1 2s", rules.read_text(), flags=re.M)
            (self.work / rules.name).write_text(text)
        # JSON is YAML.
        (self.work / "prometheus.yml").write_text(json.dumps(config))
        self.start("prometheus", "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=metrics",
                   f"--web.listen-address=127.0.0.1:{self.prometheus}")
        wait_until("Prometheus answers", lambda: get(f"{self.api()}/query?query=up"))
        wait_until("it has seen all, and evaluated the rules", lambda: len(self.query("up == 1 and on (consortium) archipelago:leaders:sum")) == 4)

    def api(self):
        return f"http://127.0.0.1:{self.prometheus}/api/v1"

    def query(self, expression):
        answer = get(f"{self.api()}/query?" + urllib.parse.urlencode({"query": expression}))
        if answer is None:
            raise Failed("Prometheus is gone")
        body = json.loads(answer[1])
        if body["status"] != "success":
            raise Failed(f"{expression}: {body.get('error')}")
        return body["data"]["result"]

    def firing(self):
        alerts = self.query('ALERTS{alertstate="firing"}')
        return {alert["metric"]["alertname"].removeprefix("Archipelago") for alert in alerts}


def step(what, world, fires=(), quiet=()):
    """Waits until these alerts fire and those do not."""
    begun = time.monotonic()
    fires, quiet = set(fires), set(quiet)
    try:
        wait_until("", lambda: fires <= world.firing() and not quiet & world.firing())
    except Failed:
        raise Failed(f"{what}: expected {sorted(fires)} and not {sorted(quiet)}, found {sorted(world.firing())}") from None
    print(f"ok  {what}: {', '.join(sorted(fires)) or 'quiet'} ({time.monotonic() - begun:.0f} s)", flush=True)


def check_dashboards(world):
    """Every query of every panel is asked, with all variables at their widest; what comes back must not be empty."""
    n_queries, empty = 0, []
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = re.sub(r"\$(consortium|instance)\b", ".*", target["expr"])
                n_queries += 1
                if not world.query(expression):
                    empty.append(f"{path.name}: {panel['title']}: {target['expr']}")
    if empty:
        raise Failed("no data for\n  " + "\n  ".join(empty))
    print(f"ok  {n_queries} queries of dashboards have data", flush=True)


def prove(world):
    world.found()
    world.publish_reference()
    world.let_in("north")
    world.watch()
    step("all is well", world, quiet={"CoordinatorDown", "QuorumAtRisk", "QuorumLost", "NoLeader", "WorkerDown", "WorkerNoContact",
                                      "BlobsMissing", "DiskLow", "StatesDiffer", "TaskNearDeadline", "SiteSilent"})

    # The site's policy asks for as many cells as it has not, so it gives the task back, and its deadline comes nearer.
    world.run(world.coordinator, "task", "publish", "lung", "--epochs", 1, "--min-cells", 1_000_000, "--deadline", 7200)
    step("a task without a result", world, fires={"TaskNearDeadline", "TasksGivenUp"})
    # A gate that nobody meets: the site trains and submits, and is refused.
    world.run(world.coordinator, "task", "publish", "lung", "--epochs", 1, *GATE)
    step("a submission that no gate lets through", world, fires={"SubmissionsRefused", "WorkerTasksFail"})
    world.run(world.coordinator, "task", "publish", "lung", "--epochs", 1)
    wait_until("a submission is accepted", lambda: any(
        float(found["value"][1]) > 0 for found in world.query('archipelago_assignments{stage="accepted"}')))
    check_dashboards(world)

    world.ask_in("south")
    step("a site asks to be let in", world, fires={"SiteWaiting"})
    world.run(world.coordinator, "refuse", "south", "--reason", "only a test")
    step("it was answered", world, quiet={"SiteWaiting"})

    follower = next(n for n in (3, 2, 1) if n != world.leader())
    blobs = sorted(p for p in (world.work / f"lung/node{follower}/data/blobs").rglob("*") if p.is_file() and p.stat().st_size > 1024)
    spoilt = bytearray(blobs[0].read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    blobs[0].chmod(0o600)
    blobs[0].write_bytes(spoilt)
    world.run(world.coordinator, "blobs", "verify")
    step(f"a blob of node {follower} is damaged", world, fires={"BlobsDamaged"})

    config = world.work / f"lung/node{follower}/node.toml"
    whole = config.read_text()
    config.write_text(re.sub(r"reserve_bytes = \d+", f"reserve_bytes = {2**62}", whole))
    world.stop(f"node{follower}", signal.SIGTERM)
    world.start_node(follower)
    step(f"the disk of node {follower} is below its reserve", world, fires={"DiskLow"}, quiet={"BlobsDamaged"})
    config.write_text(whole)
    world.stop(f"node{follower}", signal.SIGTERM)
    world.start_node(follower)
    step("it has space again", world, quiet={"DiskLow", "CoordinatorDown"})

    world.stop(f"node{follower}")
    step(f"node {follower} is killed", world, fires={"CoordinatorDown", "QuorumAtRisk"}, quiet={"QuorumLost", "NoLeader"})
    leader = wait_until("somebody leads", world.leader)
    world.stop(f"node{leader}")
    step(f"node {leader} is killed, too", world, fires={"QuorumLost", "NoLeader", "WorkerNoContact"}, quiet={"QuorumAtRisk"})
    world.start_node(follower)
    world.start_node(leader)
    step("both are back", world, quiet={"CoordinatorDown", "QuorumAtRisk", "QuorumLost", "NoLeader", "WorkerNoContact"})

    world.run(world.coordinator, "site", "revoke", "north")
    begun = time.monotonic()
    wait_until("the worker of a revoked site is not ready", lambda: not is_ready(world.site_ops["north"]), 10)
    print(f"ok  /readyz turned {time.monotonic() - begun:.1f} s after the site was revoked", flush=True)
    step("the site is revoked", world, fires={"WorkerShutOut"})
    step("and its worker has ended", world, fires={"WorkerDown"})


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--bin", type=pathlib.Path, required=True, help="the folder with both programs")
    arguments.add_argument("--keep", type=pathlib.Path, help="work in this folder, and leave it")
    args = arguments.parse_args()
    if shutil.which("prometheus") is None:
        print("skipped: `prometheus` is not installed (Debian's package of that name)")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        work = args.keep or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        world = World((args.bin.resolve(), args.bin.resolve()), work.resolve())
        try:
            prove(world)
        except Failed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        finally:
            world.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
