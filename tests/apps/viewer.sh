#!/bin/bash
# The viewer over a folder of slides, in a headless Chromium where there is one.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"
here=$(dirname "$0") # ctest gives the whole path

"$serpentine" serve --help >/dev/null || fail "serve --help"
if "$serpentine" serve nowhere 2>&1 | grep -q 'no cpp-httplib'; then
  echo "skipped: this build has no viewer"
  exit 0
fi
refuse 1 'nowhere: there is no such' "$serpentine" serve nowhere
mkdir slides && cp "$tree/data/samples/slides/cmu-1-small-region.svs" slides/
"$serpentine" wsi info slides/cmu-1-small-region.svs --thumbnail slides/picture.jpg >/dev/null 2>&1 || exit 0
python3 "$here/viewer_test.py" "$serpentine" slides >viewer.txt 2>&1
code=$?
[ $code = 0 ] || [ $code = 77 ] || fail "the viewer: $(tail -n 20 viewer.txt)"

# the demo's prediction, whose heat the viewer lays over the slide
expect 0 'Took ' "$serpentine" demo pathology --out demo trainer.epochs=2
results=demo/pathology/predictions/cmu-1-small-region
expect_file $results/{report.html,overlay.png,heat.png,heatmap.ome.tif,top_tiles.png,tiles.csv,tiles.geojson,prediction.json}
expect_file demo/pathology/tiles/coords/cmu-1-small-region.h5 demo/pathology/run/test.json
grep -q 'scale turbo' $results/report.html || fail "the report must name its colour scale"
python3 - $results/prediction.json $results/tiles.csv <<'PY' || fail "the demo's prediction"
import csv, json, sys
said, rows = json.load(open(sys.argv[1])), list(csv.DictReader(open(sys.argv[2])))
assert abs(sum(said["probabilities"].values()) - 1) < 1e-6, said
assert said["tiles"] == len(rows) > 300, (said["tiles"], len(rows))
assert abs(sum(float(row["attention"]) for row in rows) - 1) < 1e-3
assert len(said["top_tiles"]) == 16 and said["heat"]["shows"] == "attention", said["heat"]
PY
python3 "$here/viewer_test.py" "$serpentine" demo/pathology/predictions >viewer.txt 2>&1
code=$?
[ $code = 0 ] || [ $code = 77 ] || fail "the viewer's heat: $(tail -n 20 viewer.txt)"
if [ $code = 0 ] && ! grep -q 'heat: ' viewer.txt; then fail "the heat was not looked at: $(cat viewer.txt)"; fi
: >table.csv
refuse 1 'table.csv: (the file is empty|is no slide)' "$serpentine" serve table.csv
finish
