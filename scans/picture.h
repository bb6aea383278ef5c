// What a scan order looks like: its walks as lines over the tokens.
#pragma once

#include "core/io/drawing.h"
#include "scans/serialization.h"

namespace serpentine {

/// The order of the first sample. Branches stand side by side, and so do the walks of one branch
/// that visit the same tokens. A walk begins at a full dot, ends at a ring, and its colour runs
/// from blue to orange; where several share a panel, each has a hue of its own. Long steps are thin
/// and pale, pads are dotted. Volumes and points in space are drawn as seen from a corner.
///
/// `layout` holds the cells: the image's height and width (and depth), or coords [B, cells, 2 or
/// 3]. The order may have more tokens: maps stand side by side, class tokens below the cells.
Drawing draw_order(const ScanOrder& order, const TokenLayout& layout);

}  // namespace serpentine
