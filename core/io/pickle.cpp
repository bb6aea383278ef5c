#include "core/io/pickle.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <unordered_map>

namespace serpentine {
namespace {

using Kind = PickleValue::Kind;

class Machine {
 public:
  Machine(std::string_view bytes, const std::string& who) : bytes_(bytes), who_(who) {
    result_.values = std::make_shared<std::deque<PickleValue>>();
  }

  Pickle run() {
    for (;;) {
      opcode_at_ = next_;
      const auto code = number<uint8_t>();
      if (code == '.') break;
      const bool known =
          constant(code) || text(code) || container(code) || memory(code) || object(code);
      if (!known) fail("the opcode " + std::to_string(code) + " is not one that torch.save writes");
    }
    result_.root = pop();
    result_.size = next_;
    std::sort(result_.called.begin(), result_.called.end());
    const auto end = std::unique(result_.called.begin(), result_.called.end());
    result_.called.erase(end, result_.called.end());
    return std::move(result_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    TORCH_CHECK(false, who_, ": the pickle is damaged at byte ", opcode_at_, ": ", message);
  }

  // input

  std::string_view take(uint64_t size) {
    if (size > bytes_.size() - next_) fail("it ends too early");
    const std::string_view part = bytes_.substr(next_, size);
    next_ += size;
    return part;
  }
  template <class Number>
  Number number() {
    Number value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string line() {
    const size_t end = bytes_.find('\n', next_);
    if (end == std::string_view::npos) fail("a line does not end");
    std::string text(take(end - next_));
    ++next_;
    return text;
  }

  // stack

  PickleValue* make(Kind kind) {
    result_.values->emplace_back();
    result_.values->back().kind = kind;
    return &result_.values->back();
  }
  PickleValue* push(Kind kind) {
    stack_.push_back(make(kind));
    return stack_.back();
  }
  PickleValue* top() {
    if (stack_.empty() || (!marks_.empty() && stack_.size() <= marks_.back())) {
      fail("a value is missing on the stack");
    }
    return stack_.back();
  }
  PickleValue* pop() {
    PickleValue* value = top();
    stack_.pop_back();
    return value;
  }
  /// The values since the last mark.
  std::vector<PickleValue::Ref> pop_mark() {
    if (marks_.empty()) fail("a mark is missing on the stack");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleValue::Ref> values(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return values;
  }

  // opcodes, by family; false: not of this family

  bool constant(uint8_t code) {
    switch (code) {
      case 0x80:  // PROTO
        if (number<uint8_t>() > 5) fail("its protocol is newer than 5");
        return true;
      case 0x95:  // FRAME
        number<uint64_t>();
        return true;
      case 'N':
        push(Kind::kNone);
        return true;
      case 0x88:
      case 0x89:
        push(Kind::kBool)->whole = code == 0x88 ? 1 : 0;
        return true;
      case 'J':
        push(Kind::kInt)->whole = number<int32_t>();
        return true;
      case 'K':
        push(Kind::kInt)->whole = number<uint8_t>();
        return true;
      case 'M':
        push(Kind::kInt)->whole = number<uint16_t>();
        return true;
      case 0x8a:
        push_long(number<uint8_t>());
        return true;
      case 0x8b:
        push_long(number<uint32_t>());
        return true;
      case 'G':
        push_double(number<uint64_t>());
        return true;
      default:
        return false;
    }
  }
  void push_long(uint64_t size) {
    const std::string_view raw = take(size);
    if (size > 8) {
      push(Kind::kLong)->text = raw;
      return;
    }
    uint64_t bits = 0;
    for (size_t i = 0; i < raw.size(); ++i) {
      bits |= static_cast<uint64_t>(static_cast<uint8_t>(raw[i])) << (8 * i);
    }
    const bool negative = !raw.empty() && (static_cast<uint8_t>(raw.back()) & 0x80U) != 0;
    if (negative && size < 8) bits |= ~uint64_t{0} << (8 * size);
    push(Kind::kInt)->whole = static_cast<int64_t>(bits);
  }
  void push_double(uint64_t bits) {  // big-endian, unlike all else
    bits = __builtin_bswap64(bits);
    std::memcpy(&push(Kind::kFloat)->real, &bits, sizeof bits);
  }

  bool text(uint8_t code) {
    switch (code) {
      case 'X':
        push_text(Kind::kText, number<uint32_t>());
        return true;
      case 0x8c:
        push_text(Kind::kText, number<uint8_t>());
        return true;
      case 0x8d:
        push_text(Kind::kText, number<uint64_t>());
        return true;
      case 'T':
        push_text(Kind::kText, number<uint32_t>());
        return true;
      case 'U':
        push_text(Kind::kText, number<uint8_t>());
        return true;
      case 'B':
        push_text(Kind::kBytes, number<uint32_t>());
        return true;
      case 'C':
        push_text(Kind::kBytes, number<uint8_t>());
        return true;
      case 0x8e:  // BINBYTES8
      case 0x96:  // BYTEARRAY8
        push_text(Kind::kBytes, number<uint64_t>());
        return true;
      default:
        return false;
    }
  }
  void push_text(Kind kind, uint64_t size) {
    const std::string_view raw = take(size);
    push(kind)->text = raw;
  }

  bool container(uint8_t code) {
    switch (code) {
      case '(':
        marks_.push_back(stack_.size());
        return true;
      case '0':
        if (!marks_.empty() && marks_.back() == stack_.size())
          marks_.pop_back();
        else
          pop();
        return true;
      case '1':
        pop_mark();
        return true;
      case '2':
        stack_.push_back(top());
        return true;
      case ']':
      case 0x8f:  // EMPTY_SET
        push(Kind::kList);
        return true;
      case ')':
        push(Kind::kTuple);
        return true;
      case '}':
        push(Kind::kDict);
        return true;
      case 'l':
      case 't':
      case 0x91: {  // FROZENSET
        auto items = pop_mark();
        push(code == 't' ? Kind::kTuple : Kind::kList)->items = std::move(items);
        return true;
      }
      case 0x85:
      case 0x86:
      case 0x87: {
        std::vector<PickleValue::Ref> items;
        for (int left = code - 0x84; left > 0; --left) items.push_back(pop());
        std::reverse(items.begin(), items.end());
        push(Kind::kTuple)->items = std::move(items);
        return true;
      }
      case 'd': {
        const auto items = pop_mark();
        add_pairs(push(Kind::kDict), items);
        return true;
      }
      case 'a': {
        PickleValue* item = pop();
        add_items(top(), {item});
        return true;
      }
      case 'e':
      case 0x90: {  // ADDITEMS
        const auto items = pop_mark();
        add_items(top(), items);
        return true;
      }
      case 's': {
        PickleValue* value = pop();
        PickleValue* key = pop();
        add_pairs(top(), {key, value});
        return true;
      }
      case 'u': {
        const auto items = pop_mark();
        add_pairs(top(), items);
        return true;
      }
      default:
        return false;
    }
  }
  /// What is added to an object of an unknown class stays out: its arguments are in `items`.
  void add_items(PickleValue* target, const std::vector<PickleValue::Ref>& items) {
    if (target->kind == Kind::kCall) return;
    if (target->kind != Kind::kList) fail("an item is added to what is no list");
    target->items.insert(target->items.end(), items.begin(), items.end());
  }
  void add_pairs(PickleValue* target, const std::vector<PickleValue::Ref>& items) {
    const bool keeps = target->kind == Kind::kDict || target->kind == Kind::kCall;
    if (!keeps || items.size() % 2 != 0) fail("a key and value are added to what is no dict");
    for (size_t i = 0; i < items.size(); i += 2) target->pairs.emplace_back(items[i], items[i + 1]);
  }

  bool memory(uint8_t code) {
    switch (code) {
      case 'q':
        memo_[number<uint8_t>()] = top();
        return true;
      case 'r':
        memo_[number<uint32_t>()] = top();
        return true;
      case 0x94:
        memo_[memo_.size()] = top();
        return true;
      case 'h':
        recall(number<uint8_t>());
        return true;
      case 'j':
        recall(number<uint32_t>());
        return true;
      default:
        return false;
    }
  }
  void recall(uint64_t key) {
    const auto known = memo_.find(key);
    if (known == memo_.end()) fail("it recalls a value that it has not kept");
    stack_.push_back(known->second);
  }

  bool object(uint8_t code) {
    switch (code) {
      case 'c': {  // GLOBAL
        const std::string module = line();
        push(Kind::kGlobal)->text = module + "." + line();
        return true;
      }
      case 0x93: {  // STACK_GLOBAL
        const PickleValue* name = pop();
        const PickleValue* module = pop();
        if (name->kind != Kind::kText || module->kind != Kind::kText) fail("a name is not text");
        push(Kind::kGlobal)->text = module->text + "." + name->text;
        return true;
      }
      case 'R':     // REDUCE
      case 0x81: {  // NEWOBJ
        const PickleValue* arguments = pop();
        call(pop(), arguments);
        return true;
      }
      case 0x92: {  // NEWOBJ_EX
        pop();
        const PickleValue* arguments = pop();
        call(pop(), arguments);
        return true;
      }
      case 'b': {
        const PickleValue* state = pop();
        top()->state = state;
        return true;
      }
      case 'Q': {
        const PickleValue* id = pop();
        push(Kind::kPersistent)->items = {id};
        return true;
      }
      default:
        return false;
    }
  }
  void call(const PickleValue* function, const PickleValue* arguments) {
    if (arguments->kind != Kind::kTuple) fail("the arguments of a call are no tuple");
    PickleValue* value = push(Kind::kCall);
    value->text = function->kind == Kind::kGlobal ? function->text : "an object";
    value->items = arguments->items;
    result_.called.push_back(value->text);
  }

  std::string_view bytes_;
  const std::string& who_;
  size_t next_ = 0, opcode_at_ = 0;
  std::vector<PickleValue*> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, PickleValue*> memo_;
  Pickle result_;
};

}  // namespace

Pickle parse_pickle(std::string_view bytes, const std::string& who) {
  return Machine(bytes, who).run();
}

}  // namespace serpentine
