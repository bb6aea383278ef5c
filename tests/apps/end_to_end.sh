#!/bin/bash
# Trains, evaluates, forecasts, backtests, resumes and proves parity with the real program.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"

expect 0 'Usage' "$serpentine" --help
for command in train evaluate crossval forecast backtest parity weights schema doctor selftest demo; do
  expect 0 'Example' "$serpentine" $command --help
done
expect 0 'LibTorch' "$serpentine" doctor
for line in 'C[+][+] ABI' plots slides Parquet 'CUDA toolkit' TensorBoard; do
  grep -Eq "$line" out.txt || fail "doctor says nothing of $line"
done
expect 0 's_mamba' "$serpentine" schema
expect 0 'All checks passed' "$serpentine" selftest --device cpu --no-speed

expect 0 'test +[a-z]' "$serpentine" train tiny.yaml --out run
expect_file run/config.yaml run/data.json run/metrics.csv run/metrics.jsonl run/checkpoints/best.safetensors
expect_file run/environment.json run/test.json run/events.out.tfevents.*
grep -q '"tiny.yaml"' run/environment.json || fail "environment.json must hold the command"
if command -v gnuplot >/dev/null; then
  expect_file run/plots/loss.png run/plots/loss.svg run/plots/forecast.png run/plots/forecast.svg
fi
expect 2 'already holds a run' "$serpentine" train tiny.yaml --out run

# evaluate gives what training ended with
trained=$(sed -n 's/.*"mse": \([0-9.]*\).*/\1/p' run/test.json | cut -c1-7)
expect 0 "\"mse\": $trained" "$serpentine" evaluate run --json
expect 0 'validation' "$serpentine" evaluate run --split validation

expect 0 '12 steps of 2 series' "$serpentine" forecast run good.csv --out future
expect_file future/forecast.csv future/forecast.json
if command -v gnuplot >/dev/null; then expect_file future/forecast.png future/forecast.svg; fi
[ "$(wc -l <future/forecast.csv)" = 13 ] || fail "forecast.csv must have a header and 12 rows"
head -n 1 future/forecast.csv | grep -q '^date,load,load q0.1,load q0.5,load q0.9,heat' || fail "forecast.csv: header"
sed -n 2p future/forecast.csv | grep -q '^2024-01-26 00:00:00,' || fail "forecast.csv must go on after the data"
expect 0 'feeding its own forecasts back' "$serpentine" forecast run good.csv --horizon 30 --out far
[ "$(wc -l <far/forecast.csv)" = 31 ] || fail "a rolled forecast must have 30 rows"

expect 0 'origins from' "$serpentine" backtest run good.csv --stride 12 --windows 5 --out back
expect_file back/backtest.json back/origins.csv
expect 0 'note: [0-9]+ of [0-9]+ origins lie in rows that the model was trained on' "$serpentine" backtest run good.csv --out all
for key in step_mae step_rmse; do
  grep -q "\"$key\"" back/backtest.json || fail "backtest.json must hold the error of every step"
done
if command -v gnuplot >/dev/null; then expect_file back/error_by_step.png back/latest_window.svg; fi
[ "$(wc -l <back/origins.csv)" = 6 ] || fail "origins.csv must have a header and 5 rows"

# a checkpoint of the training serves where weights do
step=$(find run/checkpoints -name 'step_*.safetensors' | sort -V | tail -n 1)
expect 0 'examples: ' "$serpentine" evaluate run --weights "$step"
expect 0 'fits the model' "$serpentine" weights "$step" --model run

# parity: with ourselves, with the reference's recordings, and a model that is not the same
expect 0 'recorded' "$serpentine" parity run --io own.safetensors --record
expect 0 ' 0 beyond' "$serpentine" parity run --io own.safetensors
grep -q '^grad\..*ok' out.txt || fail "a recording of a run must hold gradients"
for model in s_mamba itransformer; do
  golden=$tree/tests/golden/apps/$model
  expect 0 ' 0 beyond' "$serpentine" parity "$golden/config.json" --weights "$golden/weights.safetensors" \
    --io "$golden/io.safetensors"
done
golden=$tree/tests/golden/apps/s_mamba
expect 1 'BEYOND' "$serpentine" parity "$golden/config.json" model.use_norm=false \
  --weights "$golden/weights.safetensors" --io "$golden/io.safetensors"

# there and back again, bit for bit
expect 0 'written' "$serpentine" weights run/checkpoints/best.safetensors --to best.pth
expect 0 'written' "$serpentine" weights best.pth --to best.safetensors
expect 0 'fits the model' "$serpentine" weights best.safetensors --model run
"$serpentine" weights run/checkpoints/best.safetensors >a.txt && "$serpentine" weights best.safetensors >b.txt
cmp -s a.txt b.txt || fail "a checkpoint changed on its way through .pth"

# a run that was killed and went on ends where one that was not ends
long=(trainer.epochs=40 trainer.patience=0 checkpoint.every_steps=1)
expect 0 'test +[a-z]' "$serpentine" train tiny.yaml "${long[@]}" --out whole
"$serpentine" train tiny.yaml "${long[@]}" --out stopped >stopped.txt 2>&1 &
pid=$!
for _ in $(seq 200); do
  ls stopped/checkpoints/step_* >/dev/null 2>&1 && break
  sleep 0.02
done
kill -TERM $pid
wait $pid
[ $? = 143 ] || fail "SIGTERM must end training with exit code 143: $(tail -n 3 stopped.txt)"
grep -q 'serpentine train --resume stopped' stopped.txt || fail "SIGTERM must say how to go on: $(cat stopped.txt)"
expect 0 'resumed ' "$serpentine" train --resume stopped
cmp -s whole/checkpoints/best.safetensors stopped/checkpoints/best.safetensors ||
  fail "a resumed run must end with the same weights"

# averaged weights and half precision: the test line is that of the file which training leaves
for options in trainer.ema=0.9 trainer.precision=bf16 trainer.precision=fp16; do
  expect 0 'test +[a-z]' "$serpentine" train tiny.yaml $options trainer.epochs=3 --out "own-$options"
  trained=$(sed -n 's/.*"mse": \([0-9.]*\).*/\1/p' "own-$options/test.json" | cut -c1-9)
  expect 0 "\"mse\": $trained" "$serpentine" evaluate "own-$options" --json
done

# what a shell leaves of the tutorial's options for a table of another country
make_csv 600 | sed -E 's/,/;/g; s/\./,/g; s/^([0-9]+)-([0-9]+)-([0-9]+) ([0-9:]+):00;/\3.\2.\1 \4;/' >europe.csv
expect 0 'training,' "$serpentine" train tiny.yaml data.path=europe.csv --dry-run \
  data.delimiter=";" data.decimal="," data.date_format="%d.%m.%Y %H:%M"
expect 0 'training,' "$serpentine" train tiny.yaml data.targets=load --dry-run
grep -rhoE 'configs/[a-z0-9_/]+\.yaml' "$tree/README.md" "$tree"/docs | sort -u | while read -r config; do
  [ -e "$tree/$config" ] || echo "$config"
done >missing.txt
[ ! -s missing.txt ] || fail "the documents name configurations that do not exist: $(cat missing.txt)"
for config in custom_s_mamba custom_dlinear; do
  expect 0 'training,' "$serpentine" train "$tree/configs/timeseries/$config.yaml" data.path=good.csv \
    data.seq_len=24 data.pred_len=12 --dry-run
done

# the demo, cut short
expect 0 'seasonal naive +[0-9]' "$serpentine" demo trainer.max_steps=5
expect_file runs/demo/s_mamba/test.json

expect 0 'training,' "$serpentine" train tiny.yaml --dry-run
expect 0 'test +[a-z]' "$serpentine" train tiny.yaml --nproc 2 trainer.max_steps=4 --out two
finish
