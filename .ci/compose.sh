#!/usr/bin/env bash
# Runs docker-compose.yml with a real engine: `.ci/long compose`. Needs root on Debian.
#
# The engine gets a network namespace and a folder of its own, so that nothing of the machine is touched. It pulls nothing:
# the images that the Dockerfile begins from are played by a Debian of debootstrap's, in which `cargo` hands over the
# programs that were built on this machine, and pip finds its packages in a folder. All else is what the Dockerfile says.
#
# SWITCHBOARD_COMPOSE_PROFILE=debug takes the programs of `cargo build` instead of a release build.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

profile=${SWITCHBOARD_COMPOSE_PROFILE:-release}
work=$(mktemp -d)
space=sb-${work##*.}
export DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=0 COMPOSE_PROJECT_NAME=switchboard

in_space() { nsenter --net="/run/netns/$space" "$@"; }

finish() {
    local status=$?
    trap - EXIT
    if [ $status != 0 ]; then
        docker-compose logs --tail 20 2>/dev/null || true
        tail -n 5 "$work/dockerd.log" 2>/dev/null || true
    fi
    docker-compose down --volumes --timeout 1 >/dev/null 2>&1 || true
    if [ -s "$work/dockerd.pid" ]; then
        kill "$(cat "$work/dockerd.pid")" 2>/dev/null || true
        for _ in $(seq 100); do [ ! -e "$work/dockerd.pid" ] || sleep 0.1; done
    fi
    ip netns delete "$space" 2>/dev/null || true
    rm -rf "$work"
    exit $status
}
trap finish EXIT

# Waits until a command succeeds, for at most SECONDS.
await() {
    local seconds=$1 begin=$SECONDS
    shift
    until "$@" >/dev/null 2>&1; do
        [ $((SECONDS - begin)) -lt "$seconds" ] || { echo "not within $seconds s: $*" >&2; "$@"; return 1; }
        sleep 0.2
    done
}

call() { in_space grpcurl -plaintext -max-time 60 "$@"; }

echo "The engine"
ip netns add "$space"
ip -n "$space" link set lo up
in_space dockerd --data-root "$work/data" --exec-root "$work/exec" --host "$DOCKER_HOST" --pidfile "$work/dockerd.pid" \
    --storage-driver overlay2 >"$work/dockerd.log" 2>&1 &
await 30 docker version

echo "The base"
if [ "$profile" = release ]; then
    cargo build --release --workspace --bins
else
    cargo build --workspace --bins
fi
debootstrap --variant=minbase --include=ca-certificates,libgomp1,python3,python3-venv bookworm "$work/base" >/dev/null
mkdir "$work/base/programs" "$work/base/wheels"
cp "target/$profile/switchboard-registry" "target/$profile/switchboard-router" "$work/base/programs"
sed -n 's/^PACKAGES = \[\(.*\)\]$/\1/p' examples/model_server.py | tr -d '",' |
    xargs python3 -m pip --disable-pip-version-check download --quiet --no-deps --dest "$work/base/wheels"
cat >"$work/base/usr/local/bin/cargo" <<'END'
#!/bin/sh
mkdir -p target/release && cp /programs/* target/release/
END
chmod +x "$work/base/usr/local/bin/cargo"
tar -C "$work/base" -c . | docker import --change "ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels" - base >/dev/null
sed -n 's/^FROM \([^ ]*\).*/\1/p' Dockerfile | sort -u | xargs -n 1 docker tag base

echo "The images"
for target in registry router model; do
    docker build --quiet --target "$target" --tag "switchboard-$target" . >/dev/null
done

echo "The containers"
docker-compose up --detach --no-build --wait --wait-timeout 120
for service in registry router model; do
    facts=$(docker inspect --format '{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}' "switchboard-$service-1")
    [ "$facts" = "65532:65532 true [ALL]" ] || { echo "$service: $facts" >&2; exit 1; }
done

echo "A call"
call -d '{"model":{"display_name":"Small","family":"llama3","endpoint":"http://model:8000"}}' \
    127.0.0.1:50051 switchboard.registry.v1.ModelService/CreateModel >/dev/null
call -d '{"feature":{"name":"features/duo_chat","provider":"PROVIDER_SELF_HOSTED","model":"models/small"}}' \
    127.0.0.1:50051 switchboard.registry.v1.FeatureService/UpdateFeature >/dev/null
ask() {
    call -d '{"feature":"duo_chat","prompt":"Say hello.","options":{"max_output_tokens":16}}' \
        127.0.0.1:50052 switchboard.router.v1.InferenceService/StreamInfer | grep completion
}
await 30 ask

echo "The registry is killed: calls go on, and what it knew is there when it is back"
docker-compose kill registry
ask >/dev/null
docker-compose up --detach --no-build --wait --wait-timeout 60
call -d '{"name":"models/small"}' 127.0.0.1:50051 switchboard.registry.v1.ModelService/GetModel | grep -q '"Small"'
ask >/dev/null

echo "Both end in order"
docker-compose stop registry router
for service in registry router; do
    code=$(docker inspect --format '{{.State.ExitCode}}' "switchboard-$service-1")
    [ "$code" = 0 ] || { echo "$service ended with $code" >&2; exit 1; }
done
