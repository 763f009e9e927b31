// espalier datasets: which data sets there are, where they are, what they look like.
#include <algorithm>
#include <numeric>
#include <optional>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/random.h"
#include "datasets/dataset.h"
#include "datasets/download.h"
#include "datasets/image.h"
#include "tools/commands.h"
#include "tools/terminal.h"
#include "training/progress.h"

namespace espalier::tools {

namespace {

struct DatasetShowFlags {
  std::string name, data_dir, split = "train", style = "auto", only, save;
  int64_t count = 8;
  std::optional<int64_t> index;
  uint64_t seed = 0;
};

struct DownloadFlags {
  std::string name, dir, mirror;
};

std::string size_text(const DatasetInfo& info) {
  return fmt::format("{}x{}x{}", info.channels, info.height, info.width);
}

int list(const std::string& data_dir, Output& output) {
  std::vector<std::vector<std::string>> rows = {{"name", "image", "classes", "training", "test", "where"}};
  nlohmann::json sets = nlohmann::json::array();
  for (const DatasetInfo& info : dataset_catalog()) {
    const std::string place = locate_dataset(info.name, {.data_dir = data_dir});
    rows.push_back({info.name, size_text(info), std::to_string(info.num_classes()), grouped(info.train_size),
                    grouped(info.test_size), place.empty() ? "-" : place});
    sets.push_back({{"name", info.name},
                    {"title", info.title},
                    {"licence", info.licence},
                    {"home", info.home},
                    {"classes", info.class_names},
                    {"image", {info.channels, info.height, info.width}},
                    {"train_size", info.train_size},
                    {"test_size", info.test_size},
                    {"found", !place.empty()},
                    {"where", place}});
  }
  output.result("{}", table(rows, {2, 3, 4}));
  output.result("embedded: part of espalier.  -: not found; espalier datasets download NAME fetches it into {}",
                user_data_dir());
  output.result("Looked in {}.", fmt::join(data_places({.data_dir = data_dir}), ", "));
  output.finish({{"command", "datasets list"}, {"datasets", sets}});
  return kSuccess;
}

int download(const DownloadFlags& flags, Output& output) {
  const DatasetInfo& info = dataset_info(flags.name);
  output.say("{}: {}, licence: {}, from {}", info.name, info.title, info.licence,
             flags.mirror.empty() ? info.home : flags.mirror);
  const bool terminal = isatty(STDERR_FILENO) != 0;
  DownloadOptions options{.mirror = flags.mirror};
  options.progress = [&](const DownloadProgress& at) {
    if (!terminal) return true;
    const int64_t total = std::max<int64_t>(at.total, 1);
    const std::string left =
        at.total > 0 && at.bytes_per_second > 0
            ? format_duration(static_cast<double>(at.total - at.bytes) / at.bytes_per_second) + " left"
            : "";
    output.progress(fmt::format("\r{}  {} of {}  {:.0f}%  {}/s  {}\x1b[K", at.file, bytes_text(at.bytes),
                                bytes_text(at.total),
                                100.0 * static_cast<double>(at.bytes) / static_cast<double>(total),
                                bytes_text(static_cast<int64_t>(at.bytes_per_second)), left));
    return true;
  };
  const std::string folder = download_dataset(info.name, flags.dir, options);
  if (terminal) output.progress("\r\x1b[K");
  output.result("{} is in {}", info.name, folder);
  output.say("Next: espalier datasets show {}", info.name);
  output.finish({{"command", "datasets download"}, {"name", info.name}, {"folder", folder}});
  return kSuccess;
}

int check_files(const std::string& name, const std::string& data_dir, Output& output) {
  const CheckReport report = check_dataset(name, {.data_dir = data_dir});
  std::string text = report.to_string();
  while (text.ends_with('\n')) text.pop_back();
  output.result("{}", text);
  output.result("{}", report.ok()
                          ? std::string("All is well.")
                          : "Not as it should be; espalier datasets download " + report.name + " gets good files.");
  nlohmann::json items = nlohmann::json::array();
  for (const CheckItem& item : report.items)
    items.push_back({{"what", item.what}, {"ok", item.ok}, {"detail", item.detail}});
  nlohmann::json json = {{"command", "datasets check"},
                         {"name", report.name},
                         {"source", report.source},
                         {"ok", report.ok()},
                         {"items", items}};
  if (!report.ok()) json["error"] = fmt::format("[datasets check] {} is not as it should be", report.name);
  output.finish(json);
  return report.ok() ? kSuccess : kBadInput;
}

/// Indices of the examples to show: one, or `count` at random of all or of a class, in their order.
std::vector<int64_t> chosen(const DatasetShowFlags& options, const Dataset& data) {
  if (options.index) {
    check(*options.index >= 0 && *options.index < data.size(), "datasets show", "--index: expected 0 to {}, got {}",
          data.size() - 1, *options.index);
    return {*options.index};
  }
  std::vector<int64_t> candidates;
  int64_t only = -1;
  if (!options.only.empty()) {
    const auto found = std::find(data.class_names.begin(), data.class_names.end(), options.only);
    check(found != data.class_names.end(), "datasets show", "--class: expected one of {}, got '{}'{}",
          fmt::join(data.class_names, ", "), options.only, did_you_mean(options.only, data.class_names));
    only = found - data.class_names.begin();
  }
  const auto* labels = data.labels.data<int64_t>();
  for (int64_t i = 0; i < data.size(); ++i)
    if (only < 0 || labels[i] == only) candidates.push_back(i);
  Generator generator(options.seed);
  const std::vector<int64_t> order = generator.permutation(static_cast<int64_t>(candidates.size()));
  std::vector<int64_t> result;
  for (int64_t i = 0; i < std::min<int64_t>(options.count, static_cast<int64_t>(order.size())); ++i)
    result.push_back(candidates[static_cast<size_t>(order[static_cast<size_t>(i)])]);
  std::sort(result.begin(), result.end());
  return result;
}

int show(const DatasetShowFlags& options, Output& output) {
  check(options.split == "test" || options.split == "train", "datasets show",
        "--split: expected train or test, got '{}'{}", options.split, did_you_mean(options.split, {"train", "test"}));
  check(options.count > 0, "datasets show", "--count: expected at least 1, got {}", options.count);
  const Palette palette = parse_palette(options.style, output.stream());
  const Splits splits = load_dataset(options.name, {.data_dir = options.data_dir});
  check(splits.train.has_images(), "datasets show", "expected images to draw, '{}' has inputs {}", options.name,
        splits.train.input_shape());
  const Dataset& data = options.split == "train" ? splits.train : splits.test;
  const std::vector<int64_t> indices = chosen(options, data);
  output.result("{}: {} {} images {}x{}x{} in {} classes, from {}", data.name, grouped(data.size()), options.split,
                data.channels(), data.height(), data.width(), data.num_classes(), data.source);

  constexpr int64_t kGap = 2, kLeast = 18;
  const int64_t cell = std::max(data.width(), kLeast) + kGap;
  const auto in_row = static_cast<size_t>(std::max<int64_t>(1, (columns_of(output.stream()) + kGap) / cell));
  const auto* labels = data.labels.data<int64_t>();
  nlohmann::json images = nlohmann::json::array();
  for (size_t begin = 0; begin < indices.size(); begin += in_row) {
    const size_t end = std::min(begin + in_row, indices.size());
    std::string captions;
    std::vector<std::string> lines;
    for (size_t i = begin; i < end; ++i) {
      const std::string& name = data.class_names[static_cast<size_t>(labels[indices[i]])];
      captions +=
          fmt::format("{:<{}}", fmt::format("#{} {}", indices[i], name).substr(0, static_cast<size_t>(cell - 1)), cell);
      const std::vector<std::string> picture = draw(data.images.select(0, indices[i]), palette);
      lines.resize(picture.size());
      for (size_t k = 0; k < picture.size(); ++k)
        lines[k] += picture[k] + std::string(static_cast<size_t>(cell - data.width()), ' ');
      images.push_back({{"index", indices[i]}, {"label", labels[indices[i]]}, {"class", name}});
    }
    captions.erase(captions.find_last_not_of(' ') + 1);
    output.result("\n{}", captions);
    for (std::string& line : lines) {
      line.erase(line.find_last_not_of(' ') + 1);
      output.picture(line);
    }
  }
  if (!options.save.empty()) {
    write_png(options.save, data.images.select(0, indices.front()));
    output.result("\nImage #{} is in {}", indices.front(), options.save);
  }
  output.finish({{"command", "datasets show"}, {"name", data.name}, {"split", options.split}, {"images", images}});
  return kSuccess;
}

}  // namespace

void add_datasets(CLI::App& parent, Commands& commands) {
  CLI::App* group = add_command(parent, "datasets", "List, download, check and show data sets",
                                {"espalier datasets list", "espalier datasets download mnist",
                                 "espalier datasets check mnist", "espalier datasets show fashion-mnist"});

  CLI::App* list_app = add_command(*group, "list", "List the data sets and where they are found",
                                   {"espalier datasets list", "espalier datasets list --data-dir ~/data --json"});
  auto list_dir = std::make_shared<std::string>();
  add_data_dir(*list_app, *list_dir);
  add_json_flag(*list_app);
  commands.push_back({list_app, [list_dir](Output& output) { return list(*list_dir, output); }});

  CLI::App* download_app =
      add_command(*group, "download", "Download a data set, going on with an earlier attempt",
                  {"espalier datasets download mnist", "espalier datasets download cifar10 --dir ~/data"});
  auto flags = std::make_shared<DownloadFlags>();
  download_app->add_option("name", flags->name, "Data set")->type_name("NAME")->required();
  download_app->add_option("--dir", flags->dir, "Where to (default: " + user_data_dir() + ")")->type_name("DIR");
  download_app->add_option("--mirror", flags->mirror, "Take the files from this address; checksums still hold")
      ->type_name("URL");
  add_json_flag(*download_app);
  commands.push_back({download_app, [flags](Output& output) { return download(*flags, output); }});

  CLI::App* check_app =
      add_command(*group, "check", "Read every file of a data set and compare it with what is known",
                  {"espalier datasets check mnist", "espalier datasets check cifar10 --data-dir ~/data"});
  auto check_name = std::make_shared<std::string>(), check_dir = std::make_shared<std::string>();
  check_app->add_option("name", *check_name, "Data set")->type_name("NAME")->required();
  add_data_dir(*check_app, *check_dir);
  add_json_flag(*check_app);
  commands.push_back(
      {check_app, [check_name, check_dir](Output& output) { return check_files(*check_name, *check_dir, output); }});

  CLI::App* show_app =
      add_command(*group, "show", "Draw some images, with their classes",
                  {"espalier datasets show digits", "espalier datasets show fashion-mnist --class Sneaker --count 4",
                   "espalier datasets show mnist --split test --index 7 --save seven.png"});
  auto options = std::make_shared<DatasetShowFlags>();
  show_app->add_option("name", options->name, "Data set")->type_name("NAME")->required();
  show_app->add_option("--count,-n", options->count, "How many (default: 8)")->type_name("N");
  show_app->add_option("--split", options->split, "train or test (default: train)")->type_name("NAME");
  show_app->add_option("--class", options->only, "Only images of this class")->type_name("NAME");
  show_app->add_option("--index", options->index, "This image")->type_name("I");
  show_app->add_option("--seed", options->seed, "Which images are chosen (default: 0)")
      ->type_name("N")
      ->check(is_seed());
  show_app->add_option("--save", options->save, "Write the first of them as a PNG image")->type_name("FILE");
  show_app->add_option("--style", options->style, "auto, ascii or colour (default: auto)")->type_name("NAME");
  add_data_dir(*show_app, options->data_dir);
  add_json_flag(*show_app);
  commands.push_back({show_app, [options](Output& output) { return show(*options, output); }});
}

}  // namespace espalier::tools
