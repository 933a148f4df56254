#!/usr/bin/env bash
# Prints the Python that has Multigrate 1.0.1, after installing it (3 GB or more) if need be; nothing where there is no Python 3.12.
# An environment that exists, or the folder for a new one, is named by ARCHIPELAGO_MULTIGRATE, a Python 3.12 by ARCHIPELAGO_PYTHON312.
set -euo pipefail
venv=${ARCHIPELAGO_MULTIGRATE:-${XDG_CACHE_HOME:-$HOME/.cache}/archipelago/multigrate-1.0.1}
if ! "$venv/bin/python" -c 'import multigrate' >/dev/null 2>&1; then
  found=
  for python in "${ARCHIPELAGO_PYTHON312:-}" python3.12 "$(uv python find 3.12 2>/dev/null || true)"; do
    if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 12))' 2>/dev/null; then
      found=$python
      break
    fi
  done
  if [ -z "$found" ]; then
    echo "skipped: Multigrate 1.0.1 needs Python 3.12, and there is none; name one in ARCHIPELAGO_PYTHON312" >&2
    exit 0
  fi
  "$found" -m venv "$venv" >&2
  "$venv/bin/pip" install --quiet --disable-pip-version-check multigrate==1.0.1 mudata >&2
fi
echo "$venv/bin/python"
