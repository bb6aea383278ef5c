// Who this process is, from the variables of torchrun or Slurm.
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string>

#include "core/check.h"
#include "core/dist/process_group.h"

namespace serpentine {

namespace {

std::optional<std::string> text(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

int64_t number(const char* name) {
  const std::string value = text(name).value_or("");
  int64_t result = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  SERPENTINE_CHECK(
      !value.empty() && error == std::errc() && end == value.data() + value.size() && result >= 0,
      "process group", "the variable ", name, " must be a whole number, got '", value, "'");
  return result;
}

/// The first host of a Slurm list such as "gpu[03-07,11],cpu1".
std::string first_host(const std::string& list) {
  const size_t end = list.find_first_of(",[");
  if (end == std::string::npos || list[end] == ',') return list.substr(0, end);
  const size_t digits = list.find_first_of("-,]", end);
  return list.substr(0, end) + list.substr(end + 1, digits - end - 1);
}

World from_torchrun() {
  World world;
  world.source = "RANK and WORLD_SIZE";
  world.rank = number("RANK");
  world.size = number("WORLD_SIZE");
  world.local_rank = text("LOCAL_RANK") ? number("LOCAL_RANK") : world.rank;
  if (world.size > 1) {
    SERPENTINE_CHECK(text("MASTER_ADDR") && text("MASTER_PORT"), "process group", "WORLD_SIZE is ",
                     world.size, " but MASTER_ADDR or MASTER_PORT is missing");
    world.address = *text("MASTER_ADDR");
    world.port = number("MASTER_PORT");
  }
  world.store_is_kept = text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  return world;
}

World from_slurm() {
  World world;
  world.source = "SLURM_PROCID and SLURM_NTASKS";
  world.rank = number("SLURM_PROCID");
  world.size = number("SLURM_NTASKS");
  if (text("SLURM_LOCALID")) world.local_rank = number("SLURM_LOCALID");
  const auto nodes =
      text("SLURM_STEP_NODELIST") ? text("SLURM_STEP_NODELIST") : text("SLURM_NODELIST");
  if (text("MASTER_ADDR")) {
    world.address = *text("MASTER_ADDR");
  } else if (nodes) {
    world.address = first_host(*nodes);
  }
  // jobs that share a machine need ports of their own
  if (text("MASTER_PORT")) {
    world.port = number("MASTER_PORT");
  } else if (text("SLURM_JOB_ID")) {
    world.port = 20000 + number("SLURM_JOB_ID") % 20000;
  }
  return world;
}

}  // namespace

World world_from_environment() {
  World world;
  if (text("RANK") || text("WORLD_SIZE")) {
    world = from_torchrun();
  } else if (text("SLURM_PROCID") && text("SLURM_NTASKS") && text("SLURM_STEP_ID")) {
    world = from_slurm();  // inside srun; a batch script itself is one process
  }
  SERPENTINE_CHECK(world.size >= 1 && world.rank < world.size, "process group", world.source,
                   " say rank ", world.rank, " of ", world.size, "; ranks are counted from 0");
  return world;
}

}  // namespace serpentine
