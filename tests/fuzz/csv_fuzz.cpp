// Any text: a rectangular table or one error, under every choice of delimiter and decimal sign.
#include <exception>
#include <string>

#include "core/io/csv.h"

// The first byte chooses the options.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  constexpr const char* kDelimiters[] = {",", ";", "tab", "space"};
  constexpr const char* kHeaders[] = {"auto", "yes", "no", "auto"};
  serpentine::CsvOptions options;
  options.delimiter = kDelimiters[data[0] & 3U];
  options.header = kHeaders[data[0] >> 2 & 3U];
  options.decimal = (data[0] & 16U) != 0 && options.delimiter != "," ? "," : ".";
  try {
    const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const serpentine::CsvTable table = serpentine::parse_csv(text, "fuzz", options);
    for (int64_t row = 0; row < table.rows(); ++row) {
      for (int64_t column = 0; column < table.columns(); ++column) {
        table.place(row, column);
        if (!table.missing(row, column)) table.number(row, column);
      }
    }
  } catch (const std::exception&) {
  }
  return 0;
}
