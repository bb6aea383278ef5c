#include "core/io/tensorboard.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "core/io/atomic_file.h"
#include "core/io/bytes.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "events.out.tfevents.";

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) != 0 ? 0x82F63B78U : 0U);
    table[i] = value;
  }
  return table;
}

// protocol buffers: a field is its number and wire type, then the value

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80U);
  out += static_cast<char>(value);
}

void put_text(std::string& out, int field, const std::string& value) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | 2U);
  put_varint(out, value.size());
  out += value;
}

std::string event_head(double wall_time, int64_t step) {
  std::string event;
  put_varint(event, 1U << 3 | 1U);
  append_little(event, wall_time);
  put_varint(event, 2U << 3);
  put_varint(event, static_cast<uint64_t>(step));
  return event;
}

std::string frame(const std::string& record) {
  std::string framed;
  append_little(framed, static_cast<uint64_t>(record.size()));
  append_little(framed, masked_crc32c(framed));
  framed += record;
  append_little(framed, masked_crc32c(record));
  return framed;
}

/// The step of an event that event_head began.
int64_t step_of(std::string_view event) {
  constexpr size_t kStep = 10;  // after wall_time's tag and value, and the tag of step
  uint64_t step = 0;
  for (size_t i = kStep, shift = 0; i < event.size() && shift < 64; ++i, shift += 7) {
    step |= static_cast<uint64_t>(static_cast<uint8_t>(event[i]) & 0x7FU) << shift;
    if ((static_cast<uint8_t>(event[i]) & 0x80U) == 0) break;
  }
  return static_cast<int64_t>(step);
}

std::string new_name(const std::string& folder) {
  char host[256] = "host";
  ::gethostname(host, sizeof host - 1);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  const std::string stem = folder + "/" + kPrefix + std::to_string(seconds) + "." + host + "." +
                           std::to_string(::getpid());

  // TensorBoard reads files of one folder in the order of their names
  std::string name = stem;
  for (int i = 1; fs::exists(name); ++i) name = stem + "." + std::to_string(i);
  return name;
}

}  // namespace

uint32_t masked_crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = crc_table();
  uint32_t crc = 0xFFFFFFFFU;
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(c)) & 0xFFU] ^ (crc >> 8);
  crc = ~crc;
  return (crc >> 15 | crc << 17) + 0xA282EAD8U;
}

TensorBoardWriter::TensorBoardWriter(const std::string& folder) : file_(new_name(folder)) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::string event = event_head(std::chrono::duration<double>(now).count(), 0);
  put_text(event, 3, "brain.Event:2");
  file_.append(frame(event));
}

void TensorBoardWriter::scalars(int64_t step, const std::map<std::string, double>& values,
                                double wall_time) {
  std::string summary;
  for (const auto& [tag, number] : values) {
    std::string value;
    put_text(value, 1, tag);
    put_varint(value, 2U << 3 | 5U);
    append_little(value, static_cast<float>(number));
    put_text(summary, 1, value);
  }
  std::string event = event_head(wall_time, step);
  put_text(event, 5, summary);
  file_.append(frame(event));
}

void truncate_events(const std::string& folder, int64_t step) {
  if (!fs::is_directory(folder)) return;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().rfind(kPrefix, 0) != 0) continue;
    const InputFile file(entry.path().string());
    const std::string bytes = file.read_all();
    std::string kept;
    std::string_view rest = bytes;
    constexpr uint64_t kFrame = 16;  // length, its checksum, the record's checksum
    while (rest.size() >= kFrame) {
      const auto size = load_little<uint64_t>(rest.data());
      if (size > rest.size() - kFrame) break;
      const std::string_view record = rest.substr(12, size);
      if (load_little<uint32_t>(rest.data() + 12 + size) != masked_crc32c(record)) break;
      if (step_of(record) <= step) kept += rest.substr(0, kFrame + size);
      rest.remove_prefix(kFrame + size);
    }
    if (kept.size() != bytes.size()) write_atomically(entry.path().string(), kept);
  }
}

}  // namespace serpentine
