#!/usr/bin/env bash
# Prepares a machine that has Rust, Python 3 with pip, a C/C++ compiler and git to build Archipelago.
#
# Puts libtorch and CMake into the user's cache directory and writes `.cargo/config.toml` in this
# checkout, so that plain `cargo build`, `cargo nextest run` and the binaries find both. Needs no
# root, downloads nothing twice, and respects an existing LIBTORCH or a recent enough CMake.
set -euo pipefail

readonly TORCH_VERSION=2.11.0 # tch 0.24 accepts this version only
readonly CMAKE_VERSION=3.31.6 # the bundled HDF5 wants 3.26 or newer
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/archipelago"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly ROOT
ARCH="$(uname -m)"
readonly ARCH

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

require() {
    command -v "$1" >/dev/null 2>&1 || fail "\`$1\` was not found" "$2"
}

# download_wheel DIR PACKAGE==VERSION — the wheel for this architecture, whatever the local Python's version
download_wheel() {
    local platforms=()
    local tag
    for tag in manylinux_2_28 manylinux_2_27 manylinux_2_25 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux2010; do
        platforms+=(--platform "${tag}_${ARCH}")
    done
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none "${platforms[@]}" -d "$1" "$2" ||
        fail "could not download the Python package \`$2\`" \
            "check the network, or install libtorch $TORCH_VERSION yourself and set LIBTORCH to it"
}

# extract_members WHEEL DESTINATION PATTERN... — only the members that match one of the patterns
extract_members() {
    python3 - "$@" <<'PY'
import fnmatch, sys, zipfile
wheel, destination, patterns = sys.argv[1], sys.argv[2], sys.argv[3:]
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        if any(fnmatch.fnmatch(name, p) for p in patterns):
            archive.extract(name, destination)
PY
}

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; }

# A tree with the CPU libraries and the headers only: 540 MB instead of the wheel's 2 GB and its 3 GB of CUDA packages.
install_cpu_libtorch() {
    local tree="$1" work
    work="$(mktemp -d "$CACHE/work.XXXXXX")"
    say "downloading libtorch $TORCH_VERSION for the CPU (530 MB, once per user)"
    download_wheel "$work" "torch==$TORCH_VERSION"
    extract_members "$work"/torch-*.whl "$work/wheel" \
        'torch/lib/libc10.so' 'torch/lib/libtorch_cpu.so' 'torch/lib/libgomp*' 'torch/lib/libarm_compute*' \
        'torch/lib/libopenblas*' 'torch/lib/libgfortran*' 'torch.libs/*' 'torch/include/*' 'torch-*.dist-info/licenses/*'
    # For the notices of `make release`; a wheel may keep them elsewhere.
    mv "$work"/wheel/torch-*.dist-info/licenses "$work/wheel/torch/licenses" 2>/dev/null ||
        say "the wheel of libtorch has no licence texts where they were expected"
    rm -f "$work"/torch-*.whl
    if readelf -d "$work/wheel/torch/lib/libtorch_cpu.so" | grep -q libcudart; then
        # libtorch_cpu.so of the CUDA wheel names these two small libraries, though it never calls them without a GPU.
        download_wheel "$work" nvidia-cuda-runtime==13.0.96
        download_wheel "$work" nvidia-cuda-cupti==13.0.85
        local wheel
        for wheel in "$work"/nvidia_cuda_*.whl; do
            extract_members "$wheel" "$work/cuda" '*/lib/libcudart.so*' '*/lib/libcupti.so*'
        done
        find "$work/cuda" -name 'lib*.so*' -exec cp {} "$work/wheel/torch/lib/" \;
    fi
    # The wheel's own libtorch.so pulls in CUDA; this one is the same empty shell over the CPU library.
    (cd "$work/wheel/torch/lib" && gcc -shared -o libtorch.so -Wl,--no-as-needed -Wl,-rpath,'$ORIGIN' \
        -L. -l:libtorch_cpu.so -l:libc10.so)
    printf '%s\n' "$TORCH_VERSION" >"$work/wheel/torch/build-version"
    rm -rf "$tree"
    mv "$work/wheel/torch" "$tree"
    rm -rf "$work"
}

install_cuda_libtorch() {
    local target="$1"
    say "downloading libtorch $TORCH_VERSION with CUDA (about 3 GB, once per user)"
    rm -rf "$target.part"
    python3 -m pip install --quiet --disable-pip-version-check --target "$target.part" "torch==$TORCH_VERSION" ||
        fail "could not install \`torch==$TORCH_VERSION\` with CUDA" \
            "check the network and free disk, or set LIBTORCH to an existing tree"
    printf '%s\n' "$TORCH_VERSION" >"$target.part/torch/build-version"
    mv "$target.part" "$target"
}

# Prints the libtorch tree to build against.
libtorch_tree() {
    if [[ -n "${LIBTORCH:-}" ]]; then
        [[ -d "$LIBTORCH/lib" && -d "$LIBTORCH/include" ]] ||
            fail "LIBTORCH is \`$LIBTORCH\`, which has no lib/ and include/" "unset LIBTORCH to let this script install it"
        printf '%s\n' "$LIBTORCH"
        return
    fi
    [[ "$(uname -s)" == Linux && ("$ARCH" == x86_64 || "$ARCH" == aarch64) ]] ||
        fail "no ready-made libtorch for $(uname -s) on $ARCH" "install libtorch $TORCH_VERSION and set LIBTORCH to it"
    if has_gpu; then
        local target="$CACHE/torch-$TORCH_VERSION-cuda"
        [[ -f "$target/torch/build-version" ]] || install_cuda_libtorch "$target"
        printf '%s\n' "$target/torch"
    else
        local tree="$CACHE/libtorch-$TORCH_VERSION-cpu"
        [[ -f "$tree/build-version" ]] || install_cpu_libtorch "$tree"
        printf '%s\n' "$tree"
    fi
}

version_at_least() { [[ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n1)" == "$2" ]]; }

# Prints the CMake that builds HDF5.
cmake_program() {
    local found
    if found="$(command -v cmake)" && version_at_least "$(cmake --version | head -n1 | grep -oE '[0-9.]+')" 3.26; then
        printf '%s\n' "$found"
        return
    fi
    local tree="$CACHE/cmake-$CMAKE_VERSION"
    if [[ ! -x "$tree/cmake/data/bin/cmake" ]]; then
        say "downloading CMake $CMAKE_VERSION"
        local work
        work="$(mktemp -d "$CACHE/work.XXXXXX")"
        download_wheel "$work" "cmake==$CMAKE_VERSION"
        extract_members "$work"/cmake-*.whl "$work/tree" '*'
        chmod +x "$work"/tree/cmake/data/bin/*
        rm -rf "$tree"
        mv "$work/tree" "$tree"
        rm -rf "$work"
    fi
    printf '%s\n' "$tree/cmake/data/bin/cmake"
}

# Everything a later `cargo` needs, in the one file that cargo and nextest read by themselves.
write_cargo_config() {
    local config="$ROOT/.cargo/config.toml" new
    new="$(
        cat <<TOML
# Written by deploy/setup.sh (\`make setup\`); not under version control. Edits are lost.
[env]
LIBTORCH = "$1"
CMAKE = "$2"

[target.$ARCH-unknown-linux-gnu]
rustflags = ["-C", "link-arg=-Wl,-rpath,$1/lib"]
TOML
    )"
    mkdir -p "$ROOT/.cargo"
    # Rewriting an equal file would make cargo rebuild nothing, but an equal time stamp is friendlier still.
    if [[ ! -f "$config" || "$(cat "$config")" != "$new" ]]; then
        printf '%s\n' "$new" >"$config"
        say "wrote .cargo/config.toml"
    fi
}

main() {
    require cargo "install Rust 1.90 or newer with rustup"
    require python3 "install Python 3 with pip"
    require gcc "install gcc and g++"
    require g++ "install gcc and g++"
    python3 -m pip --version >/dev/null 2>&1 || fail "Python's pip is missing" "install pip for python3"
    mkdir -p "$CACHE"
    # Two checkouts that set up at once share the cache; one waits for the other.
    exec 9>"$CACHE/setup.lock"
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    local libtorch cmake
    libtorch="$(libtorch_tree)"
    cmake="$(cmake_program)"
    write_cargo_config "$libtorch" "$cmake"
    say "ready (libtorch: $libtorch)"
}

main "$@"
