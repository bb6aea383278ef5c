// Python pickles as inert data.
//
// The machine of pickle protocols 2 to 5 runs, but nothing it names is ever imported or called: a
// call becomes a value that records what would have been called with what. So a hostile file can
// only be read, never act. Opcodes: CPython's Lib/pickletools.py.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace serpentine {

struct PickleValue {
  enum class Kind {
    kNone,
    kBool,        // whole
    kInt,         // whole
    kLong,        // an integer beyond 64 bits: text holds its little-endian bytes
    kFloat,       // real
    kText,        // text
    kBytes,       // text
    kList,        // items (sets too)
    kTuple,       // items
    kDict,        // pairs
    kGlobal,      // text: "module.name"
    kCall,        // text: what would be called; items: the arguments; pairs, later: what was added
    kPersistent,  // items: one value, the id
  };
  using Ref = const PickleValue*;
  Kind kind = Kind::kNone;
  int64_t whole = 0;
  double real = 0;
  std::string text;
  std::vector<Ref> items;
  std::vector<std::pair<Ref, Ref>> pairs;
  Ref state = nullptr;  // what __setstate__ would have got
};

/// A pickle's values; `root` lives as long as this.
struct Pickle {
  std::shared_ptr<std::deque<PickleValue>> values;  // a flat store: deep nesting costs no stack
  const PickleValue* root = nullptr;
  size_t size = 0;                  // bytes read
  std::vector<std::string> called;  // every name that the file wants to call, once each
};

/// Parses one pickle at the beginning of `bytes`. Throws c10::Error "<who>: ..." with the offset.
Pickle parse_pickle(std::string_view bytes, const std::string& who);

}  // namespace serpentine
