// The viewer's server: tiles are cut from the slide when they are asked for.
#include "apps/viewer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>

#include <httplib.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/image.h"
#include "core/io/json_file.h"
#include "pathology/tiles.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using httplib::Request;
using httplib::Response;

constexpr int64_t kTile = 256;
constexpr size_t kOpenSlides = 8;

std::atomic<bool> asked_to_end =
    false;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

int64_t levels_of(const Slide& slide) {  // DeepZoom counts from one pixel upwards
  return static_cast<int64_t>(
      std::ceil(std::log2(static_cast<double>(std::max(slide.width(), slide.height())))));
}

class Viewer {
 public:
  explicit Viewer(ViewerOptions options)
      : options_(std::move(options)), viewed_(find_viewed(options_.folder)) {
    if (viewed_.empty())
      throw std::runtime_error(options_.folder + ": holds no slide and no prediction");
  }

  void run() {
    routes();
    const int port =
        options_.port == 0
            ? server_.bind_to_any_port(options_.host.c_str())
            : (server_.bind_to_port(options_.host.c_str(), static_cast<int>(options_.port))
                   ? static_cast<int>(options_.port)
                   : -1);
    if (port <= 0) {
      throw std::runtime_error("serve: " + options_.host + ":" + std::to_string(options_.port) +
                               " cannot be opened; is it in use? --port chooses another");
    }
    if (options_.ready)
      options_.ready("http://" + options_.host + ":" + std::to_string(port) + "/");
    const auto end = [](int) { asked_to_end = true; };
    std::signal(SIGINT, end);
    std::signal(SIGTERM, end);
    std::thread watch([&] {
      while (!asked_to_end) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      server_.stop();
    });
    server_.listen_after_bind();
    asked_to_end = true;
    watch.join();
  }

 private:
  /// A route whose errors become one sentence and a status.
  template <class Handler>
  void get(const std::string& pattern, Handler handler) {
    server_.Get(pattern, [this, handler](const Request& request, Response& response) {
      if (!own_host(request)) {
        response.status = 403;
        response.set_content("this viewer answers only under its own address\n", "text/plain");
        return;
      }
      try {
        handler(request, response);
      } catch (const std::out_of_range&) {
        response.status = 404;
        response.set_content("there is no such slide or file\n", "text/plain");
      } catch (const std::exception& error) {
        response.status = 500;
        response.set_content(std::string(error.what()) + "\n", "text/plain");
      }
    });
  }

  /// A page elsewhere may let its name point here; such requests carry that name.
  bool own_host(const Request& request) const {
    std::string host = request.get_header_value("Host");
    host = host.substr(0, host.rfind(':') == std::string::npos ? host.size() : host.rfind(':'));
    const bool loopback =
        options_.host == "127.0.0.1" || options_.host == "localhost" || options_.host == "::1";
    return !loopback || host == "127.0.0.1" || host == "localhost" || host == "[::1]" ||
           host.empty();
  }

  const ViewedSlide& viewed(const std::string& number) const {
    return viewed_.at(static_cast<size_t>(std::stoul(number)));
  }

  std::shared_ptr<Slide> slide(const std::string& number) {
    const std::string& path = viewed(number).slide_path;
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(open_.begin(), open_.end(),
                                    [&](const auto& one) { return one.first == path; });
    if (found != open_.end()) {
      std::rotate(open_.begin(), found, found + 1);
      return open_.front().second;
    }
    open_.insert(open_.begin(), {path, open_slide(path, options_.slide)});
    if (open_.size() > kOpenSlides) open_.pop_back();
    return open_.front().second;
  }

  Json list() {
    auto all = Json::array();
    for (size_t i = 0; i < viewed_.size(); ++i) {
      const ViewedSlide& one = viewed_[i];
      Json entry = {{"id", i}, {"name", one.name}};
      try {
        const auto open = slide(std::to_string(i));
        entry.update({{"width", open->width()},
                      {"height", open->height()},
                      {"mpp", open->mpp().value},
                      {"levels", levels_of(*open)}});
      } catch (const std::exception& error) {
        entry["error"] = error.what();
      }
      if (!one.folder.empty()) {
        entry["prediction"] = read_json(one.folder + "/prediction.json");
        entry["heat"] = fs::exists(one.folder + "/heat.png");
        entry["report"] = fs::exists(one.folder + "/report.html");
      }
      all.push_back(entry);
    }
    return all;
  }

  void deep_zoom_tile(const Request& request, Response& response) {
    const auto open = slide(request.matches[1]);
    const int64_t level = std::stol(request.matches[2]), most = levels_of(*open);
    if (level > most) throw std::out_of_range("level");
    const double scale = std::pow(2.0, static_cast<double>(most - level));
    const auto size = [&](int64_t n) {
      return static_cast<int64_t>(std::ceil(static_cast<double>(n) / scale));
    };
    const int64_t x = std::stol(request.matches[3]) * kTile,
                  y = std::stol(request.matches[4]) * kTile;
    const int64_t w = std::min(kTile, size(open->width()) - x),
                  h = std::min(kTile, size(open->height()) - y);
    if (w <= 0 || h <= 0) throw std::out_of_range("tile");
    const auto level0 = [&](int64_t n) { return static_cast<double>(n) * scale; };
    torch::Tensor picture;
    try {
      picture = read_view(*open, level0(x), level0(y), level0(w), level0(h), w, h);
    } catch (const std::exception&) {  // a damaged part: grey, and the rest of the slide goes on
      picture = torch::full({h, w, 3}, 128, torch::kUInt8);
    }
    picture_of(response, picture);
  }

  static void picture_of(Response& response, const torch::Tensor& picture) {
    response.set_header("Cache-Control", "max-age=3600");
    response.set_content(encode_image(picture, "jpg", 85), "image/jpeg");
  }

  void top_tile(const Request& request, Response& response) {
    const auto open = slide(request.matches[1]);
    const Json prediction = read_json(viewed(request.matches[1]).folder + "/prediction.json");
    const size_t number = std::stoul(request.matches[2]);
    if (!prediction.is_object() || number >= prediction.at("top_tiles").size())
      throw std::out_of_range("no such tile");
    const Json& tile = prediction.at("top_tiles").at(number);
    const double side = prediction.at("tile_size_level0");
    picture_of(response, read_view(*open, tile.at("x"), tile.at("y"), side, side, 160, 160));
  }

  void file(const Request& request, Response& response) const {
    const ViewedSlide& one = viewed(request.matches[1]);
    const std::string name = request.matches[2];
    static const std::map<std::string, std::string> kAllowed = {
        {"report.html", "text/html"},
        {"overlay.png", "image/png"},
        {"top_tiles.png", "image/png"},
        {"tiles.csv", "text/csv"},
        {"tiles.geojson", "application/geo+json"},
        {"prediction.json", "application/json"}};
    const std::string& type = kAllowed.at(name);  // no other name, hence no other folder
    if (one.folder.empty()) throw std::out_of_range("no prediction");
    send(response, one.folder + "/" + name, type);
  }

  static void send(Response& response, const std::string& path, const std::string& type) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw std::out_of_range("no file");
    response.set_content(std::string(std::istreambuf_iterator<char>(in), {}), type.c_str());
  }

  void routes() {
    get("/", [](const Request&, Response& response) {
      response.set_content(viewer_page(), "text/html; charset=utf-8");
    });
    get("/api/slides", [this](const Request&, Response& response) {
      response.set_content(list().dump(), "application/json");
    });
    get(R"(/dz/(\d{1,9})/(\d{1,2})/(\d{1,6})_(\d{1,6})\.jpg)",
        [this](const Request& request, Response& response) { deep_zoom_tile(request, response); });
    get(R"(/dz/(\d{1,9})\.dzi)", [this](const Request& request, Response& response) {
      const auto open = slide(request.matches[1]);
      response.set_content(
          "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Image xmlns=\"http://schemas.microsoft.com/"
          "deepzoom/2008\" Format=\"jpg\" Overlap=\"0\" TileSize=\"256\"><Size Width=\"" +
              std::to_string(open->width()) + "\" Height=\"" + std::to_string(open->height()) +
              "\"/></Image>",
          "application/xml");
    });
    get(R"(/heat/(\d{1,9})\.png)", [this](const Request& request, Response& response) {
      const ViewedSlide& one = viewed(request.matches[1]);
      if (one.folder.empty()) throw std::out_of_range("no prediction");
      send(response, one.folder + "/heat.png", "image/png");
    });
    get(R"(/tile/(\d{1,9})/(\d{1,4})\.jpg)",
        [this](const Request& request, Response& response) { top_tile(request, response); });
    get(R"(/file/(\d{1,9})/([a-z_]+\.[a-z]+))",
        [this](const Request& request, Response& response) { file(request, response); });
  }

  ViewerOptions options_;
  std::vector<ViewedSlide> viewed_;
  httplib::Server server_;
  std::mutex mutex_;
  std::vector<std::pair<std::string, std::shared_ptr<Slide>>> open_;  // latest first
};

}  // namespace

bool viewer_available() { return true; }

void serve_viewer(const ViewerOptions& options) { Viewer(options).run(); }

}  // namespace serpentine
