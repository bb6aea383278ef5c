// TrainState as JSON, without losing a bit.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/train/task.h"

namespace serpentine {

nlohmann::json to_json(const TrainState& state);
/// What asked a former run to end (signal, stop, failure) is not taken over.
TrainState train_state_from_json(const nlohmann::json& json);

}  // namespace serpentine
