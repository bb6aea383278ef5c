// Forecasting: what the folder offers to the program, by name.
//
// A run's YAML has `data: {type: series, path: ...}`, `model: {type: s_mamba, ...}` and
// `task: {type: forecast, quantiles: [...]}`. `data` fills the model's seq_len, pred_len, targets,
// future, masked, period and quantiles; a user need not repeat them.
//
// Fields of a Batch (L = seq_len, H = pred_len, N variates, C targets; float32, scaled by the train
// part):
//   input  [B, L, N]          targets first, then past covariates; missing values are 0
//   target [B, H, C]          missing values are 0
//   named:
//     mask         [B, L, N]  1 where observed; absent when the series has no missing value
//     target_mask  [B, H, C]  the same for the target
//     marks        [B, L, M]  calendar features in [-0.5, 0.5]; absent without dates
//     future_marks [B, H, M]  the same for the target's steps
//     extra        [B, L, E]  indicators of categories, static values; absent when there are none
//     elapsed      [B, L, 1]  log of the step since the row before, in median steps; absent when
//                             the steps are equal
//     future       [B, L + H, F]  known-future covariates over past and future; absent when none
//     scale        [B, 3, C]  of each target: mean, std, and (scaled) error of the naive forecast
#pragma once

#include "core/data/source.h"
#include "core/registry.h"
#include "core/train/task.h"

namespace serpentine {

// s_mamba itransformer dlinear seasonal_naive drift
void add_forecast_models(Registry<Model>& all);
void add_forecast_sources(Registry<DataSource>& all);  // series
void add_forecast_tasks(Registry<Task>& all);          // forecast

// what the lists above call
void add_s_mamba(Registry<Model>& all);
void add_itransformer(Registry<Model>& all);
void add_dlinear(Registry<Model>& all);
void add_naive(Registry<Model>& all);  // seasonal_naive, drift

}  // namespace serpentine
