#include "core/io/parquet.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>

#include <torch/types.h>

#include <arrow/api.h>
#include <arrow/compute/cast.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>

#include "core/check.h"

namespace serpentine {
namespace {

using Column = std::shared_ptr<arrow::ChunkedArray>;

std::string cause_of(const arrow::Status& status) {
  const std::string text = status.message();
  return text.substr(0, text.find('\n'));
}

void require(const arrow::Status& status, const std::string& who) {
  SERPENTINE_CHECK(status.ok(), who, cause_of(status));
}

template <class Value>
Value require(arrow::Result<Value> result, const std::string& who) {
  require(result.status(), who);
  return result.MoveValueUnsafe();
}

std::optional<ParquetColumn::Kind> kind_of_type(const arrow::DataType& type) {
  if (type.id() == arrow::Type::DICTIONARY)
    return kind_of_type(*static_cast<const arrow::DictionaryType&>(type).value_type());
  if (type.id() == arrow::Type::BOOL || arrow::is_integer(type.id()) ||
      arrow::is_floating(type.id()) || arrow::is_decimal(type.id()))
    return ParquetColumn::Kind::kNumber;
  if (arrow::is_string(type.id())) return ParquetColumn::Kind::kText;
  if (arrow::is_date(type.id()) || type.id() == arrow::Type::TIMESTAMP)
    return ParquetColumn::Kind::kTime;
  return std::nullopt;
}

Column converted(const Column& column, const std::shared_ptr<arrow::DataType>& type,
                 const std::string& who) {
  if (column->type()->Equals(*type)) return column;
  const auto unsafe = arrow::compute::CastOptions::Unsafe();  // int64 beyond 2^53 is rounded
  return require(arrow::compute::Cast(arrow::Datum(column), type, unsafe), who).chunked_array();
}

// visits every value of a column's chunks: value(row, array, index in the array)
template <class Array, class Visit>
void for_each_value(const Column& column, Visit visit) {
  int64_t row = 0;
  for (const auto& chunk : column->chunks()) {
    const auto& array = static_cast<const Array&>(*chunk);
    for (int64_t i = 0; i < array.length(); ++i, ++row) visit(row, array, i);
  }
}

ParquetColumn numbers_of(const Column& column, const std::string& who) {
  ParquetColumn made;
  made.kind = ParquetColumn::Kind::kNumber;
  made.numbers = torch::empty({column->length()}, torch::kFloat64);
  double* out = made.numbers.data_ptr<double>();
  for_each_value<arrow::DoubleArray>(
      converted(column, arrow::float64(), who), [&](int64_t row, const auto& array, int64_t i) {
        out[row] = array.IsNull(i) ? std::numeric_limits<double>::quiet_NaN() : array.Value(i);
      });
  return made;
}

ParquetColumn texts_of(const Column& column, const std::string& who) {
  ParquetColumn made;
  made.kind = ParquetColumn::Kind::kText;
  made.texts.resize(static_cast<size_t>(column->length()));
  for_each_value<arrow::LargeStringArray>(
      converted(column, arrow::large_utf8(), who), [&](int64_t row, const auto& array, int64_t i) {
        if (!array.IsNull(i)) made.texts[static_cast<size_t>(row)] = array.GetString(i);
      });
  return made;
}

ParquetColumn times_of(const Column& column, const std::string& who) {
  ParquetColumn made;
  made.kind = ParquetColumn::Kind::kTime;
  made.times.resize(static_cast<size_t>(column->length()));

  // a zone is for show: what is stored is UTC, and stays it
  const bool stamp = column->type()->id() == arrow::Type::TIMESTAMP;
  const std::string zone =
      stamp ? static_cast<const arrow::TimestampType&>(*column->type()).timezone() : "";
  const auto type = arrow::timestamp(arrow::TimeUnit::MICRO, zone);
  for_each_value<arrow::TimestampArray>(converted(column, type, who),
                                        [&](int64_t row, const auto& array, int64_t i) {
                                          if (array.IsNull(i)) {
                                            if (made.missing < 0) made.missing = row;
                                          } else {
                                            made.times[static_cast<size_t>(row)] = array.Value(i);
                                          }
                                        });
  return made;
}

ParquetColumn column_of(Column column, bool as_text, const std::string& who) {
  if (column->type()->id() == arrow::Type::DICTIONARY) {
    const auto& type = static_cast<const arrow::DictionaryType&>(*column->type());
    column = converted(column, type.value_type(), who);
  }
  const auto kind = kind_of_type(*column->type());
  if (as_text || kind == ParquetColumn::Kind::kText) return texts_of(column, who);
  return kind == ParquetColumn::Kind::kTime ? times_of(column, who) : numbers_of(column, who);
}

bool named(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<ParquetColumn> read_columns_of(const std::string& path, const ParquetOptions& options) {
  auto file = require(arrow::io::ReadableFile::Open(path), path);
  auto reader =
      require(parquet::arrow::OpenFile(std::move(file), arrow::default_memory_pool()), path);
  std::shared_ptr<arrow::Schema> schema;
  require(reader->GetSchema(&schema), path);
  std::vector<ParquetColumn> made;
  for (int i = 0; i < schema->num_fields(); ++i) {
    const auto& field = *schema->field(i);
    const bool asked = named(options.only, field.name());
    if (!asked && !options.only.empty()) continue;
    const std::string who = path + ": column '" + field.name() + "'";
    const bool readable = kind_of_type(*field.type()).has_value();
    SERPENTINE_CHECK(readable || !asked, who, "values of the kind ", field.type()->ToString(),
                     " cannot be read");
    if (!readable) continue;
    Column column;
    require(reader->ReadColumn(i, &column), who);
    made.push_back(column_of(std::move(column), named(options.as_text, field.name()), who));
    made.back().name = field.name();
  }
  return made;
}

}  // namespace

bool parquet_available() { return true; }

std::vector<ParquetColumn> read_parquet(const std::string& path, const ParquetOptions& options) {
  try {
    return read_columns_of(path, options);
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& error) {  // damage that the library throws at, whatever its type
    const std::string text = error.what();
    TORCH_CHECK(false, path, ": ", text.substr(0, text.find('\n')));
  }
}

}  // namespace serpentine
