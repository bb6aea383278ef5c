#!/bin/sh
# Measures the CPU selective scan beside its peers: bench/run.sh BUILD_FOLDER PYTHON [options of bench/main.py]
#
# PYTHON needs torch and numpy; cmake and a compiler are taken from its folder or from PATH. The peers
# go to ${SERPENTINE_HOME:-~/.cache/serpentine}/bench-*, once. ggml is compiled from the sources in
# PyPI's ggml-python; GGML_SOURCE=FOLDER takes another copy. A peer that cannot be had is left out.
set -eu
[ $# -ge 2 ] || { echo "usage: bench/run.sh BUILD_FOLDER PYTHON [--quick] [--only TEXT] ..." >&2; exit 2; }
build=$1 python=$2
shift 2
source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
home=${SERPENTINE_HOME:-$HOME/.cache/serpentine}
PATH=$(dirname -- "$python"):$PATH
ggml_release=0.0.45

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
peers=$home/bench-peers-$version-$(cksum <"$source/bench/peers.txt" | cut -d' ' -f1)
if [ ! -e "$peers/complete" ]; then
  echo "bench: installing the Python peers into $peers"
  if "$python" -m pip install --quiet --no-deps --upgrade --target "$peers" -r "$source/bench/peers.txt"; then
    touch "$peers/complete"
  else
    echo "bench: the Python peers could not be installed; those missing are left out"
  fi
fi

ggml=$home/bench-ggml-$ggml_release
if [ -n "${GGML_SOURCE:-}" ]; then
  ggml=$home/bench-ggml-$(printf %s "$GGML_SOURCE" | cksum | cut -d' ' -f1)
elif [ ! -e "$ggml/source/CMakeLists.txt" ]; then
  echo "bench: fetching ggml's sources into $ggml"
  mkdir -p "$ggml/download"
  if "$python" -m pip download --quiet --no-deps --no-binary ggml-python --dest "$ggml/download" \
      "ggml-python==$ggml_release"; then
    tar -xzf "$ggml"/download/ggml_python-*.tar.gz -C "$ggml/download"
    mv "$ggml"/download/ggml_python-*/vendor/ggml "$ggml/source"
    rm -r "$ggml/download"
  fi
fi
ggml_source=${GGML_SOURCE:-$ggml/source}
if [ -e "$ggml_source/CMakeLists.txt" ]; then
  mkdir -p "$ggml/build"
  { cmake -S "$source/bench/ggml" -B "$ggml/build" -G Ninja -DGGML_SOURCE="$ggml_source" &&
      cmake --build "$ggml/build" --target ggml_scan; } >"$ggml/build/log" 2>&1 ||
    echo "bench: ggml did not build and is left out (see $ggml/build/log)"
else
  echo "bench: ggml could not be fetched and is left out; GGML_SOURCE=FOLDER takes a copy of yours"
fi

cmake -S "$source" -B "$build" -DSERPENTINE_BENCH=ON -DSERPENTINE_PYTHON="$python" >/dev/null
cmake --build "$build" --target scan_cpu scan_orders limits
# freed blocks stay with the process, for every implementation alike: page faults are not theirs
export GLIBC_TUNABLES=glibc.malloc.mmap_threshold=268435456:glibc.malloc.trim_threshold=1073741824
export THP_MEM_ALLOC_ENABLE=1 # LibTorch: large tensors on pages of 2 MB
PYTHONPATH=$peers${PYTHONPATH:+:$PYTHONPATH} exec "$python" "$source/bench/main.py" \
  --workers "$build/bench" --ggml "$ggml/build/ggml_scan" "$@"
