#!/bin/bash
# ./serpent itself, in a folder of its own with stand-ins for apt-get, dpkg-query, pip, cmake and
# ninja that write down how they were called.
# Usage: serpent.sh SOURCE_TREE
set -u
tree=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

fail() {
  failures=$((failures + 1))
  printf 'FAILED: %s\n' "$*"
}

mkdir -p "$scratch/bin" "$scratch/tree/cmake" "$scratch/tree/build"
cp "$tree/serpent" "$tree/CMakePresets.json" "$scratch/tree"
cp "$tree/cmake/pins.txt" "$tree/cmake/packages.txt" "$scratch/tree/cmake"
log=$scratch/log
installed=$scratch/installed # packages that dpkg-query knows

stand_in() { # name, body
  printf '#!/bin/sh\n%s\n' "$2" >"$scratch/bin/$1"
  chmod +x "$scratch/bin/$1"
}
# the commands that the script and its stand-ins need, and nothing else of this machine
for name in sh sed cksum cut tr grep dirname basename head cat ls rm ln mkdir chmod awk nproc env cp; do
  ln -s "$(command -v "$name")" "$scratch/bin/$name"
done
stand_in dpkg-query "grep -qx -- \"\$4\" '$installed' && printf installed"
stand_in apt-get "echo \"apt-get \$*\" >>'$log'
case \$1 in install) for word; do case \$word in -* | install) ;; *) echo \"\$word\" >>'$installed' ;; esac; done ;; esac"
stand_in nvidia-smi 'exit 1'
stand_in id "cat '$scratch/user'"
stand_in cmake "echo \"cmake \$*\" >>'$log'; mkdir -p build/release; : >build/release/build.ninja; : >build/release/CMakeCache.txt"
stand_in ninja "echo \"ninja \$*\" >>'$log'"
# python3 -m venv FOLDER makes a Python that only notes what pip is asked for
stand_in python3 "echo \"python3 \$*\" >>'$log'
case \"\$1 \$2\" in '-m venv') mkdir -p \"\$3/bin\"; cp '$scratch/bin/python3' \"\$3/bin/python3\" ;; esac"

# serpent ARGUMENTS: into out.txt; the calls of this one run into the log
serpent() {
  : >"$log"
  env -i HOME="$scratch/home" PATH="$scratch/bin" SERPENTINE_JOBS=1 "${settings[@]}" \
    "$scratch/tree/serpent" "$@" >"$scratch/out.txt" 2>&1
}
says() { grep -q -- "$1" "$scratch/out.txt" || fail "$2: nothing said of '$1': $(cat "$scratch/out.txt")"; }
calls() { grep -q -- "$1" "$log" || fail "$2: '$1' was not called: $(cat "$log")"; }
calls_not() { ! grep -q -- "$1" "$log" || fail "$2: '$1' was called: $(grep -- "$1" "$log")"; }
settings=(SERPENTINE_GPU=0)
packages=$(sed '/^#/d; /^$/d' "$tree/cmake/packages.txt")

# a user without sudo: the command that root must run, and no other work
grep -v -e '^g++$' -e '^zlib1g-dev$' <<<"$packages" >"$installed"
echo 1000 >"$scratch/user"
serpent build && fail "without packages and root a build must fail"
says 'apt-get install --no-install-recommends -y g++ zlib1g-dev' "no sudo"
calls_not . "no sudo"

# doctor names them too, and fails
serpent doctor && fail "doctor must fail when packages are missing"
says 'missing g++ zlib1g-dev' doctor
says 'LibTorch: not installed yet' doctor
says 'not built yet' doctor

# root: said before it is done, only what is missing, then the environment and the build
echo 0 >"$scratch/user"
serpent build || fail "a build as root: $(cat "$scratch/out.txt")"
says 'installing with apt-get, as root: g++ zlib1g-dev' root
calls '^apt-get update' root
calls '^apt-get install .* g++ zlib1g-dev$' root
calls 'pip install .*cmake==' root
calls 'pip install .*--no-deps torch==.*nvidia-cuda-runtime' root
calls '^cmake --preset release .*-DSERPENTINE_PYTHON=' root
calls '^ninja -C .*build/release -j 1 serpentine$' root
calls_not 'pyarrow' root
calls_not 'tensorboard' root
[ "$(grep -n 'apt-get install' "$log" | cut -d : -f 1)" -lt "$(grep -n 'venv' "$log" | cut -d : -f 1)" ] ||
  fail "packages come before the environment"

# a second run does nothing twice
serpent build || fail "a second build: $(cat "$scratch/out.txt")"
calls_not apt-get "second run"
calls_not python3 "second run"
calls_not cmake "second run"
calls ninja "second run"

# what is asked for later is installed into the same environment
settings=(SERPENTINE_GPU=0 SERPENTINE_PARQUET=ON)
serpent build || fail "a build with Parquet: $(cat "$scratch/out.txt")"
calls 'pip install .*--no-deps pyarrow==' Parquet
calls 'cmake .*-DSERPENTINE_PARQUET=ON' Parquet
calls_not 'torch==' Parquet
calls_not venv Parquet
sed -i 's/^parquet .*/parquet pyarrow==0.1/' "$scratch/tree/cmake/pins.txt"
serpent build || fail "a build with another pyarrow: $(cat "$scratch/out.txt")"
calls 'pyarrow==0.1' "a changed pin"
calls_not venv "a changed pin"

# tests compare with more than a build needs
settings=(SERPENTINE_GPU=0)
serpent test nothing
calls 'pip install .*numpy==.*onnxruntime==.*tensorboard==' test
calls_not venv test

# CUDA on a machine without a GPU needs a word
settings=(SERPENTINE_GPU=0 SERPENTINE_CUDA=ON)
serpent build && fail "CUDA kernels without a GPU must be asked for"
says 'SERPENTINE_GPU=1' CUDA

# one's own LibTorch: no torch wheel
settings=(SERPENTINE_GPU=0 SERPENTINE_HOME="$scratch/other" Torch_DIR=/opt/torch/share/cmake/Torch)
serpent build || fail "a build with one's own LibTorch: $(cat "$scratch/out.txt")"
calls 'pip install .*cmake==' "own LibTorch"
calls_not 'torch==' "own LibTorch"
calls 'cmake .*-DTorch_DIR=/opt/torch/share/cmake/Torch' "own LibTorch"

# not asked to look for packages: none is
: >"$installed"
settings=(SERPENTINE_GPU=0 SERPENTINE_SKIP_PACKAGES=1)
serpent build || fail "a build without looking for packages: $(cat "$scratch/out.txt")"
calls_not apt-get "packages skipped"

# doctor's exit code is the program's, or that of missing packages
mkdir -p "$scratch/tree/build/release/apps"
# shellcheck disable=SC2016 # the program itself shall expand it
printf '#!/bin/sh\necho program says $1\n' >"$scratch/tree/build/release/apps/serpentine"
chmod +x "$scratch/tree/build/release/apps/serpentine"
serpent doctor && fail "doctor must fail when packages are missing, whatever the program says"
says 'program says doctor' "doctor of a built program"
printf '%s\n' "$packages" >"$installed"
serpent doctor || fail "doctor with everything there: $(cat "$scratch/out.txt")"

[ "$failures" = 0 ] && echo "all passed" && exit 0
exit 1
