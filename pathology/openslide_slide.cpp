// Slides of scanners through OpenSlide, which is looked for when the first slide is opened.
//
// Loading at run time lets one program use OpenSlide 3.4 of the system and a newer one that reads
// DICOM, and start where there is none. Only functions that both have are called.
#include <dlfcn.h>
#include <openslide/openslide.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stdexcept>

#include <torch/torch.h>

#include "pathology/frame_colour.h"
#include "pathology/pixels.h"
#include "pathology/slide_formats.h"

namespace serpentine {
namespace {

/// The functions of the library that was found.
struct OpenSlide {
  void* library = nullptr;
  decltype(&openslide_detect_vendor) detect_vendor = nullptr;
  decltype(&openslide_open) open = nullptr;
  decltype(&openslide_close) close = nullptr;
  decltype(&openslide_get_error) get_error = nullptr;
  decltype(&openslide_get_level_count) get_level_count = nullptr;
  decltype(&openslide_get_level_dimensions) get_level_dimensions = nullptr;
  decltype(&openslide_get_level_downsample) get_level_downsample = nullptr;
  decltype(&openslide_read_region) read_region = nullptr;
  decltype(&openslide_get_property_names) get_property_names = nullptr;
  decltype(&openslide_get_property_value) get_property_value = nullptr;
  decltype(&openslide_get_associated_image_names) get_associated_names = nullptr;
  decltype(&openslide_get_associated_image_dimensions) get_associated_dimensions = nullptr;
  decltype(&openslide_read_associated_image) read_associated = nullptr;
  decltype(&openslide_get_version) get_version = nullptr;
};

template <class Function>
void resolve(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function) throw std::runtime_error(std::string("OpenSlide has no function ") + name);
}

OpenSlide load() {
  OpenSlide all;
  const char* named = std::getenv("SERPENTINE_OPENSLIDE_LIBRARY");
  const std::vector<std::string> candidates =
      named ? std::vector<std::string>{named}
            : std::vector<std::string>{"libopenslide.so.1", "libopenslide.so.0"};
  for (const auto& name : candidates) {
    if (!all.library) all.library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (!all.library) {
    if (named) throw std::runtime_error(std::string(named) + ": cannot be loaded: " + dlerror());
    return all;
  }
  const auto get = [&](const char* name, auto& function) { resolve(all.library, name, function); };
  get("openslide_detect_vendor", all.detect_vendor);
  get("openslide_open", all.open);
  get("openslide_close", all.close);
  get("openslide_get_error", all.get_error);
  get("openslide_get_level_count", all.get_level_count);
  get("openslide_get_level_dimensions", all.get_level_dimensions);
  get("openslide_get_level_downsample", all.get_level_downsample);
  get("openslide_read_region", all.read_region);
  get("openslide_get_property_names", all.get_property_names);
  get("openslide_get_property_value", all.get_property_value);
  get("openslide_get_associated_image_names", all.get_associated_names);
  get("openslide_get_associated_image_dimensions", all.get_associated_dimensions);
  get("openslide_read_associated_image", all.read_associated);
  get("openslide_get_version", all.get_version);
  return all;
}

const OpenSlide& library() {
  static const OpenSlide all = load();
  return all;
}

/// An open file. After its first error OpenSlide answers every call on it with that error.
using Handle = std::shared_ptr<openslide_t>;

Handle open_handle(const std::string& path) {
  Handle handle(library().open(path.c_str()), [](openslide_t* slide) {
    if (slide) library().close(slide);
  });
  const char* error = handle ? library().get_error(handle.get()) : "it cannot be opened";
  if (error) throw std::runtime_error(path + ": OpenSlide: " + error);
  return handle;
}

torch::Tensor over_white(const std::vector<uint32_t>& argb, int64_t height, int64_t width,
                         bool ycc = false) {
  auto picture = torch::empty({height, width, 3}, torch::kUInt8);
  argb_over_white(argb.data(), argb.size(), picture.data_ptr<uint8_t>(), ycc);
  return picture;
}

class OpenSlideSlide : public Slide {
 public:
  OpenSlideSlide(const std::string& path, const std::string& vendor, const SlideOptions& options,
                 bool direct)
      : handle_(open_handle(path)) {
    path_ = path;
    format_ = std::string("openslide ") + library().get_version() + " " + vendor;
    const int32_t count = library().get_level_count(handle_.get());
    for (int32_t level = 0; level < count; ++level) {
      SlideLevel size;
      library().get_level_dimensions(handle_.get(), level, &size.width, &size.height);
      size.downsample = library().get_level_downsample(handle_.get(), level);
      levels_.push_back(size);
    }
    if (levels_.empty()) throw std::runtime_error(path + ": holds no level");
    for (const auto* name = library().get_property_names(handle_.get()); name && *name; ++name) {
      const char* value = library().get_property_value(handle_.get(), *name);
      if (value) properties_[*name] = value;
    }
    for (const auto* name = library().get_associated_names(handle_.get()); name && *name; ++name) {
      associated_.emplace_back(*name);
    }
    find_mpp(options);
    if (direct && vendor == "aperio") find_tiles();
    if (vendor == "dicom")
      ycc_ = frames_are_ycc(path, [&](int64_t w, int64_t h) { return read(0, 0, 0, w, h); });
    if (ycc_) remark_ = "its frames are YCbCr, though the file calls them RGB: converted";
  }

  torch::Tensor read(int64_t x, int64_t y, int64_t level, int64_t width,
                     int64_t height) const override {
    if (tiles_ && level == 0) {
      try {
        return tiles_->read(x, y, 0, width, height);
      } catch (const std::bad_alloc&) {
        throw;
      } catch (const std::exception&) {  // what is damaged there, OpenSlide may know to read
      }
    }
    std::vector<uint32_t> pixels(static_cast<size_t>(width * height));
    attempt([&](openslide_t* slide) {
      library().read_region(slide, pixels.data(), x, y, static_cast<int32_t>(level), width, height);
    });
    return over_white(pixels, height, width, ycc_);
  }

  std::vector<std::string> associated_names() const override { return associated_; }

  torch::Tensor associated(const std::string& name) const override {
    if (std::find(associated_.begin(), associated_.end(), name) == associated_.end()) {
      return Slide::associated(name);
    }
    int64_t width = 0, height = 0;
    std::vector<uint32_t> pixels;
    attempt([&](openslide_t* slide) {
      library().get_associated_dimensions(slide, name.c_str(), &width, &height);
      pixels.resize(static_cast<size_t>(std::max<int64_t>(0, width * height)));
      library().read_associated(slide, name.c_str(), pixels.data());
    });
    return over_white(pixels, height, width);
  }

 private:
  /// Aperio's JPEG tiles are the slide as it is: read by libtiff they need no canvas and no
  /// premultiplied colours, which is most of the time of reading a tile.
  void find_tiles() {
    try {
      tiles_ = open_whole_tiles(path_);
    } catch (const std::exception&) {  // then OpenSlide reads them
    }
    if (tiles_ && (tiles_->width() != width() || tiles_->height() != height())) tiles_.reset();
  }

  /// Calls `use` on the shared file. An error there may be another thread's, so a second call on a
  /// file of its own decides; a sound one replaces the shared file.
  template <class Use>
  void attempt(const Use& use) const {
    Handle shared;
    {
      const std::lock_guard lock(mutex_);
      if (!handle_) handle_ = open_handle(path_);
      shared = handle_;
    }
    use(shared.get());
    if (!library().get_error(shared.get())) return;
    {
      const std::lock_guard lock(mutex_);
      if (handle_ == shared) handle_.reset();
    }
    const Handle own = open_handle(path_);
    use(own.get());
    const char* error = library().get_error(own.get());
    if (error) throw std::runtime_error(path_ + ": " + error);
    const std::lock_guard lock(mutex_);
    if (!handle_) handle_ = own;
  }

  mutable std::mutex mutex_;
  mutable Handle handle_;
  std::shared_ptr<Slide> tiles_;  // level 0 through libtiff, or null
  std::vector<std::string> associated_;
  bool ycc_ = false;  // the pixels of its levels are Y, Cb, Cr
};

}  // namespace

std::string openslide_version() { return library().library ? library().get_version() : ""; }

std::shared_ptr<Slide> open_with_openslide(const std::string& path, const SlideOptions& options,
                                           bool direct) {
  if (!library().library) return nullptr;
  const char* vendor = library().detect_vendor(path.c_str());
  // pyramids of plain TIFF are read by libtiff: it also knows SubIFDs and strips
  if (!vendor || (std::strcmp(vendor, "generic-tiff") == 0 && libtiff_available())) return nullptr;
  return std::make_shared<OpenSlideSlide>(path, vendor, options, direct);
}

}  // namespace serpentine
