#!/usr/bin/env bash
# Runs a command on a Cloud TPU VM, or on all hosts of a slice, that exists for it alone:
# creates it, installs this repository there, runs the command, copies the results back,
# and deletes it in any case, also after an error, Ctrl-C or SIGTERM.
#
#     launch/tpu_vm.sh --name=ep1 --zone=us-west4-a --type=v5litepod-16 -- \
#         python launch/train.py --config=configs/cifar10_conv_free.py \
#         --workdir=gs://bucket/run
#
#   --name=NAME        of the TPU VM; there must be none of that name yet
#   --zone=ZONE        with --type: https://docs.cloud.google.com/tpu/docs/regions-zones
#   --type=TYPE        accelerator type: v5litepod-16, v6e-8, v5p-32, v4-8
#   --version=VERSION  of the TPU software; default: the one that goes with the type
#   --project=PROJECT  default: gcloud's
#   --spot             at a lower price, and may be taken away at any time
#   --workdir=FOLDER   what is copied back, from worker 0: a folder inside the repository,
#                      or gs://..., which needs no copying, or nothing: --workdir=
#                      default: the --workdir=... of the command
#   --allow_dirty      leave uncommitted changes behind; the VM always gets HEAD
#   --dry_run          print all commands in order, quoted for a shell; run none
#   --help             print this
#
# What follows -- is the command. It runs in the repository's root with the environment's
# python first on the PATH, on all workers at once, where jax.distributed.initialize()
# finds the others by itself. Data have to be prepared on every worker first:
#
#     ... --workdir=gs://bucket/run -- bash -c 'uv pip install -e ".[tfds]" &&
#         python launch/prepare_data.py --dataset=cifar10 && python launch/train.py ...'
#
# A spot VM that is taken away ends the command with an error, and is deleted like any
# other. With a workdir on gs://, the same command again goes on from the last checkpoint;
# with a local one it starts anew, with what could be copied back at hand.
# https://docs.cloud.google.com/tpu/docs/spot
#
# The exit code is that of the command, or of the step that failed. Leave the script
# running while the command does, in tmux for example: when it ends, so does the VM. It
# needs gcloud, logged in, with the TPU API enabled, and an SSH key that has no passphrase
# or that ssh-agent holds. The VM's service account must be let into the bucket.
#
# These commands are of the Cloud TPU API, which no longer grows: TPU7x and later have to
# be created by Compute Engine. A queued resource waits for capacity; this does not: where
# there is none, the creation fails at once, and another zone or time may do.
# https://docs.cloud.google.com/tpu/docs/tpus-in-compute-engine
# https://docs.cloud.google.com/tpu/docs/queued-resources

set -euo pipefail

# A pinned installer, https://docs.astral.sh/uv/getting-started/installation/
uv_installer=https://astral.sh/uv/0.13.7/install.sh
pause=${TPU_VM_PAUSE:-15} # seconds between attempts to delete

fail() {
  printf 'tpu_vm: %s\n' "$1" >&2
  exit 1
}

say() { printf 'tpu_vm: %s\n' "$1" >&2; }

quoted() { # the words as a shell reads them
  local word words='' quote="'\\''"
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9._/:=+,@%-]*) words="$words '${word//\'/$quote}'" ;;
      *) words="$words $word" ;;
    esac
  done
  printf '%s' "${words# }"
}

# https://docs.cloud.google.com/tpu/docs/runtimes
software_of() {
  case $1 in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    *) return 1 ;;
  esac
}

# ---------------------------------------------------------------- what is wanted

name='' zone='' type='' version='' project='' spot='' allow_dirty='' dry_run=''
workdir='' workdir_given=''
while [ "$#" -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --workdir=*) workdir=${1#*=} workdir_given=yes ;;
    --spot) spot=yes ;;
    --allow_dirty) allow_dirty=yes ;;
    --dry_run) dry_run=yes ;;
    --help)
      sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --)
      shift
      break
      ;;
    *) fail "unknown option $1: they are written --name=value, and --help lists them" ;;
  esac
  shift
done

[ -n "$name" ] || fail 'give the VM a name: --name=ep1'
[ -n "$zone" ] || fail 'say where: --zone=us-west4-a'
[ -n "$type" ] || fail 'say which accelerator: --type=v5litepod-16'
[ "$#" -gt 0 ] || fail 'give the command after --, as in: -- python launch/train.py ...'
if [ -z "$version" ]; then
  version=$(software_of "$type") ||
    fail "no software is known for $type: give --version, or correct --type"
fi
if [ -z "$workdir_given" ]; then
  for word in "$@"; do
    case $word in --workdir=*) workdir=${word#*=} workdir_given=yes ;; esac
  done
  [ -n "$workdir_given" ] || fail 'say what to copy back: --workdir=FOLDER, or --workdir='
fi
case $workdir in
  gs://*) ;;
  -*) fail "--workdir=$workdir starts with a dash, which scp takes for an option" ;;
  /* | ..* | */..*) fail "--workdir=$workdir is not inside the repository" ;;
  *[!A-Za-z0-9._/=+,@-]*) fail "--workdir=$workdir has characters that scp may not take" ;;
esac
while [ "${workdir%/}" != "$workdir" ]; do workdir=${workdir%/}; done

cd "$(dirname "${BASH_SOURCE[0]}")/.."

where=("--zone=$zone")
[ -z "$project" ] || where+=("--project=$project")
tpu=(gcloud compute tpus tpu-vm)

# ---------------------------------------------------------------- the commands

scratch=${TMPDIR:-/tmp}
archive() { step git archive --format=tar.gz "--output=$scratch/eqprop_jax.tar.gz" HEAD; }

describe=("${tpu[@]}" describe "$name" "${where[@]}")

# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/create
create() {
  step "${tpu[@]}" create "$name" "${where[@]}" "--accelerator-type=$type" \
    "--version=$version" ${spot:+--spot} --quiet
}

# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/scp
copy() {
  step "${tpu[@]}" scp "$scratch/eqprop_jax.tar.gz" "$name:eqprop_jax.tar.gz" \
    "${where[@]}" --worker=all --quiet
}

# The images are Ubuntu 22.04 with Python 3.10, and JAX needs 3.11 or newer: uv brings one.
# https://docs.astral.sh/uv/concepts/python-versions/
# requirements.lock was made for the CPU, but TPUs want the same jax and jaxlib, and libtpu
# in the version that jax asks for. So the lock comes first, with its hashes; the extra
# then adds libtpu, requests and, for buckets, gcsfs, and leaves the rest as it is. Those
# are not in the lock, and this package has no hash, hence two calls.
# https://docs.jax.dev/en/latest/installation.html
install() {
  on_all_workers "set -o pipefail && rm -rf eqprop_jax && mkdir eqprop_jax &&\
 tar -xzf eqprop_jax.tar.gz -C eqprop_jax && cd eqprop_jax &&\
 curl -LsSf $uv_installer | sh && export PATH=\"\$HOME/.local/bin:\$PATH\" &&\
 uv venv --python 3.12 && uv pip install --require-hashes -r requirements.lock &&\
 uv pip install -e \".[tpu,gcs]\""
}

# When a connection breaks, gcloud starts the command once more on that worker, though the
# first one may be running there still: flock makes the second wait for its end.
# https://docs.jax.dev/en/latest/multi_process.html
run() {
  on_all_workers "cd eqprop_jax &&\
 export PATH=\"\$PWD/.venv/bin:\$HOME/.local/bin:\$PATH\" &&\
 exec flock ../eqprop_jax.lock $(quoted "$@")"
}

# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/ssh
on_all_workers() {
  step "${tpu[@]}" ssh "$name" "${where[@]}" --worker=all \
    --ssh-flag=-oServerAliveInterval=60 --quiet "--command=$1"
}

copy_back() {
  case $workdir in '' | gs://*) return 0 ;; esac
  local parent
  parent=$(dirname "$workdir")
  step mkdir -p "$parent" &&
    step "${tpu[@]}" scp "$name:eqprop_jax/$workdir" "$parent" "${where[@]}" \
      --recurse --worker=0 --quiet
}

# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/delete
removal=("${tpu[@]}" delete "$name" "${where[@]}" --quiet)
delete() { step "${removal[@]}"; }

if [ -n "$dry_run" ]; then
  step() { printf '%s\n' "$(quoted "$@")"; }
  step "${describe[@]}"
  archive
  create
  copy
  install
  run "$@"
  copy_back
  delete
  exit 0
fi

# ---------------------------------------------------------------- doing it

# Every command is a job in the background with a process group of its own: a signal is
# then heeded while it runs, and ends all of it.
child=''
step() {
  local status=0
  say "$(quoted "$@")"
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  wait "$child" || status=$?
  child=''
  return "$status"
}

end_child() { [ -z "$child" ] || kill -TERM -- "-$child" 2>/dev/null || true; }

interrupted() { # EXIT CODE
  trap '' HUP INT PIPE TERM
  end_child
  exit "$1"
}

exists() { "${describe[@]}" </dev/null >/dev/null 2>&1; }

# none: not to be deleted; perhaps: being created; there; used: has results to copy
vm=none

finish() {
  local status=$?
  set +e
  trap - EXIT
  trap '' HUP PIPE
  if [ "$vm" = used ]; then
    trap end_child INT TERM
    say 'copying back what there is (interrupt once more to skip it)'
    copy_back || say "could not copy $workdir back: it goes with the VM"
  fi
  trap '' INT TERM
  # A creation that was interrupted may show a little later.
  if [ "$vm" = perhaps ] && ! exists && sleep "$pause" && ! exists; then
    say "there is no TPU VM called $name in $zone to delete; to make sure:"
    say "$(quoted "${tpu[@]}" list "${where[@]}")"
  elif [ "$vm" != none ]; then
    delete || { sleep "$pause" && delete; } || { sleep "$pause" && delete; } || shout
  fi
  rm -rf "$scratch"
  exit "$status"
}

shout() {
  [ "$status" -ne 0 ] || status=1
  cat >&2 <<END

******************************************************************************
THE TPU VM $name IN $zone WAS NOT DELETED AND COSTS MONEY. Delete it by hand:

    $(quoted "${removal[@]}")
******************************************************************************
END
}

command -v gcloud >/dev/null ||
  fail 'gcloud is not on the PATH: see https://cloud.google.com/sdk/docs/install'
changes=$(git status --porcelain) || fail "$PWD is not a git checkout"
if [ -n "$changes" ]; then
  [ -n "$allow_dirty" ] ||
    fail 'uncommitted changes, and the VM gets HEAD: commit them, or add --allow_dirty'
  say 'uncommitted changes stay behind: the VM gets HEAD'
fi
! exists || fail "there is a TPU VM called $name in $zone already: choose another --name"

trap finish EXIT
trap 'interrupted 129' HUP
trap 'interrupted 130' INT
trap 'interrupted 141' PIPE
trap 'interrupted 143' TERM

scratch=$(mktemp -d "$scratch/tpu_vm.XXXXXX")
archive
vm=perhaps
create
vm=there
copy
install
vm=used
run "$@"
copy_back
vm=there
