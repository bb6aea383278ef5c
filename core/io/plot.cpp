#include "core/io/plot.h"

#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>

#include "core/io/atomic_file.h"

namespace serpentine {
namespace {

/// Single quotes: gnuplot neither expands nor executes what stands in them.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += '\'';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "'";
}

const char* color(Ink ink) {
  switch (ink) {
    case Ink::kPast:
      return "#4a5568";
    case Ink::kForecast:
      return "#d9480f";
    case Ink::kActual:
      return "#1864ab";
    case Ink::kFirst:
      return "#1864ab";
    case Ink::kSecond:
      return "#d9480f";
    case Ink::kThird:
      return "#2b8a3e";
    case Ink::kFourth:
      return "#862e9c";
  }
  return "#000000";
}

std::string number(double value) {
  if (!std::isfinite(value)) return "NaN";
  char text[40];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

/// Inline data: what a picture shows stays in its script.
void add_block(std::string& script, const std::string& name,
               const std::vector<const std::vector<double>*>& columns) {
  script += "$" + name + " << EOD\n";
  for (size_t row = 0; row < columns.front()->size(); ++row) {
    for (const auto* column : columns) script += number((*column)[row]) + " ";
    script.back() = '\n';
  }
  script += "EOD\n";
}

/// Labels fit the span that the axis covers.
std::string date_format(const Figure& figure) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const auto& panel : figure.panels) {
    for (const auto& curve : panel.curves) {
      for (const double x : curve.x) low = std::min(low, x), high = std::max(high, x);
    }
  }
  constexpr double kDay = 86400;
  const double span = high - low;
  if (span < 3600) return "%H:%M:%S";
  if (span < 2 * kDay) return "%H:%M\\n%d %b";
  if (span < 8 * kDay) return "%d %b\\n%H:%M";
  if (span < 300 * kDay) return "%d %b\\n%Y";
  return "%b\\n%Y";
}

std::string panel_commands(const Figure& figure, size_t index) {
  const Panel& panel = figure.panels[index];
  const std::string id = std::to_string(index);
  std::string text = "  set title " + quoted(panel.title) + " font ',11'\n  unset arrow\n";
  for (const double x : panel.markers) {
    text += "  set arrow from " + number(x) + ", graph 0 to " + number(x) +
            ", graph 1 nohead dashtype 3 linecolor rgb '#868e96'\n";
  }
  std::string items;
  const auto add = [&](const std::string& item, const std::string& title) {
    // one legend is enough when every panel shows the same kinds of curve
    const bool named = !title.empty() && index == 0;
    items += (items.empty() ? "" : ", ") + item + (named ? " title " + quoted(title) : " notitle");
  };
  for (size_t b = 0; b < panel.bands.size(); ++b) {
    const Band& band = panel.bands[b];
    add("$band" + id + "_" + std::to_string(b) + " using 1:2:3 with filledcurves linecolor rgb '" +
            color(band.ink) + "' fillstyle transparent solid " + number(band.opacity) + " noborder",
        band.title);
  }
  for (size_t c = 0; c < panel.curves.size(); ++c) {
    const Curve& curve = panel.curves[c];
    add("$curve" + id + "_" + std::to_string(c) + " using 1:2 with " +
            (curve.points ? "linespoints pointtype 7 pointsize 0.6" : "lines") +
            " linewidth 1.8 linecolor rgb '" + color(curve.ink) + "'",
        curve.title);
  }
  return text + "  plot " + items + "\n";
}

std::string shell_quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

}  // namespace

std::string gnuplot_script(const Figure& figure, const std::string& name) {
  const size_t panels = figure.panels.size();
  const size_t columns = panels > 1 ? 2 : 1, rows = (panels + columns - 1) / columns;
  const size_t width = panels > 1 ? 1300 : 1000, height = (panels > 1 ? 290 * rows : 430) + 60;
  std::string script = "# Draws " + name + ".png and " + name + ".svg: gnuplot " + name + ".gp\n";
  for (size_t p = 0; p < panels; ++p) {
    for (size_t b = 0; b < figure.panels[p].bands.size(); ++b) {
      const Band& band = figure.panels[p].bands[b];
      add_block(script, "band" + std::to_string(p) + "_" + std::to_string(b),
                {&band.x, &band.low, &band.high});
    }
    for (size_t c = 0; c < figure.panels[p].curves.size(); ++c) {
      const Curve& curve = figure.panels[p].curves[c];
      add_block(script, "curve" + std::to_string(p) + "_" + std::to_string(c),
                {&curve.x, &curve.y});
    }
  }
  const std::string size = " size " + std::to_string(width) + "," + std::to_string(height);
  script +=
      "set grid xtics ytics back linetype 1 linewidth 0.7 linecolor rgb '#dee2e6'\nset border 3 "
      "linecolor rgb '#495057'\n"
      "set tics nomirror out scale 0.5\nset key top left horizontal reverse Left samplen 2 font "
      "',10' noenhanced\n";
  if (figure.dates) {
    script += "set xdata time\nset timefmt '%s'\nset format x \"" + date_format(figure) + "\"\n";
  }
  // room above the curves for the legend; offsets do not work with a logarithmic axis
  script += figure.log_y ? "set logscale y\nset autoscale xfix\n"
                         : "set autoscale xfix\nset autoscale yfix\nset offsets graph 0, graph 0, "
                           "graph 0.15, graph 0.04\n";
  if (!figure.x_label.empty()) script += "set xlabel " + quoted(figure.x_label) + " noenhanced\n";
  if (!figure.y_label.empty()) script += "set ylabel " + quoted(figure.y_label) + " noenhanced\n";
  script += "do for [kind in 'png svg'] {\n  if (kind eq 'png') {\n    set terminal pngcairo" +
            size + " font 'DejaVu Sans,10' noenhanced background rgb 'white'\n    set output " +
            quoted(name + ".png") + "\n  } else {\n    set terminal svg" + size +
            " dynamic font 'DejaVu Sans,12' noenhanced background rgb 'white'\n    set output " +
            quoted(name + ".svg") + "\n  }\n";
  script += "  set multiplot layout " + std::to_string(rows) + "," + std::to_string(columns) +
            " title " + quoted(figure.title) + " font ',14'\n";
  for (size_t p = 0; p < panels; ++p) script += panel_commands(figure, p);
  return script + "  unset multiplot\n  unset output\n}\n";
}

std::string draw_figure(const Figure& figure, const std::string& stem) {
  const std::filesystem::path path(stem);
  const std::string name = path.filename().string();
  const std::string folder = path.parent_path().empty() ? "." : path.parent_path().string();
  write_atomically(stem + ".gp", gnuplot_script(figure, name));

  const std::string command =
      "cd " + shell_quoted(folder) + " && gnuplot " + shell_quoted("./" + name + ".gp") + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return "no picture: a process for gnuplot cannot be started";
  std::string said;
  std::array<char, 512> buffer{};
  while (std::fgets(buffer.data(), static_cast<int>(buffer.size()), pipe)) said += buffer.data();
  const int status = pclose(pipe);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
    return "no picture: gnuplot is not installed (apt-get install gnuplot-nox); then run "
           "`gnuplot " +
           name + ".gp` in " + folder;
  }
  // gnuplot puts the line and an arrow before the sentence that matters
  const auto last = said.find_last_not_of('\n');
  const auto begin = last == std::string::npos ? 0 : said.rfind('\n', last);
  return "no picture: gnuplot could not draw " + stem + ".gp: " +
         (last == std::string::npos ? "it said nothing" : said.substr(begin + 1, last - begin));
}

}  // namespace serpentine
