#!/bin/bash
# serpentine info --io: a model of any domain, timed on a recording; what it says, and what it refuses.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"
golden=$tree/tests/golden/apps/s_mamba
few=(--warmup 0 --repeats 3)

expect 0 'forward +[0-9.]+ ms .*3 repetitions' "$serpentine" info "$golden/config.json" --io "$golden/io.safetensors" "${few[@]}"
model=("$golden/config.json" --weights "$golden/weights.safetensors" --io "$golden/io.safetensors" "${few[@]}" --json)
before=$(cksum "$golden"/*)
expect 0 '"what": "forward"' "$serpentine" info "${model[@]}"
cp out.txt forward.json
expect 0 '"what": "training step"' "$serpentine" info "${model[@]}" --train
for key in device flops input model parameters precision quartiles repetitions seconds peak_bytes; do
  grep -q "\"$key\"" out.txt || fail "info --train --json lacks $key"
done
# a step learns, and is still the same model on the same input
for key in device flops model parameters precision repetitions; do
  [ "$(grep "\"$key\"" out.txt)" = "$(grep "\"$key\"" forward.json)" ] || fail "--train changes $key"
done
[ "$before" = "$(cksum "$golden"/*)" ] || fail "info changed the files that it read"
expect 0 '"precision": "bf16"' "$serpentine" info "${model[@]}" --train --precision bf16
expect 0 '"precision": "fp16"' "$serpentine" info "${model[@]}" --train --precision fp16
expect 0 '"precision": "tf32"' "$serpentine" info "${model[@]}" --precision tf32

# where the time goes: rows with a share, whose sum stands below
expect 0 '^ +[0-9.]+ +[0-9.]+% +[0-9]+  aten::(add)?mm$' "$serpentine" info "$golden/config.json" --io "$golden/io.safetensors" "${few[@]}" --profile
grep -Eq '^ +[0-9.]+ 100.0% +[0-9]+  all [0-9]+$' out.txt || fail "info --profile has no sum"
expect 0 '"name": "aten::(add)?mm"' "$serpentine" info "${model[@]}" --profile
refuse 1 '--graph: ' "$serpentine" info "${model[@]}" --train --graph --device cpu

refuse 1 "weights.safetensors: a recording needs a tensor 'input'" "$serpentine" info "$golden/config.json" --io "$golden/weights.safetensors"
refuse 1 'nowhere.safetensors' "$serpentine" info "$golden/config.json" --io nowhere.safetensors
head -c 100 "$golden/io.safetensors" >cut.safetensors
refuse 1 'cut.safetensors' "$serpentine" info "$golden/config.json" --io cut.safetensors
expect 1 'does not fit' "$serpentine" info "$golden/config.json" --weights "$golden/io.safetensors" --io "$golden/io.safetensors"
refuse 1 'config.yaml' "$serpentine" info . --io "$golden/io.safetensors"

finish
