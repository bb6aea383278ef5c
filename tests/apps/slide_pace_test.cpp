// The time that a folder of slides still takes.
#include "apps/slide_pace.h"

#include <fstream>

#include <gtest/gtest.h>

#include "core/io/files.h"

namespace serpentine {
namespace {

class Pace : public FolderTest {
 protected:
  SlideFile file(const std::string& name, size_t bytes) const {
    std::ofstream(at(name), std::ios::binary) << std::string(bytes, 'x');
    return {at(name), name};
  }
};

TEST_F(Pace, IsThatOfTheFilesThatWereWorkedOn) {
  const std::vector<SlideFile> slides = {file("a", 1000), file("b", 2000), file("c", 4000),
                                         file("d", 3000)};
  double now = 100;
  SlidePace pace(slides, [&] { return now; });
  EXPECT_EQ(pace.left(), "") << "nothing is known yet";
  pace.begin();
  now += 0.5;
  pace.end(slides[0], false);  // finished before
  EXPECT_EQ(pace.left(), "");
  pace.begin();
  now += 20;  // 100 bytes a second
  pace.end(slides[1], true);
  EXPECT_EQ(pace.left(), " (all slides: 1:10 min left)");
  pace.begin();
  now += 100;  // 40 bytes a second: all in all 50
  pace.end(slides[2], true);
  EXPECT_EQ(pace.left(), " (all slides: 1:00 min left)");
}

TEST_F(Pace, SaysNothingOfASingleSlide) {
  const std::vector<SlideFile> slides = {file("a", 1000)};
  SlidePace pace(slides, [] { return 1.0; });
  pace.begin();
  pace.end(slides[0], true);
  EXPECT_EQ(pace.left(), "");
}

}  // namespace
}  // namespace serpentine
