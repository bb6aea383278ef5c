#include <numeric>

#include "core/check.h"
#include "pointcloud/pcm_encoder.h"
#include "pointcloud/point_order.h"

namespace serpentine {

void PcmEncoderOptions::fields(Fields& f) {
  f("in_channels", in_channels, "features a point", {.least = 1});
  f("embed_dim", embed_dim, "channels of the embedding", {.least = 1});
  f("dim_expansion", dim_expansion, "a stage's channels over those before", {.least = 1});
  f("mamba_blocks", mamba_blocks, "Mamba layers a stage", {.least = 0});
  f("pre_blocks", pre_blocks, "residual layers on neighbours; 0: only their maximum", {.least = 0});
  f("pos_blocks", pos_blocks, "residual layers after a stage", {.least = 0});
  f("k_neighbors", k_neighbors, "neighbours a point", {.least = 1});
  f("k_strides", k_strides, "of the neighbours take every so manyth", {.least = 1});
  f("reducers", reducers, "a stage keeps one point of so many", {.least = 1});
  f("groups", groups, "groups of the residual layers", {.least = 1});
  f("res_expansion", res_expansion, "inner channels of the residual layers", {.least = 0.01});
  f("activation", activation, "activation of the point layers", {.choices = point_activations()});
  f("normalize", normalize, "what neighbourhoods are centred at: the point or its neighbours' mean",
    {.choices = {"", "center", "anchor"}});
  f("bias", bias, "biases of the point layers");
  f("use_xyz", use_xyz, "neighbours' coordinates are features");
  f("orders", orders, "the order of each Mamba layer, or one for all", {.choices = point_orders()});
  f("grid_size", grid_size, "side of the cells that points are sorted by", {.least = 1e-9});
  f("published_order", published_order,
    "the authors' keys, by which an order may depend on the batch; needed for their weights");
  f("use_order_prompt", use_order_prompt, "learnt tokens at both ends tell the order");
  f("prompts_per_order", prompts_per_order, "learnt tokens an order", {.least = 1});
  f("prompt_rows", prompt_rows,
    "the orders as their prompts follow one another in the weights; the authors' program draws "
    "this",
    {.choices = point_orders()});
  f("mamba_pos", mamba_pos, "add a linear map of the coordinates before each layer");
  f("pos_type", pos_type, "one such map a stage or one a layer", {.choices = {"share", "layer"}});
  f("pos_proj", pos_proj, "the map", {.choices = {"linear", "mlp"}});
  f("combine_pos", combine_pos, "append the coordinates to the features");
  f("block_residual", block_residual, "a stage goes on with the residual of the one before");
  f("rms_norm", rms_norm, "RMSNorm, else LayerNorm");
  f("residual_in_fp32", residual_in_fp32, "the residual stays float32");
  f("bidirectional", bidirectional, "both directions (\"v2\"), else one");
  f("drop_path", drop_path, "of the last layer; grows linearly", {.least = 0, .most = 0.99});
  f("windows", windows, "tokens a window, for each stage; empty: none", {.least = 1});
  f("pooling", pooling, "over the points", {.choices = {"max", "mean", "max_mean"}});
  f.group("mamba", mamba, "the mixers");
}

int64_t PcmEncoderOptions::width(int64_t stage) const {
  return std::accumulate(dim_expansion.begin(), dim_expansion.begin() + stage + 1, embed_dim,
                         std::multiplies<>());
}

void PcmEncoderOptions::check() const {
  const char* who = "Point Cloud Mamba";
  const size_t count = mamba_blocks.size();
  SERPENTINE_CHECK(count >= 1, who, "there must be at least one stage");
  const auto check_list = [&](const char* name, size_t size) {
    SERPENTINE_CHECK(size == count, who, name, " must have one value a stage, ", count,
                     " as mamba_blocks, got ", size);
  };
  check_list("dim_expansion", dim_expansion.size());
  check_list("pre_blocks", pre_blocks.size());
  check_list("pos_blocks", pos_blocks.size());
  check_list("k_neighbors", k_neighbors.size());
  check_list("k_strides", k_strides.size());
  check_list("reducers", reducers.size());
  if (!windows.empty()) check_list("windows", windows.size());
  const auto layers =
      static_cast<size_t>(std::accumulate(mamba_blocks.begin(), mamba_blocks.end(), int64_t{0}));
  SERPENTINE_CHECK(orders.size() == layers || orders.size() == 1, who,
                   "orders must have one value, or one for each of the ", layers,
                   " Mamba layers, got ", orders.size());
}

}  // namespace serpentine
