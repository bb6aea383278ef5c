// The folder of one run: what ran, with what, and how it went.
//
//   config.yaml      the resolved configuration      metrics.csv    one row a logged step
//   environment.json command line, versions          metrics.jsonl  the same as JSON lines
//   checkpoints/     plots/                          events.out.*   the same for TensorBoard
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/io/append_file.h"
#include "core/io/tensorboard.h"

namespace serpentine {

class RunFolder {
 public:
  /// Makes `parent`/`name`-<date>-<time>, with a number behind when that exists.
  static RunFolder create(const std::string& parent, const std::string& name);
  /// Uses this folder, made where absent. `resumed_step`: rows after it are removed, as the run
  /// will write them again; unset, rows are appended.
  static RunFolder open(const std::string& path, std::optional<int64_t> resumed_step = {});

  const std::string& path() const { return path_; }
  std::string checkpoints() const { return path_ + "/checkpoints"; }
  std::string plots() const { return path_ + "/plots"; }
  std::string config() const { return path_ + "/config.yaml"; }

  void write_config(const std::string& yaml) const;
  /// Adds the exact command, the working folder, the time and the versions; a resumed run keeps
  /// the commands before.
  void write_environment(const std::vector<std::string>& command) const;

  /// Adds one row to all metric files. A name not seen before becomes a further column.
  void log(int64_t step, const std::map<std::string, double>& values);

 private:
  explicit RunFolder(std::string path);
  void read_columns();
  void add_columns(const std::map<std::string, double>& values);

  std::string path_;
  std::vector<std::string> columns_;  // of metrics.csv, after "step" and "time"
  std::optional<AppendFile> csv_, jsonl_;
  std::optional<TensorBoardWriter> events_;  // made by the first row
};

}  // namespace serpentine
