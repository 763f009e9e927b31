#include "pruning/distillation/teacher.h"

#include <algorithm>

#include "core/checksum.h"
#include "core/names.h"

namespace espalier {

namespace {

constexpr std::pair<TeacherCache, const char*> kCaches[] = {
    {TeacherCache::automatic, "automatic"}, {TeacherCache::always, "always"}, {TeacherCache::never, "never"}};

/// One for each image of the batch.
std::vector<uint64_t> image_checksums(const Batch& batch) {
  const Tensor images = batch.images.to(Device::cpu()).contiguous();
  const int64_t count = images.size(0);
  const size_t bytes = count == 0 ? 0 : images.bytes() / static_cast<size_t>(count);
  std::vector<uint64_t> sums(static_cast<size_t>(count));
  for (size_t i = 0; i < sums.size(); ++i)
    sums[i] = checksum(static_cast<const char*>(images.raw()) + i * bytes, bytes);
  return sums;
}
}  // namespace

const Variable& NetworkView::feature(const std::string& layer) const {
  const auto found = features.find(layer);
  if (found == features.end()) {
    std::vector<std::string> names;
    for (const auto& [name, value] : features) names.push_back(name);
    fail("NetworkView", "the output of layer '{}' was not kept{}", layer, did_you_mean(layer, names));
  }
  return found->second;
}

NetworkView run_and_watch(Module& module, const Bundle& inputs, const std::vector<std::string>& layers) {
  NetworkView view;
  std::vector<std::pair<const Module*, std::string>> wanted;
  for (const std::string& layer : layers) wanted.emplace_back(module.find(layer).get(), layer);
  const ForwardObserver observer([&](Module& part, const Variable&, const Variable& output) {
    for (const auto& [pointer, name] : wanted)
      if (pointer == &part) view.features[name] = output;
  });
  view.outputs = module.call(inputs);
  for (const std::string& layer : layers)
    check(view.features.contains(layer), "run_and_watch",
          "the forward pass of this {} does not call '{}' as a layer, so its output is not known; take another layer",
          module.type(), layer);
  return view;
}

const char* name_of(TeacherCache cache) { return kCaches[static_cast<size_t>(cache)].second; }

TeacherCache parse_teacher_cache(const std::string& text) {
  return value_of_name("parse_teacher_cache", "teacher cache", kCaches, text);
}

EnumNames names_of(TeacherCache) { return {"teacher cache", kCaches}; }

Teacher::Teacher(ModulePtr module, TeacherCache cache) : module_(std::move(module)), cache_(cache) {
  check(module_ != nullptr, "Teacher", "expected a network, got a null pointer");
}

NetworkView Teacher::operator()(const Batch& batch, const std::vector<std::string>& layers) {
  check(cache_ != TeacherCache::always || layers.empty(), "Teacher",
        "the cache holds outputs, but the layer '{}' is asked for too; use TeacherCache::automatic",
        layers.empty() ? "" : layers.front());
  if (cache_ == TeacherCache::never || bypass_ || !layers.empty()) return forward(batch, layers);
  if (auto now = versions(); now != versions_) {
    forget();
    versions_ = std::move(now);
  }
  const std::vector<uint64_t> checksums = image_checksums(batch);
  Tensor outputs;
  if (look_up(batch, checksums, outputs)) return {Variable(outputs.to(batch.images.device()))};
  NetworkView view = forward(batch, layers);
  if (!bypass_ && view.outputs.size() == 1) remember(batch, checksums, view.outputs.first().data());
  return view;
}

NetworkView Teacher::forward(const Batch& batch, const std::vector<std::string>& layers) {
  const EvalMode mode(*module_);
  const NoGrad no_grad;
  if (module_->device() != batch.images.device()) module_->to(batch.images.device());
  ++forwards_;
  return run_and_watch(*module_, inputs_of(batch), layers);
}

void Teacher::expect_augmentations(bool augmented) {
  check(!augmented || cache_ != TeacherCache::always, "Teacher",
        "augmentations change the images every epoch, so the teacher's outputs cannot be cached; leave them out or use "
        "TeacherCache::automatic or never");
  if (augmented) forget();
  bypass_ = augmented;
}

bool Teacher::look_up(const Batch& batch, const std::vector<uint64_t>& checksums, Tensor& outputs) const {
  const std::vector<int64_t> indices = batch.indices.to_vector<int64_t>();
  for (size_t i = 0; i < indices.size(); ++i) {
    const auto index = static_cast<size_t>(indices[i]);
    if (index >= checksums_.size() || checksums_[index] != checksums[i]) return false;
  }
  outputs = Tensor::empty({static_cast<int64_t>(indices.size()), classes_});
  for (size_t i = 0; i < indices.size(); ++i)
    std::copy_n(outputs_.data() + indices[i] * classes_, classes_,
                outputs.data<float>() + static_cast<int64_t>(i) * classes_);
  return true;
}

void Teacher::remember(const Batch& batch, const std::vector<uint64_t>& checksums, const Tensor& outputs) {
  if (outputs.rank() != 2 || outputs.dtype() != DType::f32) return;
  const Tensor rows = outputs.to(Device::cpu()).contiguous();
  const std::vector<int64_t> indices = batch.indices.to_vector<int64_t>();
  classes_ = rows.size(1);
  for (size_t i = 0; i < indices.size(); ++i) {
    const auto index = static_cast<size_t>(indices[i]);
    if (index >= checksums_.size()) {
      checksums_.resize(index + 1, 0);
      outputs_.resize((index + 1) * static_cast<size_t>(classes_));
    }
    uint64_t& known = checksums_[index];
    if (known != 0 && known != checksums[i]) {
      check(cache_ != TeacherCache::always, "Teacher",
            "the image of example {} is another one than before: augmented, or of another data set; use "
            "TeacherCache::automatic or never",
            index);
      if (++changed_ > 2 * cached_) {  // the images change all the time
        forget();
        bypass_ = true;
        return;
      }
    }
    if (known == 0) ++cached_;
    known = checksums[i];
    std::copy_n(rows.data<float>() + static_cast<int64_t>(i) * classes_, classes_,
                outputs_.data() + indices[i] * classes_);
  }
}

void Teacher::forget() {
  outputs_ = {};
  checksums_ = {};
  cached_ = changed_ = 0;
}

std::vector<std::pair<const void*, uint64_t>> Teacher::versions() const {
  std::vector<std::pair<const void*, uint64_t>> result;
  for (const auto& [name, tensor] : state_of(*module_)) result.emplace_back(tensor.storage().get(), tensor.version());
  return result;
}

uint64_t Teacher::fingerprint() const {
  uint64_t hash = checksum(nullptr, 0);
  for (const auto& [name, tensor] : state_of(*module_)) {
    const Tensor values = tensor.to(Device::cpu()).contiguous();
    hash = checksum(values.raw(), values.bytes(), checksum(name.data(), name.size(), hash));
  }
  return hash;
}

NamedTensors Teacher::state() const {
  if (cached_ == 0) return {};
  const auto count = static_cast<int64_t>(checksums_.size());
  const auto bits = [](const std::vector<uint64_t>& words) { return std::vector<int64_t>(words.begin(), words.end()); };
  return {{"teacher", Tensor::from<int64_t>({static_cast<int64_t>(fingerprint())}, {1})},
          {"teacher_outputs", Tensor::from<float>(outputs_, {count, classes_})},
          {"teacher_images", Tensor::from<int64_t>(bits(checksums_), {count})}};
}

void Teacher::load_state(const NamedTensors& state) {
  forget();
  for (const auto& [name, tensor] : state) {
    if (name == "teacher") {
      if (static_cast<uint64_t>(tensor.to_vector<int64_t>().at(0)) != fingerprint())
        fail<FileError>("Teacher", "the checkpoint was distilled from another teacher; go on with the same one");
    } else if (name == "teacher_outputs") {
      outputs_ = tensor.to_vector<float>();
      classes_ = tensor.size(1);
    } else if (name == "teacher_images") {
      for (const int64_t sum : tensor.to_vector<int64_t>()) checksums_.push_back(static_cast<uint64_t>(sum));
    }
  }
  cached_ = std::count_if(checksums_.begin(), checksums_.end(), [](uint64_t sum) { return sum != 0; });
  versions_ = versions();
  if (outputs_.size() != checksums_.size() * static_cast<size_t>(classes_))
    fail<FileError>("Teacher", "expected {} remembered outputs, got {}; the checkpoint is damaged",
                    checksums_.size() * static_cast<size_t>(classes_), outputs_.size());
}

}  // namespace espalier
