#include "pointcloud/cloud_text.h"

#include <algorithm>
#include <charconv>

#include <c10/util/Exception.h>

namespace serpentine {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f'; }

std::string shown(std::string_view word) {
  constexpr size_t kMost = 40;
  std::string text(word.substr(0, kMost));
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || static_cast<unsigned char>(c) > '~') c = '?';
  }
  return "'" + text + (word.size() > kMost ? "..." : "") + "'";
}

template <class Number>
bool parse(std::string_view word, Number& value) {
  if (!word.empty() && word.front() == '+') word.remove_prefix(1);
  const char* end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, value);
  return !word.empty() && error == std::errc() && stop == end;
}

template <class Number>
void append(std::string& text, Number value) {
  char buffer[40];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  (void)error;  // 40 characters hold any number
  text.append(buffer, end);
}

}  // namespace

bool TextScanner::line(std::string_view& out) {
  start_line();
  if (at_ >= text_.size()) return false;
  const size_t end = std::min(text_.find('\n', at_), text_.size());
  out = text_.substr(at_, end - at_);
  if (!out.empty() && out.back() == '\r') out.remove_suffix(1);
  at_ = std::min(end + 1, text_.size());
  behind_ = true;
  return true;
}

// what was the last line stays the one that errors name, until the next is looked at
void TextScanner::start_line() {
  if (behind_) ++line_;
  behind_ = false;
}

void TextScanner::skip_space() {
  start_line();
  while (at_ < text_.size()) {
    if (text_[at_] == '#') {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (is_space(text_[at_])) {
      if (text_[at_] == '\n') ++line_;
      ++at_;
    } else {
      return;
    }
  }
}

bool TextScanner::at_end() {
  skip_space();
  return at_ >= text_.size();
}

std::string_view TextScanner::word(const char* what) {
  skip_space();
  const size_t begin = at_;
  while (at_ < text_.size() && !is_space(text_[at_]) && text_[at_] != '#') ++at_;
  if (at_ == begin) fail(std::string("the file ends where ") + what + " was expected");
  return text_.substr(begin, at_ - begin);
}

double TextScanner::number(const char* what) {
  const auto found = word(what);
  double value = 0;
  if (!parse(found, value)) fail(std::string(what) + " must be a number, got " + shown(found));
  return value;
}

int64_t TextScanner::whole(const char* what) {
  const auto found = word(what);
  int64_t value = 0;
  if (!parse(found, value))
    fail(std::string(what) + " must be a whole number, got " + shown(found));
  return value;
}

void TextScanner::skip_lines_before(std::string_view text) {
  line_ += std::count(text.begin(), text.end(), '\n');
}

void TextScanner::fail(const std::string& message) const {
  TORCH_CHECK(false, who_, ":", line_, ": ", message);
}

std::vector<std::string_view> words_of(std::string_view line, char delimiter) {
  std::vector<std::string_view> words;
  if (delimiter == ' ') {
    for (size_t at = 0; at < line.size();) {
      while (at < line.size() && is_space(line[at])) ++at;
      const size_t begin = at;
      while (at < line.size() && !is_space(line[at])) ++at;
      if (at > begin) words.push_back(line.substr(begin, at - begin));
    }
    return words;
  }
  for (size_t at = 0; at <= line.size();) {
    const size_t end = std::min(line.find(delimiter, at), line.size());
    std::string_view word = line.substr(at, end - at);
    while (!word.empty() && is_space(word.front())) word.remove_prefix(1);
    while (!word.empty() && is_space(word.back())) word.remove_suffix(1);
    words.push_back(word);
    at = end + 1;
  }
  return words;
}

bool parse_number(std::string_view word, double& value) { return parse(word, value); }
bool parse_number(std::string_view word, int64_t& value) { return parse(word, value); }
void append_number(std::string& text, double value) { append(text, value); }
void append_number(std::string& text, float value) { append(text, value); }

}  // namespace serpentine
