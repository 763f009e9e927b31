#include "pipeline/model_file.h"

#include <cmath>
#include <filesystem>

#include "core/json.h"
#include "core/text.h"
#include "pruning/learned/transforms.h"
#include "training/checkpoint.h"
#include "training/run_folder.h"

namespace espalier {

namespace fs = std::filesystem;

namespace {

DataDescription parse_description(const std::string& path, const std::string& text) {
  constexpr int64_t kMaxSide = 1 << 14;
  try {
    const nlohmann::json json = parse_json(text);
    DataDescription data{.name = json.at("name"),
                         .classes = json.at("classes"),
                         .mean = json.at("mean"),
                         .stddev = json.at("stddev"),
                         .input = Shape(whole_numbers(json.at("shape"))),
                         .loss = json.value("loss", ""),
                         .metric = json.value("metric", "")};
    bool good = data.input.rank() >= 1 && (!data.classes.empty() || json.contains("targets"));
    for (int64_t size : data.input) good = good && size > 0 && size <= kMaxSide;
    const auto channels = good ? static_cast<size_t>(data.is_image() ? data.input[0] : data.input.back()) : 0;
    good = good && data.mean.size() == data.stddev.size() &&
           (data.mean.size() == channels || (data.mean.empty() && !data.is_image()));
    for (float value : data.mean) good = good && std::isfinite(value);
    for (float value : data.stddev) good = good && std::isfinite(value) && value > 0;
    if (!good)
      fail<FileError>("load_model", "{}: the metadata entry 'data' makes no sense: {}", path, text.substr(0, 200));
    return data;
  } catch (const nlohmann::json::exception& error) {
    fail<FileError>("load_model", "{}: the metadata entry 'data' is not what a checkpoint holds: {}", path,
                    error.what());
  }
}

std::string newest_model() {
  std::string newest;
  fs::file_time_type when;
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator("runs", error)) {
    if (entry.path().filename() != "model.safetensors") continue;
    const fs::file_time_type time = fs::last_write_time(entry.path(), error);
    if (!error && (newest.empty() || time > when)) newest = entry.path().string(), when = time;
  }
  if (newest.empty()) {
    fail<FileError>("load_model",
                    "expected a model.safetensors below runs/, found none; name one with --model, or train one: "
                    "espalier train --model lenet5 --data fashion-mnist");
  }
  return newest;
}

}  // namespace

std::string find_model(const std::string& path) {
  if (path.empty()) return newest_model();
  std::error_code error;
  if (!fs::is_directory(path, error)) return path;
  for (const char* name : {"model.safetensors", "best.safetensors", "checkpoint.safetensors"})
    if (fs::exists(fs::path(path) / name, error)) return (fs::path(path) / name).string();
  fail<FileError>("load_model", "{}: expected model.safetensors in this folder, found no checkpoint", path);
}

Tensor DataDescription::example(int64_t count, Device device) const {
  Shape shape = input;
  shape.insert(0, count);
  return Tensor::zeros(shape, DType::f32, device);
}

IndexMap index_map_of(const ModelFile& file) {
  const auto text = file.metadata.find("compaction");
  if (text == file.metadata.end()) return {};
  try {
    return index_map_from_json(parse_json(text->second).at("kept"));
  } catch (const nlohmann::json::exception& error) {
    fail<FileError>("load_model", "{}: the metadata entry 'compaction' is not what a checkpoint holds: {}", file.path,
                    error.what());
  }
}

Dataset seen_by(const char* command, const ModelFile& file, const Dataset& images) {
  Dataset seen = images;
  if (!file.data) return seen;
  const Shape input = images.input_shape();
  check(input == file.data->input, command, "{} takes {} {} ({}), those of {} are {}", file.path,
        file.data->is_image() ? "images" : "inputs", file.data->input, printable(file.data->name), images.name, input);
  seen.mean = file.data->mean;
  seen.stddev = file.data->stddev;
  seen.loss = file.data->loss;
  seen.metric = file.data->metric;
  return seen;
}

std::optional<ValidationSplit> validation_split_of(const std::string& path) {
  const Checkpoint checkpoint = load_checkpoint(path);
  const auto text = checkpoint.metadata.find("settings");
  if (text == checkpoint.metadata.end()) return std::nullopt;
  try {
    const nlohmann::json json = parse_json(text->second);
    const uint64_t seed = json.at("seed");
    ValidationSplit split{
        .data = json.at("data"), .share = json.at("validation"), .seed = json.value("validation_seed", seed)};
    if (json.contains("images") && !json["images"].is_null()) split.images = json["images"].get<int64_t>();
    return split;
  } catch (const nlohmann::json::exception& error) {
    fail<FileError>("load_model", "{}: the metadata entry 'settings' is not what a checkpoint holds: {}", path,
                    error.what());
  }
}

void check_finite_weights(const ModelFile& file) {
  if (const auto name = find_nonfinite(*file.module))
    fail<NumericError>("load_model",
                       "{}: expected weights that are numbers, found NaN or infinity in '{}'; train the network again, "
                       "with a lower learning rate or clip_norm",
                       file.path, *name);
}

std::string training_warning(const std::string& file) {
  const std::string folder = fs::path(file).parent_path().string();
  const std::string holder = RunFolder::holder_of(folder.empty() ? "." : folder);
  if (holder.empty()) return "";
  return fmt::format("warning: {} is still being trained by {}; what it will be is another network", file, holder);
}

ModelFile open_model(const std::string& path) {
  const Checkpoint checkpoint = load_checkpoint(path);
  register_learned_modules();  // of a training that was stopped
  ModelFile file{.path = path, .module = load_model(checkpoint), .data = {}, .metadata = checkpoint.metadata};
  if (const auto text = checkpoint.metadata.find("data"); text != checkpoint.metadata.end())
    file.data = parse_description(path, text->second);
  return file;
}

}  // namespace espalier
