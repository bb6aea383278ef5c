#!/bin/sh
# Draws the pictures of docs/scans.md. draw.sh SERPENTINE
set -eu
serpentine=$1
folder=$(dirname "$0")
draw() { # file without its ending, arguments of draw-scan
  file=$1
  shift
  "$serpentine" draw-scan "$@" -o "$folder/$file.svg"
}
draw raster raster --size 8x8
draw raster_volume raster --size 3x4x4
draw cross cross --size 8x8
draw zigzag zigzag --size 8x8
draw zigzag_diagonals zigzag --size 8x8 --set along=diagonals
draw continuous continuous --size 8x8
draw hilbert hilbert --size 8x8
draw hilbert_volume hilbert --size 4x4x4
draw hilbert_points hilbert --layout points --points 200 --set cell=0.125
draw morton morton --size 8x8
draw atrous atrous --size 8x8
draw window window --size 8x8 --set size=4
draw window_flipped window --size 8x8 --set size=4 --set columns=true --set flip=true
draw lattice lattice --size 10x14 --set holes=true
draw reorder reorder --size 4x5 --set rate=5
draw traverse traverse --points 200 --set cell=0.2
draw identity identity --size 8x8
draw random random --size 8x8
draw learned learned --size 8x8
draw variate variate --size 5x8
draw variate_time variate --size 5x8 --set along=time
draw reversed '{type: reversed, inner: {type: raster}}' --size 8x8
draw bidirectional '{type: bidirectional, inner: {type: raster}}' --size 8x8
draw shuffle '{type: shuffle, p: 1, inner: {type: raster}}' --size 8x8
draw class_token '{type: class_token, inner: {type: raster}}' --size 8x8
draw pieces '{type: pieces, length: 8, inner: {type: raster}}' --size 8x8
draw shared '{type: shared, joined: true, inner: {type: one_by_one, inner: {type: stack, parts: [{type: hilbert}, {type: hilbert, transposed: true}]}}}' --size 8x8
draw one_by_one '{type: one_by_one, inner: {type: cross}}' --size 6x6
draw stack '{type: stack, parts: [{type: raster}, {type: hilbert}, {type: window, size: 4}]}' --size 8x8
draw per_layer '{type: per_layer, parts: [{type: raster}, {type: hilbert}]}' --size 8x8 --layer 1
