#!/bin/sh
# After a deb or rpm: the user and the folder of the services. Nothing is started: there is no node or site yet.
set -e
if command -v systemd-sysusers >/dev/null 2>&1; then
    systemd-sysusers || true
    systemd-tmpfiles --create || true
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
