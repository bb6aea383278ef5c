// Where things lie in a LAS file. ASPRS, "LAS Specification 1.4 - R15", tables 3 to 25.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "pointcloud/number_type.h"

namespace serpentine::las {

inline constexpr size_t kHeader12 = 227, kHeader13 = 235, kHeader14 = 375;

// bytes of the header
inline constexpr size_t kMajor = 24, kMinor = 25, kHeaderSize = 94, kDataAt = 96, kVlrs = 100,
                        kFormat = 104, kRecord = 105, kLegacyCount = 107, kLegacyReturns = 111,
                        kScale = 131, kOffset = 155, kBounds = 179, kWaveformAt = 227,
                        kEvlrsAt = 235, kCount = 247, kReturns = 255;

inline constexpr std::array<size_t, 11> kRecordBytes = {20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67};

// a variable length record: its header, the bytes of its number and size, what extra bytes mean
inline constexpr size_t kVlrHeader = 54, kVlrId = 18, kVlrSize = 20, kDescriptor = 192;
inline constexpr uint16_t kExtraBytes = 4;
inline constexpr std::array<NumberType, 10> kExtraTypes = {
    NumberType::kU8,  NumberType::kI8,  NumberType::kU16, NumberType::kI16, NumberType::kU32,
    NumberType::kI32, NumberType::kU64, NumberType::kI64, NumberType::kF32, NumberType::kF64};

inline constexpr double kAngleStep = 0.006;  // degrees, of the scan angle from format 6 on

struct Bits {
  int first = 0, count = 0;  // count 0: the whole number
};

/// A field of the point record: its first byte in formats 0 to 10 (-1: not there), its bits in
/// formats 0 to 5 and from 6 on.
struct Part {
  const char* name;
  NumberType type;
  std::array<int, 11> at;
  Bits bits12 = {}, bits14 = {};
};

inline constexpr std::array<Part, 26> kParts = {{
    {"intensity", NumberType::kU16, {12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12}},
    {"return_number",
     NumberType::kU8,
     {14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14},
     {0, 3},
     {0, 4}},
    {"number_of_returns",
     NumberType::kU8,
     {14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14},
     {3, 3},
     {4, 4}},
    {"synthetic", NumberType::kU8, {15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15}, {5, 1}, {0, 1}},
    {"key_point", NumberType::kU8, {15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15}, {6, 1}, {1, 1}},
    {"withheld", NumberType::kU8, {15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15}, {7, 1}, {2, 1}},
    {"overlap", NumberType::kU8, {-1, -1, -1, -1, -1, -1, 15, 15, 15, 15, 15}, {}, {3, 1}},
    {"scanner_channel", NumberType::kU8, {-1, -1, -1, -1, -1, -1, 15, 15, 15, 15, 15}, {}, {4, 2}},
    {"scan_direction",
     NumberType::kU8,
     {14, 14, 14, 14, 14, 14, 15, 15, 15, 15, 15},
     {6, 1},
     {6, 1}},
    {"edge_of_flight_line",
     NumberType::kU8,
     {14, 14, 14, 14, 14, 14, 15, 15, 15, 15, 15},
     {7, 1},
     {7, 1}},
    {"classification", NumberType::kU8, {15, 15, 15, 15, 15, 15, 16, 16, 16, 16, 16}, {0, 5}, {}},
    {"scan_angle", NumberType::kI8, {16, 16, 16, 16, 16, 16, 18, 18, 18, 18, 18}},
    {"user_data", NumberType::kU8, {17, 17, 17, 17, 17, 17, 17, 17, 17, 17, 17}},
    {"point_source_id", NumberType::kU16, {18, 18, 18, 18, 18, 18, 20, 20, 20, 20, 20}},
    {"gps_time", NumberType::kF64, {-1, 20, -1, 20, 20, 20, 22, 22, 22, 22, 22}},
    {"red", NumberType::kU16, {-1, -1, 20, 28, -1, 28, -1, 30, 30, -1, 30}},
    {"green", NumberType::kU16, {-1, -1, 22, 30, -1, 30, -1, 32, 32, -1, 32}},
    {"blue", NumberType::kU16, {-1, -1, 24, 32, -1, 32, -1, 34, 34, -1, 34}},
    {"nir", NumberType::kU16, {-1, -1, -1, -1, -1, -1, -1, -1, 36, -1, 36}},
    {"wave_packet_index", NumberType::kU8, {-1, -1, -1, -1, 28, 34, -1, -1, -1, 30, 38}},
    {"wave_packet_offset", NumberType::kU64, {-1, -1, -1, -1, 29, 35, -1, -1, -1, 31, 39}},
    {"wave_packet_size", NumberType::kU32, {-1, -1, -1, -1, 37, 43, -1, -1, -1, 39, 47}},
    {"wave_return_location", NumberType::kF32, {-1, -1, -1, -1, 41, 47, -1, -1, -1, 43, 51}},
    {"wave_x_t", NumberType::kF32, {-1, -1, -1, -1, 45, 51, -1, -1, -1, 47, 55}},
    {"wave_y_t", NumberType::kF32, {-1, -1, -1, -1, 49, 55, -1, -1, -1, 51, 59}},
    {"wave_z_t", NumberType::kF32, {-1, -1, -1, -1, 53, 59, -1, -1, -1, 55, 63}},
}};

}  // namespace serpentine::las
