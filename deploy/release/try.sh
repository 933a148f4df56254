#!/bin/sh
# Tries everything on this machine: three coordinators, two sites with made-up cells, and the version that both have made.
#
#   tar xf archipelago-coordinator-*-linux.tar.gz
#   tar xf archipelago-worker-*-linux.tar.gz
#   archipelago-worker-*/try.sh [FOLDER]
#
# Everything listens on the loopback, on three ports from $PORT on (7101). It needs a shell and what every system has beside it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
worker=$here/bin/archipelago-worker
coordinator=$(ls "$here"/../archipelago-coordinator-*/bin/archipelago-coordinator 2>/dev/null | tail -n 1) || true
if [ -z "$coordinator" ]; then
    echo "the coordinator's archive is to be unpacked beside the worker's" >&2
    exit 1
fi
folder=${1:-archipelago-try}
first=${PORT:-7101}

mkdir "$folder"
cd "$folder"
running=
end() {
    # shellcheck disable=SC2086
    [ -z "$running" ] || kill $running 2>/dev/null || true
}
trap end EXIT
trap 'exit 1' INT TERM

# Asks until what is asked succeeds.
until_so() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 120 ]; then
            echo "in a minute it did not come to this: $*; logs are in $folder" >&2
            exit 1
        fi
        sleep 0.5
    done
}

step() {
    echo "-- $*"
}

step "a consortium is founded, and its coordinators start"
"$coordinator" found lung --nodes "127.0.0.1:$first,127.0.0.1:$((first + 1)),127.0.0.1:$((first + 2))" --operator anna > found.log
export ARCHIPELAGO_CONFIG="$PWD/lung/operator/operator.toml"
for node in 1 2 3; do
    "$coordinator" serve --config "lung/node$node/node.toml" 2> "node$node.log" &
    running="$running $!"
done

step "a reference is trained on cells that may be shared, and published with a task"
"$worker" generate --n-cells 300 --n-genes 100 --batches one,two --seed 1 --quiet --out shared.h5ad > /dev/null
"$worker" train shared.h5ad --batch-key batch --owner anna --dataset core --epochs 20 --quiet --out reference > train.log
"$coordinator" reference publish lung reference > publish.log
"$coordinator" task publish lung --epochs 20 > task.log

"$coordinator" invite north south > invite.log
asks() {
    key=$("$coordinator" requests | grep -A 1 "^$1  asks" | sed -n 's/^    key //p')
    [ -n "$key" ]
}
for site in north south; do
    step "$site joins with cells of its own, is let in, and maps them"
    "$worker" generate --n-cells 300 --n-genes 100 --batches "$site" --seed 2 --quiet --out "$site.h5ad" > /dev/null
    "$worker" join "$site.invite" --data "$site.h5ad" --batch-key batch > "join-$site.log" 2>&1 &
    joining=$!
    until_so asks "$site"
    "$coordinator" approve "$site" --fingerprint "$key" > "approve-$site.log"
    wait "$joining"
    "$worker" serve --config "$site/site.toml" 2> "serve-$site.log" &
    running="$running $!"
done

both_have_handed_in() {
    [ "$("$coordinator" task show 1 | grep -c accepted)" -eq 2 ]
}
until_so both_have_handed_in
step "both are in the reference; their cells stayed at home"
"$coordinator" reference show lung
