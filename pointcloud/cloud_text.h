// Reading text that says where a mistake is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace serpentine {

/// Lines and words of a text in memory, with the number of the line for errors.
class TextScanner {
 public:
  TextScanner(std::string_view text, std::string who) : text_(text), who_(std::move(who)) {}

  /// The next line without its end ("\n" or "\r\n"); false at the end of the text.
  bool line(std::string_view& out);

  /// The next number, on this line or a later one; '#' begins a comment up to the end of a line.
  /// Throws when there is none: `what` is what was wanted.
  double number(const char* what);
  int64_t whole(const char* what);

  /// Counts the lines of a text that came before this one.
  void skip_lines_before(std::string_view text);

  int64_t line_number() const { return line_; }
  size_t byte() const { return at_; }
  bool at_end();  // nothing but space and comments follows

  [[noreturn]] void fail(const std::string& message) const;  // "file:line: message"

 private:
  std::string_view word(const char* what);
  void skip_space();
  void start_line();

  std::string_view text_;
  std::string who_;
  size_t at_ = 0;
  int64_t line_ = 1;
  bool behind_ = false;  // the line that line() gave is still the current one
};

/// The words of a line, apart by spaces and tabs; or by `delimiter`, with space around them cut.
std::vector<std::string_view> words_of(std::string_view line, char delimiter = ' ');

/// The number that a whole word is ("nan" and "inf" too); false when it is none.
bool parse_number(std::string_view word, double& value);
bool parse_number(std::string_view word, int64_t& value);

/// The shortest text that reads as the same number.
void append_number(std::string& text, double value);
void append_number(std::string& text, float value);

}  // namespace serpentine
