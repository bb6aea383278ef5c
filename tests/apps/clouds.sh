#!/bin/bash
# Clouds with the real program: training, its report, pictures, the page in a headless Chromium
# where there is one, and what must be refused.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"
here=$(dirname "$0") # ctest gives the whole path
shapes=$tree/tests/pointcloud/data/shapes

look() { # page
  python3 "$here/cloud_page_test.py" "$1" >page.txt 2>&1
  local code=$?
  [ $code = 0 ] || [ $code = 77 ] || fail "$1: $(tail -n 20 page.txt)"
}

# a run, and what evaluate says and draws of it
run=(data.path="$shapes" trainer.device=cpu)
expect 0 'test +[a-z]' "$serpentine" train "$tree/configs/test/pointcloud_pcm_cls.yaml" "${run[@]}" --out run
trained=$(sed -n 's/.*"mean_accuracy": \([0-9.]*\).*/\1/p' run/test.json | cut -c1-6)
expect 0 "mean_accuracy $trained" "$serpentine" evaluate run
grep -q '^ball .* 2$' out.txt || fail "evaluate must print a table of the classes: $(cat out.txt)"
expect_file run/evaluation_test/report.csv run/evaluation_test/confusion.csv run/evaluation_test/clouds.html
head -n 1 run/evaluation_test/mistakes.csv | grep -q '^cloud,true,answer,probability$' || fail "mistakes.csv: header"
look run/evaluation_test/clouds.html
expect 0 '"accuracy"' "$serpentine" evaluate run --json task.votes=3

# one file as a page, as a picture, as a coloured cloud
cp "$shapes/ball/ball_0.off" ball.off
expect 0 'ball.html' "$serpentine" cloud draw ball.off -o ball.html --order hilbert
look ball.html
expect 0 'scan.html' "$serpentine" cloud draw "$tree/data/samples/scans/autzen_east.las" -o scan.html --order hilbert
look scan.html
expect 0 'ball.ply' "$serpentine" cloud draw ball.off -o ball.ply
expect 0 'back.html' "$serpentine" cloud draw ball.ply -o back.html
expect 0 '10 of [0-9]+ points' "$serpentine" cloud draw ball.ply -o few.html --points 10
if ! "$serpentine" cloud draw ball.off -o ball.png 2>&1 | grep -q OPENCV; then expect_file ball.png; fi
refuse 2 'must end with .html' "$serpentine" cloud draw ball.off -o ball.gif
: >empty.xyz
refuse 1 'empty.xyz: there is no point' "$serpentine" cloud draw empty.xyz -o empty.html
printf '0 0 0\nnan 1 1\n' >one.xyz # a point that is none is left out; one point is a cloud
expect 0 'one.html' "$serpentine" cloud draw one.xyz -o one.html
printf '5 5 5\n5 5 5\n5 5 5\n' >same.xyz
expect 0 'same.html' "$serpentine" cloud draw same.xyz -o same.html --order zyx
refuse 2 'hilbrt' "$serpentine" cloud draw ball.off -o ball.html --order hilbrt
refuse 1 'nowhere.las' "$serpentine" cloud draw nowhere.las -o nowhere.html
refuse 1 'it is not one that labels points' "$serpentine" cloud segment run ball.off -o labels.ply
finish
