// Data sets held in memory, the catalogue of those Espalier knows, and where their files are looked for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "core/tensor.h"

namespace espalier {

/// What a network, or one of its heads, is to answer: classes, i64 (N), or of every step of a sequence (N,T), where -1
/// stands for none; or values, f32 (N,...).
struct Target {
  std::string name;  ///< "age"
  Tensor values;
  std::vector<std::string> class_names = {};  ///< of classes

  bool is_classes() const { return values.dtype() == DType::i64; }
  /// Outputs that it takes for one example: (classes), (T,classes), or the shape of the values.
  Shape outputs() const;
};

/// Examples: labelled images or other inputs, with what a network is to answer. Copying shares the tensors. `images`
/// and `labels` are the short form for the first input and the first target, whatever they are.
struct Dataset {
  std::string name;    ///< "mnist"
  std::string source;  ///< the folder or archive it was read from, "embedded" for digits
  Tensor images;       ///< u8 images (N,C,H,W), f32 (N,...) of any other shape, or i64 numbers (N,...), as of words
  Tensor labels;       ///< the first Target's: i64 (N) classes, each in [0, num_classes), most of the time
  std::vector<std::string> class_names = {};
  /// Of each channel over the training inputs, pixels scaled to [0,1]; empty: the input is not normalised. The test set
  /// carries the training set's. The channels of floats are axis 1 of (N,C,H,W), the last axis of others.
  std::vector<float> mean = {}, stddev = {};

  /// Inputs besides `images`, in the order in which the network takes them: {"lengths", i64 (N)} of sequences.
  NamedTensors inputs = {};
  /// Targets besides `labels`, one for each further head.
  std::vector<Target> targets = {};
  /// An autoencoder's: the target is the input, as the network gets it.
  bool reconstructs = false;
  /// Which loss is minimised and which metric chooses the epoch; "": those of the first target's kind (training/loss.h,
  /// training/metric.h).
  std::string loss = {}, metric = {};

  int64_t size() const { return images.defined() ? images.size(0) : 0; }
  /// Of images.
  int64_t channels() const { return images.size(1); }
  int64_t height() const { return images.size(2); }
  int64_t width() const { return images.size(3); }
  int64_t num_classes() const { return static_cast<int64_t>(class_names.size()); }

  bool has_images() const { return images.defined() && images.rank() == 4 && images.dtype() == DType::u8; }
  /// Of one example's first input: (C,H,W), (T,F), ...
  Shape input_shape() const;
  /// The first target, then the others.
  std::vector<Target> all_targets() const;
  /// Whether it asks for one class of each example and nothing else: what has a confusion matrix and right answers.
  bool is_classification() const;
  /// `count` inputs of the shapes and types that the network gets, to see what it makes of them: floats are zeros,
  /// integers those of the first example, lengths the longest.
  std::vector<Tensor> example(int64_t count = 1) const;

  /// A copy of the examples at `indices`, in that order. Throws ArgumentError for an index out of range.
  Dataset subset(const std::vector<int64_t>& indices) const;
  /// The first `count` examples (all of them when there are fewer); a view.
  Dataset first(int64_t count) const;
};

/// What it takes to feed a network that was trained on this data, as JSON: "name", "classes", "mean", "stddev", "shape"
/// of an input; of other than images in classes also "targets", "inputs", "loss" and "metric".
std::string description_of(const Dataset& dataset);
/// A checksum of everything in its examples.
uint64_t checksum_of(const Dataset& dataset);

struct Splits {
  Dataset train, test;
};

struct TrainValidation {
  Dataset train, validation;
};

/// Takes a validation set out of a training set: `size` in (0,1) is a fraction, from 1 a count. Every class gives its
/// share, to within one example; other targets have no classes. The choice depends on `seed` only, and both parts keep
/// the original order.
TrainValidation split_validation(const Dataset& train, double size, uint64_t seed = 0);

/// Mean and standard deviation of each channel into `dataset`: of u8 images, pixels scaled to [0,1]; of floats, for
/// sequences without the steps past their lengths. Of integers there are none.
void compute_statistics(Dataset& dataset);

/// A file of a data set on the web.
struct RemoteFile {
  std::string name;               ///< its name on disk
  std::vector<std::string> urls;  ///< the same bytes, the first preferred
  std::string sha256;             ///< of the file as downloaded
  int64_t bytes;
};

/// A data set that load_dataset knows.
struct DatasetInfo {
  enum class Format { idx, cifar, embedded };

  std::string name, title, licence, home;
  Format format;
  int64_t channels, height, width;
  int64_t train_size, test_size;
  std::vector<std::string> class_names = {};
  std::vector<std::string> folders = {};  ///< looked for below each root, the first is where a download goes
  std::vector<std::string> train_files = {}, test_files = {};  ///< IDX: images, then labels
  std::vector<RemoteFile> downloads = {};
  /// SHA-256 of train_files then test_files, decompressed, where published; else empty.
  std::vector<std::string> content_sha256 = {};
  int label_bytes = 1;      ///< CIFAR: labels before each image; the last one is used
  int first_label = 0;      ///< EMNIST letters count from 1
  bool transposed = false;  ///< EMNIST stores images column by column
  std::string debian_package = {};

  int64_t num_classes() const { return static_cast<int64_t>(class_names.size()); }
};

const std::vector<DatasetInfo>& dataset_catalog();
std::vector<std::string> dataset_names();
/// Case, '-' and '_' don't matter: "CIFAR-10" is cifar10. Throws ArgumentError for an unknown name, with the nearest.
const DatasetInfo& dataset_info(const std::string& name);

struct LoadOptions {
  std::string data_dir =
      {};                 ///< looked into first; when named it must exist. A CIFAR archive may stand for the folder.
  bool any_size = false;  ///< accept files with more or fewer examples than the data set has
};

/// Reads a data set of the catalogue, or data of one's own, "csv:cars.csv" (data_kind.h). Its files are looked for in
/// `data_dir`, $ESPALIER_DATA, the user's cache and Debian's folder, in that order; `digits` is part of the library.
/// Nothing is downloaded. Throws FileError when nothing is found (saying where it looked and how to get the data) or
/// when a file is bad (with file, offset, expected and found).
Splits load_dataset(const std::string& name, const LoadOptions& options = {});

/// The folder or archive that load_dataset would read, "embedded" for digits, "" when nothing is found. Reads no file.
std::string locate_dataset(const std::string& name, const LoadOptions& options = {});
/// "FOLDER (ESPALIER_DATA)", ...: where files are looked for, in order, with the reason for each place.
std::vector<std::string> data_places(const LoadOptions& options = {});

/// $XDG_CACHE_HOME/espalier or ~/.cache/espalier: where downloads go.
std::string user_data_dir();

struct CheckItem {
  std::string what;
  bool ok;
  std::string detail;
};

struct CheckReport {
  std::string name, source;
  std::vector<CheckItem> items;

  bool ok() const;
  /// One line for each item: "ok    train labels: 60000, all in 0..9".
  std::string to_string() const;
};

/// Reads every file of a data set as load_dataset would and compares counts, sizes, labels and, where they are
/// published, SHA-256 sums. Bad files are reported, not thrown.
CheckReport check_dataset(const std::string& name, const LoadOptions& options = {});

}  // namespace espalier
