#!/usr/bin/env bash
# Prints the Python that has scArches 0.6.1 and mvTCR, after installing them from pins (6 GB) if need be; nothing where there is no Python 3.11.
# An environment that exists, or the folder for a new one, is named by ARCHIPELAGO_SCARCHES, a Python 3.11 by ARCHIPELAGO_PYTHON311.
set -euo pipefail
cd "$(dirname "$0")"
venv=${ARCHIPELAGO_SCARCHES:-${XDG_CACHE_HOME:-$HOME/.cache}/archipelago/scarches-0.6.1}
if ! "$venv/bin/python" -c 'import captum, scarches, tensorboard, torch_geometric' >/dev/null 2>&1; then
  found=
  for python in "${ARCHIPELAGO_PYTHON311:-}" python3.11 "$(uv python find 3.11 2>/dev/null || true)"; do
    if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      found=$python
      break
    fi
  done
  if [ -z "$found" ]; then
    echo "skipped: scArches 0.6.1 needs Python 3.11, and there is none; name one in ARCHIPELAGO_PYTHON311" >&2
    exit 0
  fi
  "$found" -m venv "$venv" >&2
  # The pins are everything: what packages ask for beside them is not looked for.
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r scarches-0.6.1.txt >&2
fi
if ! "$venv/bin/python" -c 'import importlib.util as u; assert u.find_spec("mvtcr")' >/dev/null 2>&1; then
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps mvtcr==0.2.1.2 >&2
fi
echo "$venv/bin/python"
