#!/bin/bash
# Helpers of the end-to-end tests: a scratch folder, small data, and checks that say what went wrong.
# Usage: source support.sh PROGRAM SOURCE_TREE
# shellcheck disable=SC2034  # the scripts that source this use them
set -u
serpentine=$1
tree=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
export OMP_NUM_THREADS=2 ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}
failures=0

fail() {
  failures=$((failures + 1))
  echo "FAILED: $*"
}

# expect CODE REGEX COMMAND...: the exit code, and a pattern that the output must match
expect() {
  local code=$1 pattern=$2
  shift 2
  "$@" >out.txt 2>err.txt </dev/null
  local got=$?
  if [ "$got" != "$code" ] || ! cat out.txt err.txt | grep -Eq -- "$pattern"; then
    fail "$*"
    echo "  wanted exit $code and /$pattern/, got exit $got and:"
    sed 's/^/  | /' out.txt err.txt | tail -n 25
  fi
  if grep -Eq 'frame #|Exception raised|terminate called|Sanitizer|Segmentation' out.txt err.txt; then
    fail "$*: a stack trace or a crash instead of a sentence"
    sed 's/^/  | /' err.txt | head -n 25
  fi
}

# refuse CODE REGEX COMMAND...: one sentence on stderr
refuse() {
  expect "$@"
  shift 2
  [ "$(wc -l <err.txt)" -le 3 ] || fail "$*: more than a sentence: $(cat err.txt)"
}

expect_file() {
  for file in "$@"; do [ -s "$file" ] || fail "$file is missing or empty"; done
}

# hourly rows of January 2024: a daily wave and its double; $1 rows, then an awk statement per row
make_csv() {
  awk -v rows="$1" "BEGIN {
    print \"date,load,heat\"
    for (r = 0; r < rows; ++r) {
      date = sprintf(\"2024-01-%02d %02d:00:00\", int(r / 24) + 1, r % 24)
      a = sprintf(\"%.4f\", 10 + 3 * sin(r * 0.2618) + (r * 7919 % 13) / 20)
      b = sprintf(\"%.4f\", 50 + 8 * cos(r * 0.2618) + (r * 104729 % 17) / 10)
      ${2:-}
      print date \",\" a \",\" b
    }
  }"
}

make_csv 600 >good.csv
cat >tiny.yaml <<'YAML'
name: tiny
data: {type: series, path: good.csv, seq_len: 24, pred_len: 12}
model: {type: s_mamba, d_model: 16, d_ff: 16, d_state: 2, e_layers: 1}
task: {type: forecast, quantiles: [0.1, 0.5, 0.9]}
loader: {batch_size: 64}
trainer: {epochs: 2, device: cpu, seed: 1}
optimizer: {type: adam, lr: 0.005}
YAML

finish() {
  [ "$failures" = 0 ] && echo "all passed" && exit 0
  echo "$failures failed"
  exit 1
}
