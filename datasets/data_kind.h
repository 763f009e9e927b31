// Data from files of one's own: "KIND:PATH" wherever a data set is named.
#pragma once

#include <memory>
#include <string>

#include "core/fields.h"
#include "core/registry.h"
#include "datasets/dataset.h"

namespace espalier {

/// One way of keeping examples in files.
class DataKind {
 public:
  virtual ~DataKind() = default;
  /// Its options, as in "csv:cars.csv?target=price&test=0.1".
  virtual void fields(FieldVisitor&) {}
  /// Reads the file or folder, which is looked for in `data_dir` too (find_path). Throws FileError with file, offset or
  /// line, expected and found. Statistics that it leaves out are computed.
  virtual Splits load(const std::string& path, const std::string& data_dir) = 0;
  /// The path as runs write it down.
  virtual std::string canonical(const std::string& path) const { return path; }
};
using DataKindPtr = std::shared_ptr<DataKind>;

/// The kinds by name: add() your own before you name it.
///
/// "npz": a zip file of NumPy's arrays; "npy": a folder of them; "csv": a table; "idx": a folder of IDX files as
/// MNIST's, of any size; "folder": a folder of images for each class. "reconstruct:DATA": any other data, whose inputs
/// are the targets. docs/own-data.md describes them.
Registry<DataKindPtr()>& data_kind_registry();

/// Whether a name is KIND:PATH, and not a data set of the catalogue.
bool names_own_data(const std::string& name);
/// The name of any data set as runs write it down: of the catalogue's "mnist" for "MNIST"; KIND:PATH as it is. Throws
/// ArgumentError for an unknown name, kind or option, with the nearest.
std::string data_name(const std::string& name);
/// Reads KIND:PATH. The statistics are those of the training set.
Splits load_own_data(const std::string& name, const std::string& data_dir);
/// The path, or that below `data_dir` where it isn't there. Throws FileError where neither is.
std::string find_path(const std::string& path, const std::string& data_dir);

/// What kinds share whose files may leave out a test set.
struct SplitOptions {
  double test = 0.2;  ///< the share of the examples that become the test set; it depends on nothing else
};
void fields(FieldVisitor& f, SplitOptions& options);
/// Takes the test set out of all examples.
Splits split_test(const Dataset& all, const SplitOptions& options);

// The library's own, each in a file of its name.
DataKindPtr make_arrays_kind(bool zipped);
DataKindPtr make_csv_kind();
DataKindPtr make_idx_kind();
DataKindPtr make_folder_kind();

}  // namespace espalier
