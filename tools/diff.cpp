// espalier diff: what changed between two networks: answers, classes, calibration, corrupted images, removed units.
#include "tools/diff.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/kernels.h"
#include "datasets/image.h"
#include "pipeline/network_diff.h"
#include "pruning/removals.h"
#include "tools/commands.h"
#include "tools/terminal.h"

namespace espalier::tools {

namespace {

struct DiffFlags {
  std::string before, after, data, data_dir, png, why, style = "auto", device = "cpu";
  int64_t show = 4, corrupted = 2000;
  uint64_t seed = 0;
  std::optional<int> threads;
  bool per_class = false;
};

double percent(double share) { return 100 * share; }

/// "0.064", "0.0003", "4e-09".
std::string p_text(double p) {
  return p >= 0.0001 ? fmt::format("{:.{}f}", p, p >= 0.01 ? 3 : 4) : fmt::format("{:.0e}", p);
}

/// "-1.30", "+0.25", "0.00": a change in percentage points.
std::string points_text(double change) {
  const double points = std::round(10000 * change) / 100;
  return points == 0 ? "0.00" : fmt::format("{:+.2f}", points);
}

std::string class_text(const std::vector<std::string>& classes, int64_t c) {
  return printable(classes[static_cast<size_t>(c)]);
}

// --- size, accuracy, calibration

std::vector<std::string> size_row(const DiffSide& side, const std::string& name) {
  return {name,
          fmt::format("{:.2f} %", percent(side.answers.accuracy())),
          fmt::format("{:.2f} %", percent(side.calibration_error)),
          grouped(side.left),
          grouped(side.weights),
          bytes_text(side.bytes)};
}

void say_summary(const DiffSide& before, const DiffSide& after, const Output& output) {
  output.result("{}", table({{"", "accuracy", "calibration error", "weights left", "of", "file"},
                             size_row(before, "before"),
                             size_row(after, "after")},
                            {1, 2, 3, 4, 5}));
}

void say_classes(const AnswerChanges& changes, const std::vector<std::string>& classes, const Output& output) {
  std::vector<std::vector<std::string>> rows = {{"class", "images", "before", "after", "change"}};
  for (size_t c = 0; c < changes.classes.size(); ++c) {
    const ClassChange& change = changes.classes[c];
    rows.push_back({printable(classes[c]), grouped(change.examples), fmt::format("{:.2f} %", percent(change.before)),
                    fmt::format("{:.2f} %", percent(change.after)), points_text(change.after - change.before)});
  }
  output.result("\n{}", table(rows, {1, 2, 3, 4}));
}

/// Three lines: what changed, whether chance explains it, the worst class.
std::string changes_text(const AnswerChanges& changes, int64_t examples, const std::vector<std::string>& classes) {
  std::string text =
      fmt::format("{} of {} answers broken, {} repaired, {} wrong in another way\nMcNemar's p = {}: {}",
                  grouped(static_cast<int64_t>(changes.broken.size())), grouped(examples),
                  grouped(static_cast<int64_t>(changes.repaired.size())),
                  grouped(static_cast<int64_t>(changes.moved.size())), p_text(changes.p),
                  changes.p < 0.05 ? "chance hardly explains the difference" : "chance may explain the difference");
  if (const int64_t worst = changes.worst_class(); worst >= 0) {
    const ClassChange& change = changes.classes[static_cast<size_t>(worst)];
    text += fmt::format("\nworst class: {}, {:.2f} -> {:.2f} %", class_text(classes, worst), percent(change.before),
                        percent(change.after));
  }
  return text;
}

// --- the images

/// "  1234: 9, was 9 (98 %), now 4 (71 %)".
std::vector<std::string> captions(const DiffSide& before, const DiffSide& after, int64_t i,
                                  const std::vector<std::string>& classes) {
  const auto at = static_cast<size_t>(i);
  const auto answer = [&](const char* when, const Answers& answers) {
    return fmt::format("{} {} ({:.0f} %)", when, class_text(classes, answers.classes[at]),
                       percent(answers.confidence[at]));
  };
  return {fmt::format("test image {}", i), answer("was", before.answers), answer("now", after.answers)};
}

/// At most `columns` characters of UTF-8, padded with spaces to as many.
std::string fitted_text(const std::string& text, size_t columns) {
  std::string result;
  size_t width = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool starts = (text[i] & 0xC0) != 0x80;
    if (starts && width == columns) break;
    width += starts ? 1 : 0;
    result += text[i];
  }
  return result + std::string(columns - width, ' ');
}

/// The first broken images, side by side as far as the terminal is wide, with what was said of each.
void show_broken(const DiffFlags& options, const AnswerChanges& changes, const DiffSide& before, const DiffSide& after,
                 const Dataset& images, const Output& output) {
  const auto count = std::min<int64_t>(options.show, static_cast<int64_t>(changes.broken.size()));
  if (count == 0) return;
  const Palette palette = parse_palette(options.style, output.stream());
  constexpr size_t kGap = 2;
  constexpr size_t kLeast = 24;  // for the captions of small images
  const size_t width = std::max<size_t>(static_cast<size_t>(images.width()), kLeast);
  const auto across = std::max<int64_t>(
      1, (columns_of(output.stream()) + static_cast<int64_t>(kGap)) / static_cast<int64_t>(width + kGap));
  output.result("\nBroken, the most confident mistakes first:");
  for (int64_t first = 0; first < count; first += across) {
    std::vector<std::string> lines;
    for (int64_t k = first; k < std::min(count, first + across); ++k) {
      const int64_t i = changes.broken[static_cast<size_t>(k)];
      std::vector<std::string> cell = captions(before, after, i, images.class_names);
      for (std::string& line : cell) line = fitted_text(line, width);
      for (const std::string& line : draw(images.images.select(0, i), palette))
        cell.push_back(line + std::string(width - static_cast<size_t>(images.width()), ' '));
      lines.resize(cell.size());
      for (size_t row = 0; row < cell.size(); ++row)
        lines[row] += (k == first ? "" : std::string(kGap, ' ')) + cell[row];
    }
    for (const std::string& line : lines) output.picture(line);
  }
}

/// Broken images in rows of eight, enlarged, the order of the list; at most 64.
void save_broken(const std::string& path, const AnswerChanges& changes, const Dataset& images) {
  constexpr int64_t kAcross = 8, kMost = 64, kSide = 96, kGap = 4;
  const auto count = std::min<int64_t>(kMost, static_cast<int64_t>(changes.broken.size()));
  const int64_t scale = std::max<int64_t>(1, kSide / std::max(images.height(), images.width()));
  const int64_t height = images.height() * scale + kGap, width = images.width() * scale + kGap;
  const int64_t rows = std::max<int64_t>(1, (count + kAcross - 1) / kAcross);
  const int64_t across = std::clamp<int64_t>(count, 1, kAcross);
  Tensor sheet =
      Tensor::full({images.channels() == 3 ? 3 : 1, rows * height + kGap, across * width + kGap}, 128, DType::u8);
  for (int64_t k = 0; k < count; ++k) {
    const Tensor image = to_channels(images.images.select(0, changes.broken[static_cast<size_t>(k)]), sheet.size(0));
    const int64_t top = k / kAcross * height + kGap, left = k % kAcross * width + kGap;
    for (int64_t y = 0; y < scale; ++y)
      for (int64_t x = 0; x < scale; ++x) {
        Tensor place =
            sheet.slice(1, top + y, top + height - kGap, scale).slice(2, left + x, left + width - kGap, scale);
        place.copy_(image);
      }
  }
  write_png(path, sheet);
}

// --- corrupted images

nlohmann::json say_corrupted(const CorruptedDiff& diff, uint64_t seed, const Output& output) {
  if (diff.images == 0) return nullptr;
  std::vector<std::vector<std::string>> rows = {{"corruption", "before", "after", "change", "p"}};
  nlohmann::json list = nlohmann::json::array();
  const auto row = [](const std::string& name, double before, double after, const std::string& p) {
    return std::vector<std::string>{name, fmt::format("{:.2f} %", percent(before)),
                                    fmt::format("{:.2f} %", percent(after)), points_text(after - before), p};
  };
  for (const CorruptionDiff& c : diff.corruptions) {
    rows.push_back(row(c.name, c.before, c.after, p_text(c.p)));
    list.push_back({{"name", c.name}, {"before", c.before}, {"after", c.after}, {"p", c.p}});
  }
  rows.push_back(row(fmt::format("mean of {}", diff.corruptions.size() - 1), diff.mean_before, diff.mean_after, ""));
  output.result("\n{}", table(rows, {1, 2, 3, 4}));
  output.result("Corrupted: {} of the test images, the same share of every class, seed {}.", grouped(diff.images),
                seed);
  return {{"images", diff.images},
          {"seed", seed},
          {"mean_before", diff.mean_before},
          {"mean_after", diff.mean_after},
          {"corruptions", list}};
}

// --- removed units

/// "[3,0,2,1]" for a single weight of a parameter of the network before pruning, "7" for other units.
std::string unit_text(Module& network, const std::string& site, int64_t units, int64_t unit) {
  for (const auto& [name, parameter] : network.named_parameters()) {
    if (name != site || parameter.numel() != units || parameter.shape().rank() < 2) continue;
    std::string text;
    for (int axis = parameter.shape().rank() - 1; axis >= 0; --axis) {
      text = fmt::format("{}{}{}", unit % parameter.shape()[axis], text.empty() ? "" : ",", text);
      unit /= parameter.shape()[axis];
    }
    return "[" + text + "]";
  }
  return std::to_string(unit);
}

/// What units were compared by: "magnitude", "magnitude per macs".
std::string compared_by(const RemovalRecord& record) {
  return record.is_per_cost() ? record.criterion() + " per " + record.budget() : record.criterion();
}

nlohmann::json say_removed(const RemovalRecord& record, const std::string& path, const Output& output) {
  std::vector<std::vector<std::string>> rows = {{"site", "units", "removed", "scores", "lowest kept"}};
  nlohmann::json sites = nlohmann::json::array();
  for (size_t s = 0; s < record.sites().size(); ++s) {
    const std::vector<Removal> removed = record.removed(s);
    nlohmann::json site = {
        {"name", record.sites()[s]}, {"units", record.units(s)}, {"removed", static_cast<int64_t>(removed.size())}};
    std::string scores, spared;
    if (!removed.empty()) {
      const auto [low, high] = std::minmax_element(removed.begin(), removed.end(),
                                                   [](const auto& a, const auto& b) { return a.score < b.score; });
      scores = fmt::format("{:.3g} to {:.3g}", low->score, high->score);
      spared = std::isfinite(removed.back().spared) ? fmt::format("{:.3g}", removed.back().spared) : "none";
      site["lowest_score"] = low->score;
      site["highest_score"] = high->score;
      if (std::isfinite(removed.back().spared)) site["lowest_kept"] = removed.back().spared;
    }
    rows.push_back({printable(record.sites()[s]), grouped(record.units(s)),
                    grouped(static_cast<int64_t>(removed.size())), scores, spared});
    sites.push_back(std::move(site));
  }
  output.result("\nRemoved by {}, {} scope, in {} prunings\n({})", printable(compared_by(record)),
                name_of(record.scope()), record.prunings(), path);
  output.result("{}", table(rows, {1, 2, 3, 4}));
  return {{"file", path},
          {"criterion", record.criterion()},
          {"budget", record.budget().empty() ? nlohmann::json(nullptr) : nlohmann::json(record.budget())},
          {"per_cost", record.is_per_cost()},
          {"scope", name_of(record.scope())},
          {"prunings", record.prunings()},
          {"sites", sites}};
}

/// --why SITE or SITE:UNIT, the unit as a number or, for single weights, as its indices.
nlohmann::json say_why(const std::string& why, const RemovalRecord& record, Module& network, const Output& output) {
  const std::vector<std::string>& names = record.sites();
  auto site = std::find(names.begin(), names.end(), why);
  std::string wanted;
  if (site == names.end()) {
    const size_t colon = why.rfind(':');
    if (colon != std::string::npos) wanted = why.substr(colon + 1);
    site = std::find(names.begin(), names.end(), why.substr(0, colon));
  }
  check(site != names.end(), "diff", "--why: '{}' is no site of this pruning{}; known: {}", why,
        did_you_mean(why, names), fmt::join(names, ", "));
  const auto s = static_cast<size_t>(site - names.begin());
  constexpr size_t kMost = 20;
  const std::string asked = record.budget().empty() ? "at sparsity" : "less " + printable(record.budget());
  std::vector<std::vector<std::string>> rows = {{"unit", "score", "rank", "of", asked, "lowest kept"}};
  nlohmann::json list = nlohmann::json::array();
  size_t matching = 0;
  for (const Removal& r : record.removed(s)) {
    const std::string unit = unit_text(network, *site, record.units(s), r.unit);
    if (!wanted.empty() && wanted != std::to_string(r.unit) && "[" + wanted + "]" != unit) continue;
    if (++matching > kMost) continue;
    rows.push_back({unit, fmt::format("{:.4g}", r.score), grouped(r.rank), grouped(r.candidates),
                    fmt::format("{:.2f} %", percent(r.sparsity)),
                    std::isfinite(r.spared) ? fmt::format("{:.4g}", r.spared) : "none"});
    list.push_back({{"unit", r.unit},
                    {"index", unit},
                    {"pruning", r.event},
                    {"score", r.score},
                    {"rank", r.rank},
                    {"candidates", r.candidates},
                    {record.budget().empty() ? "sparsity" : "cost_share", r.sparsity}});
  }
  if (list.empty()) {
    output.result("\n{}: {} was not removed", printable(*site), wanted.empty() ? "any unit" : "unit " + wanted);
    return list;
  }
  output.result("\nWhy units of {} went: their {} was among the lowest.\n{}", printable(*site),
                printable(compared_by(record)), table(rows, {1, 2, 3, 4, 5}));
  if (matching > kMost) output.result("... and {} more", grouped(static_cast<int64_t>(matching - kMost)));
  output.result("rank: among the units that went in the same pruning, the lowest score first; of: the units compared.");
  return list;
}

// --- all of it

nlohmann::json answer_json(const DiffSide& before, const DiffSide& after, int64_t i) {
  const auto at = static_cast<size_t>(i);
  return {{"index", i},
          {"label", before.answers.labels[at]},
          {"before", before.answers.classes[at]},
          {"after", after.answers.classes[at]},
          {"confidence_before", before.answers.confidence[at]},
          {"confidence_after", after.answers.confidence[at]}};
}

nlohmann::json to_json(const AnswerChanges& changes, const DiffSide& before, const DiffSide& after,
                       const std::vector<std::string>& names) {
  const auto list = [&](const std::vector<int64_t>& indices) {
    nlohmann::json answers = nlohmann::json::array();
    for (int64_t i : indices) answers.push_back(answer_json(before, after, i));
    return answers;
  };
  nlohmann::json classes = nlohmann::json::array();
  for (size_t c = 0; c < changes.classes.size(); ++c) {
    const ClassChange& change = changes.classes[c];
    classes.push_back(
        {{"name", names[c]}, {"examples", change.examples}, {"before", change.before}, {"after", change.after}});
  }
  const int64_t worst = changes.worst_class();
  return {{"broken", list(changes.broken)},
          {"repaired", list(changes.repaired)},
          {"moved", list(changes.moved)},
          {"p", changes.p},
          {"classes", classes},
          {"worst_class", worst < 0 ? nlohmann::json(nullptr) : nlohmann::json(names[static_cast<size_t>(worst)])}};
}

int run(const DiffFlags& options, Output& output) {
  use_threads(options.threads);
  const Device device = Device::parse(options.device);
  kernels(device);
  check(options.show >= 0, "diff", "--show: expected at least 0, got {}", options.show);
  check(options.corrupted >= 0, "diff", "--corrupted: expected at least 0, got {}", options.corrupted);
  const NetworkDiff diff = diff_networks(options.before, options.after,
                                         {.data = options.data,
                                          .data_dir = options.data_dir,
                                          .evaluate = {.device = device, .progress = ProgressMode::automatic},
                                          .corrupted = options.corrupted,
                                          .seed = options.seed});
  const DiffSide &before = diff.before, &after = diff.after;
  const Dataset& test = diff.test;
  const AnswerChanges& seen = diff.changes;

  output.result("before: {}\nafter:  {}\n{}, {} test images\n", before.file.path, after.file.path, test.name,
                grouped(test.size()));
  say_summary(before, after, output);
  output.result("{}", changes_text(seen, test.size(), test.class_names));
  if (options.per_class) say_classes(seen, test.class_names, output);
  show_broken(options, seen, before, after, test, output);
  nlohmann::json json = {
      {"command", "diff"},
      {"before", before.file.path},
      {"after", after.file.path},
      {"data", test.name},
      {"examples", test.size()},
      {"accuracy", {{"before", before.answers.accuracy()}, {"after", after.answers.accuracy()}}},
      {"calibration_error",
       {{"before", before.calibration_error}, {"after", after.calibration_error}, {"bins", NetworkDiff::kBins}}},
      {"answers", to_json(seen, before, after, test.class_names)}};
  if (!options.png.empty()) {
    save_broken(options.png, seen, test);
    output.result("\nSaved {}: the first broken images, in rows of eight", options.png);
    json["png"] = options.png;
  }
  json["corrupted"] = say_corrupted(diff.corrupted, options.seed, output);
  json["removed"] = nlohmann::json::array();
  const std::vector<std::string> records = removal_records_of(after.file.path);
  check(options.why.empty() || !records.empty(), "diff",
        "--why: expected removals.safetensors beside {}, found none; a prune stage writes it for networks of up to {} "
        "units: prune channels or rows, or a smaller network",
        after.file.path, grouped(RemovalRecord::kMostUnits));
  for (const std::string& path : records) {
    const RemovalRecord record = RemovalRecord::load(path);
    json["removed"].push_back(say_removed(record, path, output));
    if (!options.why.empty() && path == records.back())
      json["why"] = say_why(options.why, record, *before.file.module, output);
  }
  output.finish(json);
  return kSuccess;
}

}  // namespace

std::string changes_line(const AnswerChanges& changes, const std::vector<std::string>& classes) {
  std::string text = fmt::format("{} answers broken, {} repaired (McNemar's p = {})",
                                 grouped(static_cast<int64_t>(changes.broken.size())),
                                 grouped(static_cast<int64_t>(changes.repaired.size())), p_text(changes.p));
  if (const int64_t worst = changes.worst_class(); worst >= 0) {
    const ClassChange& change = changes.classes[static_cast<size_t>(worst)];
    text += fmt::format(", worst class {}: {} points", class_text(classes, worst),
                        points_text(change.after - change.before));
  }
  return text;
}

void add_diff(CLI::App& parent, Commands& commands) {
  CLI::App* app = add_command(parent, "diff", "What changed between two networks: what did pruning break?",
                              {"espalier diff runs/lenet5-mnist runs/lenet5-mnist/prune",
                               "espalier diff runs/dense runs/pruned --png broken.png --per-class",
                               "espalier diff runs/dense runs/pruned --why conv1.weight     why weights went",
                               "espalier diff runs/dense runs/pruned --json --show 0"});
  auto options = std::make_shared<DiffFlags>();
  app->add_option("before", options->before, "Checkpoint or folder of a run: the network as it was")
      ->type_name("BEFORE")
      ->required();
  app->add_option("after", options->after, "The same for the network as it is now")->type_name("AFTER")->required();
  app->add_option("--data,-d", options->data, "Data set (default: the one AFTER was trained on)")->type_name("NAME");
  add_data_dir(*app, options->data_dir);
  app->add_flag("--per-class", options->per_class, std::string("Also the accuracy of every class"));
  app->add_option("--show", options->show, "Broken images to draw (default: 4)")->type_name("N");
  app->add_option("--style", options->style, "auto, ascii or colour (default: auto)")->type_name("NAME");
  app->add_option("--png", options->png, "Also write the first 64 broken images to this file")->type_name("FILE");
  app->add_option("--corrupted", options->corrupted,
                  "Test images to corrupt in twelve ways, an equal\nshare of each class; 0: none (default: 2000)")
      ->type_name("N");
  app->add_option("--seed", options->seed, "Of the corruptions (default: 0)")->type_name("N")->check(is_seed());
  app->add_option("--why", options->why, "Why units of this site went, or one: SITE:UNIT")->type_name("SITE");
  add_threads_and_device(*app, options->threads, options->device);
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run(*options, output); }});
}

}  // namespace espalier::tools
