#!/bin/bash
# Cross-validation of bags: folds, tables, going on after an interruption, refusals.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"

bags=$tree/tests/pathology/data/bags.csv
config=$tree/configs/test/pathology_ab_mil.yaml
survival=$tree/configs/test/pathology_survival.yaml
# shellcheck disable=SC2329  # called through `expect`
cross() { "$serpentine" crossval "$config" data.path="$bags" "$@"; }

expect 0 'Example' "$serpentine" crossval --help
expect 0 'pooled' cross --folds 3 --out runs/three trainer.epochs=2
expect_file runs/three/summary.csv runs/three/summary.md runs/three/predictions.csv \
  runs/three/splits/splits_2.csv runs/three/splits/splits_2_bool.csv \
  runs/three/splits/splits_2_descriptor.csv runs/three/fold_1/test_predictions.csv \
  runs/three/fold_1/calibration.json
[ "$(wc -l <runs/three/predictions.csv)" = 37 ] || fail "every bag is tested once"
grep -q '^mean,' runs/three/summary.csv || fail "summary.csv has no mean"

# how fast a bag of any size is, of a run and of a file that names the sizes
expect 0 '50 tiles .*peak memory' "$serpentine" info runs/three/fold_0 --tiles 50 --repeats 2
expect 0 '"forward and backward"' "$serpentine" info "$tree/configs/test/pathology_mamba_mil.yaml" --tiles 30 60 \
  --train --json --repeats 1 model.in_dim=7 model.classes=3
refuse 2 'model.in_dim' "$serpentine" info "$tree/configs/pathology/slides.yaml" --tiles 50
refuse 2 'with --io or --tiles' "$serpentine" info runs/three/fold_0 model.classes=2

# finished folds are kept; one whose end is missing is finished; the table stays the same
cp runs/three/summary.csv before.csv
rm runs/three/fold_1/calibration.json runs/three/fold_2/calibration.json
rm -r runs/three/fold_2/checkpoints runs/three/summary.csv
expect 0 'fold 0 +finished before' cross --folds 3 --out runs/three trainer.epochs=2
grep -q 'resumed' out.txt || fail "fold 1 must go on from its checkpoint"
cmp before.csv runs/three/summary.csv || fail "the table of the resumed folds differs"

# a call that differs is refused with the key and both values; nothing is touched
# shellcheck disable=SC2329
differs() { refuse 2 "runs/three: its folds began with $1; give another --out" cross --out runs/three "${@:2}"; }
differs 'trainer.epochs = 2, this call says 3' --folds 3 trainer.epochs=3
differs 'folds = 3, this call says 4' --folds 4 trainer.epochs=2
differs 'model.hidden = [0-9]+, this call says 9' --folds 3 trainer.epochs=2 model.hidden=9
differs 'trainer.seed = [0-9]+, this call says 77' --folds 3 trainer.epochs=2 trainer.seed=77
differs 'data.splits.seed = [0-9]+, this call says 5' --folds 3 trainer.epochs=2 data.splits.seed=5
refuse 2 'runs/three: its folds began with (data|model)[.].*; give another --out' "$serpentine" crossval \
  "$tree/configs/test/pathology_mamba_mil.yaml" data.path="$bags" --folds 3 --out runs/three trainer.epochs=2
rm runs/three/fold_1/calibration.json
differs 'trainer.epochs = 2, this call says 3' --folds 3 trainer.epochs=3
expect 0 'fold 0 +finished before' cross --folds 3 --out runs/three trainer.epochs=2
cmp before.csv runs/three/summary.csv || fail "a refused call must not change the table"
cp -r runs/three runs/unrecorded && rm runs/unrecorded/crossval.json
refuse 2 'not what they began with' cross --folds 3 --out runs/unrecorded trainer.epochs=2

# all folds on further bags; without labels where the table has none
cut -d, -f1,2,5,6 "$tree/tests/pathology/data/survival.index.csv" >new.index.csv
cp "$tree/tests/pathology/data/survival.f16" new.f16

# folds that were written are read again
expect 0 'pooled' cross --folds 3 --out runs/files trainer.epochs=1 data.splits.scheme=files \
  data.splits.path=runs/three/splits
cmp runs/three/splits/splits_1.csv runs/files/splits/splits_1.csv || fail "the folds read differ"

expect 0 'log-rank' "$serpentine" crossval "$survival" \
  data.path="$tree/tests/pathology/data/survival.index.csv" --folds 2 --out runs/survival
expect_file runs/survival/survival.gp runs/survival/summary.md
expect 0 'applied.csv: 40 bags' "$serpentine" crossval "$survival" \
  data.path="$tree/tests/pathology/data/survival.index.csv" --folds 2 --out runs/survival \
  --apply new.index.csv
[ "$(wc -l <runs/survival/applied.csv)" = 41 ] || fail "applied.csv must have every bag"

# a patient in two parts is refused by name
sed 's/,p4,/,p5,/' "$tree/tests/pathology/data/survival.index.csv" >shared.index.csv
cp "$tree/tests/pathology/data/survival.f16" shared.f16
refuse 1 'shared.index.csv: fold 0: 1 patient is in two parts: p5 \(val and test\)' \
  "$serpentine" crossval "$survival" data.path=shared.index.csv --folds 2 --out runs/shared
expect 0 'p5 .*allowed' "$serpentine" train "$survival" data.path=shared.index.csv \
  data.splits.shared_patients=true --out runs/allowed trainer.epochs=1
refuse 2 'data.type must be bags' "$serpentine" crossval tiny.yaml --folds 2
refuse 1 'absent.index.csv' "$serpentine" crossval "$survival" \
  data.path="$tree/tests/pathology/data/absent.index.csv" --folds 2 --out runs/none
refuse 1 'memory_budget' "$serpentine" train "$config" data.path="$bags" model.memory_budget=plenty \
  --out runs/budget

finish
