#include "core/io/zip_reader.h"

#include <c10/util/Exception.h>
#include <zip.h>

#include <algorithm>
#include <filesystem>

namespace serpentine {

ZipReader::ZipReader(const std::string& path) : path_(path) {
  std::error_code failed;
  TORCH_CHECK(std::filesystem::is_regular_file(path, failed), path, " is not a regular file");
  file_size_ = std::filesystem::file_size(path, failed);
  int code = 0;
  archive_ = zip_open(path.c_str(), ZIP_RDONLY, &code);
  if (archive_ == nullptr) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    TORCH_CHECK(false, path, " is not a readable zip file: ", reason);
  }
  const zip_int64_t count = zip_get_num_entries(archive_, 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const char* name = zip_get_name(archive_, static_cast<zip_uint64_t>(i), ZIP_FL_ENC_RAW);
    names_.emplace_back(name == nullptr ? "" : name);
  }
}

ZipReader::~ZipReader() { zip_discard(archive_); }

bool ZipReader::has(const std::string& name) const {
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

std::string ZipReader::read(const std::string& name) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  TORCH_CHECK(found != names_.end(), path_, ": the member '", name, "' is missing");
  const auto index = static_cast<zip_uint64_t>(found - names_.begin());
  zip_stat_t status;
  const bool known = zip_stat_index(archive_, index, 0, &status) == 0;
  TORCH_CHECK(known && (status.valid & ZIP_STAT_SIZE) != 0, path_, ": '", name,
              "' has no readable size");

  // deflate cannot shrink by more than about 1032 to 1
  TORCH_CHECK(status.size <= 64 + 1040 * file_size_, path_, ": '", name, "' claims ", status.size,
              " bytes, which the file cannot hold");
  zip_file_t* member = zip_fopen_index(archive_, index, 0);
  TORCH_CHECK(member != nullptr, path_, ": '", name, "' cannot be read: ", zip_strerror(archive_));
  std::string bytes;
  char buffer[1 << 16];
  zip_int64_t got = 0;
  while ((got = zip_fread(member, buffer, sizeof buffer)) > 0) {
    if (bytes.capacity() - bytes.size() < static_cast<size_t>(got)) {
      bytes.reserve(std::min<size_t>(status.size, bytes.size() * 2 + sizeof buffer));
    }
    bytes.append(buffer, static_cast<size_t>(got));
  }
  const std::string reason = zip_file_strerror(member);
  zip_fclose(member);
  TORCH_CHECK(got == 0, path_, ": '", name, "' is damaged: ", reason);
  TORCH_CHECK(bytes.size() == status.size, path_, ": '", name, "' has ", bytes.size(),
              " bytes, but its entry claims ", status.size);
  return bytes;
}

}  // namespace serpentine
