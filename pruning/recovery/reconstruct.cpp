#include "pruning/recovery/reconstruct.h"

#include <map>
#include <memory>

#include "core/fields.h"
#include "core/random.h"
#include "core/threads.h"
#include "pruning/recovery/layer_data.h"
#include "pruning/recovery/least_squares.h"

namespace espalier {

namespace {
using recovery::WeightLayer;

/// Rows of inputs and of missing outputs, one system for each group of a convolution. Inputs: the weight's columns,
/// then a 1 for the bias.
class Samples {
 public:
  Samples(const WeightLayer& layer, bool with_bias)
      : outputs_(layer.weight.size(0)),
        columns_(layer.weight.numel() / layer.weight.size(0)),
        with_bias_(with_bias),
        axis_(layer.module->channels().axis),
        weight_shape_(layer.weight.shape()),
        reader_(layer.reader) {
    const int64_t groups = reader_.window ? reader_.window->groups : 1;
    for (int64_t g = 0; g < groups; ++g) systems_.emplace_back(columns_ + (with_bias ? 1 : 0), outputs_ / groups);
  }

  /// The layer's input, and how far its output is from what it should be.
  void add(const Tensor& input, const Tensor& missing, int64_t positions, Generator& generator) {
    Tensor x = input.to(Device::cpu());
    if (!reader_.inputs.empty())
      x = index_select(x, channel_axis(axis_, x.rank()),
                       Tensor::from<int64_t>(reader_.inputs, {static_cast<int64_t>(reader_.inputs.size())}));
    x = x.to(DType::f64);
    const Tensor y = missing.to(Device::cpu()).to(DType::f64);
    if (reader_.window)
      add_images(x.contiguous(), y.contiguous(), positions, generator);
    else
      add_rows(x.contiguous(), y.contiguous());
  }

  NormalEquations& system(int64_t output) { return systems_[static_cast<size_t>(output / per_group())]; }
  int64_t per_group() const { return outputs_ / static_cast<int64_t>(systems_.size()); }
  int64_t columns() const { return columns_; }
  int64_t outputs() const { return outputs_; }
  bool with_bias() const { return with_bias_; }
  int64_t rows() const { return systems_.front().rows(); }

 private:
  /// x (...,columns), y (...,outputs).
  void add_rows(const Tensor& x_rows, const Tensor& y_rows) {
    const double *x = x_rows.data<double>(), *y = y_rows.data<double>();
    const int64_t rows = y_rows.numel() / outputs_;
    std::vector<double> inputs;
    inputs.reserve(static_cast<size_t>(rows * (columns_ + 1)));
    for (int64_t row = 0; row < rows; ++row) {
      inputs.insert(inputs.end(), x + row * columns_, x + (row + 1) * columns_);
      if (with_bias_) inputs.push_back(1);
    }
    systems_.front().add(inputs, std::vector<double>(y, y + rows * outputs_));
  }

  /// x (N,C,H,W), y (N,F,OH,OW): the window at each sampled position is a row.
  void add_images(const Tensor& x, const Tensor& y, int64_t positions, Generator& generator) {
    const int64_t images = x.size(0), area = y.size(2) * y.size(3);
    std::vector<int64_t> all(static_cast<size_t>(area));
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
    std::vector<std::vector<int64_t>> places;
    for (int64_t n = 0; n < images; ++n) {
      if (positions >= area) {
        places.push_back(all);
        continue;
      }
      places.emplace_back();
      for (int64_t i = 0; i < positions; ++i)
        places.back().push_back(static_cast<int64_t>(generator.next_below(static_cast<uint64_t>(area))));
    }
    for (size_t g = 0; g < systems_.size(); ++g) {
      std::vector<double> inputs, values;
      for (int64_t n = 0; n < images; ++n)
        for (const int64_t place : places[static_cast<size_t>(n)]) {
          add_window(x, n, static_cast<int64_t>(g), place / y.size(3), place % y.size(3), inputs);
          if (with_bias_) inputs.push_back(1);
          for (int64_t f = 0; f < per_group(); ++f)
            values.push_back(
                y.data<double>()[(n * outputs_ + static_cast<int64_t>(g) * per_group() + f) * area + place]);
        }
      systems_[g].add(inputs, values);
    }
  }

  /// Appends (C/groups,KH,KW) of image n, zeros where the window lies on the padding.
  void add_window(const Tensor& x, int64_t n, int64_t group, int64_t row, int64_t column,
                  std::vector<double>& to) const {
    const Conv2dShape& o = *reader_.window;
    const Shape& w = weight_shape_;
    const int64_t height = x.size(2), width = x.size(3);
    for (int64_t c = 0; c < w[1]; ++c) {
      const double* plane = x.data<double>() + (n * x.size(1) + group * w[1] + c) * height * width;
      for (int64_t i = 0; i < w[2]; ++i)
        for (int64_t j = 0; j < w[3]; ++j) {
          const int64_t at_h = row * o.stride_h - o.padding_h + i * o.dilation_h;
          const int64_t at_w = column * o.stride_w - o.padding_w + j * o.dilation_w;
          const bool inside = at_h >= 0 && at_h < height && at_w >= 0 && at_w < width;
          to.push_back(inside ? plane[at_h * width + at_w] : 0);
        }
    }
  }

  int64_t outputs_, columns_;
  bool with_bias_;
  ChannelAxis axis_;
  Shape weight_shape_;
  ChannelReader reader_;
  std::vector<NormalEquations> systems_;
};

/// Outputs of one system that have the same inputs left: one factorisation for all.
struct Fit {
  std::vector<int64_t> columns, outputs;
};

std::vector<Fit> fits_of(const WeightLayer& layer, const Samples& samples) {
  const std::vector<bool> weights = recovery::existing_elements(layer.weight);
  std::vector<bool> biases(static_cast<size_t>(samples.outputs()), false);
  if (samples.with_bias()) biases = recovery::existing_elements(layer.bias);
  std::map<std::pair<int64_t, std::vector<int64_t>>, std::vector<int64_t>> same;
  for (int64_t output = 0; output < samples.outputs(); ++output) {
    std::vector<int64_t> columns;
    for (int64_t c = 0; c < samples.columns(); ++c)
      if (weights[static_cast<size_t>(output * samples.columns() + c)]) columns.push_back(c);
    if (biases[static_cast<size_t>(output)]) columns.push_back(samples.columns());
    if (!columns.empty()) same[{output / samples.per_group(), columns}].push_back(output);
  }
  std::vector<Fit> fits;
  for (const auto& [key, outputs] : same) fits.push_back({key.second, outputs});
  return fits;
}

/// Writes the changed weights where that lowers the error; returns the sum of squares it takes away.
double apply(const Fit& fit, Samples& samples, double ridge, std::vector<double>& weights, std::vector<double>& biases,
             bool in_float) {
  NormalEquations& system = samples.system(fit.outputs.front());
  std::vector<int64_t> targets;
  for (const int64_t output : fit.outputs) targets.push_back(output % samples.per_group());
  std::vector<double> change = system.solve(fit.columns, targets, ridge);
  double gained = 0;
  for (size_t t = 0; t < targets.size(); ++t) {
    double* d = change.data() + t * fit.columns.size();
    std::vector<double*> places;
    for (const int64_t c : fit.columns)
      places.push_back(c == samples.columns() ? &biases[static_cast<size_t>(fit.outputs[t])]
                                              : &weights[static_cast<size_t>(fit.outputs[t] * samples.columns() + c)]);
    for (size_t i = 0; i < places.size(); ++i) {
      const double now = *places[i] + d[i];
      d[i] = (in_float ? static_cast<double>(static_cast<float>(now)) : now) - *places[i];  // what will be stored
    }
    const double reduction = system.reduction(fit.columns, targets[t], d);
    if (!(reduction > 0)) continue;
    for (size_t i = 0; i < places.size(); ++i) *places[i] += d[i];
    gained += reduction;
  }
  return gained;
}

void store(const std::vector<double>& values, const Parameter& parameter) {
  Tensor data = parameter.data();
  data.copy_(Tensor::from<double>(values, parameter.shape()));
}
}  // namespace

void fields(FieldVisitor& f, ReconstructOptions& o) {
  f.unless_default("batch_size", o.batch_size, at_least(1), "Images in a batch");
  f.unless_default("batches", o.batches, at_least(1), "To whose outputs layers are fitted, at most");
  f.unless_default("positions", o.positions, at_least(1), "Of each image's maps, drawn at random");
  f.unless_default("ridge", o.ridge, at_least(0), "Pull towards the present weights, of the inputs' mean square");
  f.unless_default("bias", o.bias, "Whether biases are fitted too");
}

Reconstruction reconstruct_layer(Module& pruned, const std::string& layer, Module& dense, const Dataset& data,
                                 const ReconstructOptions& options) {
  const char* operation = "reconstruct_layer";
  check(options.ridge >= 0 && options.positions > 0, operation, "expected ridge >= 0 and positions > 0, got {} and {}",
        options.ridge, options.positions);
  const WeightLayer target = recovery::weight_layer(layer, *pruned.find(layer));
  const ModulePtr reference = dense.find(layer);
  check(target.defined(), operation, "'{}' is a {}; only Linear, Conv2d and other affine layers can be fitted", layer,
        pruned.find(layer)->type());
  const bool with_bias = options.bias && target.bias.defined();
  Samples samples(target, with_bias);
  Generator generator(options.seed, 0x5EC0);

  const Device device = pruned.device();
  dense.to(device);
  const EvalMode pruned_mode(pruned), dense_mode(dense);
  const NoGrad no_grad;
  recovery::for_batches(
      operation, data, options.batch_size, options.batches, options.seed, device, [&](const Batch& batch) {
        std::vector<std::pair<Tensor, Tensor>> seen;
        std::vector<Tensor> wanted;
        {
          const ForwardObserver observer([&](Module& module, const Variable& input, const Variable& output) {
            if (&module == target.module) seen.emplace_back(input.data(), output.data());
            if (&module == reference.get()) wanted.push_back(output.data());
          });
          outputs_of(pruned, batch);
          outputs_of(dense, batch);
        }
        check(!seen.empty() && seen.size() == wanted.size() && seen[0].second.shape() == wanted[0].shape(), operation,
              "'{}' has outputs {} in the pruned network and {} in the dense one; reconstruct before compaction", layer,
              seen.empty() ? Shape{} : seen[0].second.shape(), wanted.empty() ? Shape{} : wanted[0].shape());
        for (size_t i = 0; i < seen.size(); ++i)
          samples.add(seen[i].first, wanted[i] - seen[i].second, options.positions, generator);
      });

  Reconstruction result{.layer = layer, .samples = samples.rows()};
  double before = 0;
  for (int64_t output = 0; output < samples.outputs(); ++output)
    before += samples.system(output).squares(output % samples.per_group());
  std::vector<double> weights = target.weight.data().to_vector<double>(), biases;
  if (with_bias) biases = target.bias.data().to_vector<double>();
  const std::vector<Fit> fits = fits_of(target, samples);
  std::vector<double> gained(fits.size(), 0);
  const bool in_float = target.weight.data().dtype() == DType::f32;
  parallel_for(static_cast<int64_t>(fits.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      gained[static_cast<size_t>(i)] =
          apply(fits[static_cast<size_t>(i)], samples, options.ridge, weights, biases, in_float);
  });
  store(weights, target.weight);
  if (with_bias) store(biases, target.bias);
  const double values = static_cast<double>(samples.rows()) * static_cast<double>(samples.outputs());
  double after = before;
  for (const double part : gained) after -= part;
  result.before = before / values;
  result.after = std::max(after, 0.0) / values;
  return result;
}

std::vector<Reconstruction> reconstruct(Module& pruned, Module& dense, const Dataset& data,
                                        const ReconstructOptions& options) {
  std::vector<Reconstruction> results;
  for (const WeightLayer& layer :
       recovery::layers_to_repair("reconstruct", pruned, dense, data, options.batch_size, options.seed))
    results.push_back(reconstruct_layer(pruned, layer.name, dense, data, options));
  return results;
}

}  // namespace espalier
