#!/usr/bin/env bash
# Prints the Python that has scvi-tools, after installing it into the ignored folder .venv-peers if need be.
# An environment that exists is named by ARCHIPELAGO_PEERS.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${ARCHIPELAGO_PEERS:-.venv-peers}
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv" >&2
fi
if ! "$venv/bin/python" -c 'import scvi' >/dev/null 2>&1; then
  "$venv/bin/pip" install --quiet --disable-pip-version-check torch==2.11.0 scvi-tools==1.4.2 >&2
fi
echo "$venv/bin/python"
