// Parquet in a build without it: says how to get it, or how to do without.
#include "core/check.h"
#include "core/io/parquet.h"

namespace serpentine {

bool parquet_available() { return false; }

std::vector<ParquetColumn> read_parquet(const std::string& path, const ParquetOptions&) {
  TORCH_CHECK(false, path, ": this is a Parquet file, and this program is built without Parquet. ",
              "Build it with SERPENTINE_PARQUET=ON ./serpent build, or convert the file once: ",
              "python3 -c 'import pandas; pandas.read_parquet(\"", path,
              "\").to_csv(\"table.csv.gz\", index=False)'");
}

}  // namespace serpentine
