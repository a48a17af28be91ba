#!/usr/bin/env bash
# Builds the image of the Dockerfile and runs it as it is meant to run, with Debian's buildah and debootstrap, as root and without a
# daemon: on its own file system mounted read-only, as an unknown user, with the network cut, 1 MiB of /dev/shm, scans that cannot be
# written to, and two folders that can: /runs and /tmp.
#
#   apt-get install buildah debootstrap crun && make wheelhouse && docker/test.sh [folder for the work]
#
# Not tried here: Docker and Apptainer themselves, compose.yaml, and a GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(realpath -m "${1:-/tmp/medssl-image}")
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
builds() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }
say() { printf '\n== %s\n' "$*"; }
must_fail() {  # with which words, and what
  local words=$1 told; shift
  if told=$("$@" 2>&1) || [[ $told != *"$words"* ]]; then echo "should have failed with '$words': $* $told" >&2; exit 1; fi
  echo "${told##*$'\n'}"
}
mkdir -p "$work"
trial=$(mktemp -d "$work/trial.XXXXXX")
scans=$trial/scans runs=$trial/runs

say "a base image of Debian's own packages"
if [ ! -e "$work/base/etc/debian_version" ]; then
  debootstrap --variant=minbase --include=ca-certificates bookworm "$work/base" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
fi
base=$(builds from scratch)
builds add --quiet "$base" "$work/base" /
builds commit --quiet --rm "$base" debian:12-slim > /dev/null

say "the image"
builds build --quiet --format docker --pull=never --file docker/Dockerfile --tag medssl:test \
  --build-arg OFFLINE=yes --build-arg REVISION="$(git rev-parse HEAD 2> /dev/null || echo unknown)" .
container=$(builds from --pull=never medssl:test)
root=$(builds mount "$container")
mapfile -t environment < <(builds inspect --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$container" | grep .)
trap 'builds rm "$container" > /dev/null; rm -rf "$trial"' EXIT
printf '%s\n' "${environment[@]}"
du -sh "$root" | cut -f 1
mkdir "$scans"
install -d -m 0777 "$runs"

# Its own mounts, processes and network, of which there is none but loopback; another user than the image names.
inside() {
  unshare --mount --net --pid --ipc --fork --kill-child bash -euc '
    root=$1 scans=$2 runs=$3; shift 3
    mount --bind "$root" "$root" && mount -o remount,bind,ro "$root"
    mount --bind "$scans" "$root/data" && mount -o remount,bind,ro "$root/data"
    mount --bind "$runs" "$root/runs"
    mount -t tmpfs tmpfs "$root/tmp" -o mode=1777
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/dev" -o mode=755
    for device in null zero random urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
    mkdir "$root/dev/shm" && mount -t tmpfs tmpfs "$root/dev/shm" -o mode=1777,size=1m
    ip link set lo up 2> /dev/null || true
    exec chroot --userspec=4321:4321 "$root" env -i "$@"
  ' inside "$root" "$scans" "$runs" "${environment[@]}" sh -c 'cd /runs && exec "$@"' sh "$@"
}

say "medssl --help"
inside medssl --help | sed -n 1,5p
say "health check"
inside medssl --version
say "packages of Python's, and of Debian's, that the image says it has"
inside python -c 'import json; print(len(json.load(open("/usr/share/medssl/sbom.cdx.json"))["components"]))'
inside wc -l /usr/share/medssl/debian.txt
say "nobody in particular, who can write to /runs and /tmp alone"
inside id
for place in / /opt/medssl /usr /data /etc; do must_fail "Read-only file system" inside touch "$place/written"; done
inside sh -c 'touch /runs/written /tmp/written && rm /runs/written'
say "no network"
must_fail "Network is unreachable" inside python -c 'import socket; socket.create_connection(("192.0.2.1", 80), timeout=5)'
say "patients from a disk that cannot be written to, a pretraining with workers, a curve, a report"
inside medssl phantom xray /runs/phantom --patients 24
mv "$runs/phantom/"* "$scans/"
inside medssl manifest data_manifests/chexpert.yaml /data --out /runs/xray.parquet
small="data.manifest=/runs/xray.parquet data.cache=/runs/cache train.steps=4 train.batch_size=8"
inside medssl pretrain pipelines/phantom_xray/simsiam.yaml $small train.batch_size=64 train.workers=2 --out /runs/simsiam
inside medssl curve pipelines/phantom_xray/curve.yaml $small pretrain.train.steps=4 pretrain.train.batch_size=8 seeds=2 \
  'fractions=[0.5,1.0]' --out /runs/curve
inside medssl report /runs/curve --out /runs/report.html
ls -ln "$runs"
if find "$runs" -mindepth 1 ! -uid 4321 | grep .; then echo "not written by the user it ran as" >&2; exit 1; fi
say "all of this held"
