#!/bin/bash
# Checkpoints of the authors' programs become model folders.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"
golden=$tree/tests/golden/vision

# a .pth of each family, as its authors' program would have saved it
for family in vmamba vmamba_v0 efficientvmamba medmamba vim_rope vmamba_gmlp_posembed; do
  expect 0 'tensors written' "$serpentine" weights "$golden/$family/weights.safetensors" --to "$family.pth"
  expect 0 'all weights fit' "$serpentine" convert "$family.pth" -o "$family"
  expect_file "$family/config.yaml" "$family/checkpoints/best.safetensors" "$family/data.json"
  expect 0 'fits the model' "$serpentine" weights "$family.pth" --model "$family/config.yaml"
  expect 0 'fits the model' "$serpentine" weights "$family/checkpoints/best.safetensors" --model "$family/config.yaml"
done

# what shapes cannot tell is said, and can be given
expect 1 'no square: give image_size' "$serpentine" convert "$golden/vim/weights.safetensors" -o vim
expect 0 'all weights fit' "$serpentine" convert "$golden/vim/weights.safetensors" -o vim 'image_size=[48,96]'
refuse 2 'unknown key' "$serpentine" convert "$golden/vim/weights.safetensors" -o vim 'heads=3'

# the folder serves as a run does
expect 0 '"repetitions"' "$serpentine" info vmamba --batch 1 --repeats 3 --json
expect 0 '"flops"' "$serpentine" info vim --batch 1 --repeats 3 --json
seq -f 'kind %g' 5 >five.txt
refuse 2 'five.txt: holds 5 names' "$serpentine" convert vmamba.pth -o named --classes five.txt
refuse 2 'absent.txt: cannot be read' "$serpentine" convert vmamba.pth -o named --classes absent.txt

# what is no image model, or no checkpoint
refuse 1 'no image model known here' "$serpentine" convert "$golden/cross_scan/io.safetensors" -o none
echo text >text.pth
refuse 1 'neither a safetensors' "$serpentine" convert text.pth -o none

finish
