// The steps of load_dataset, for check_dataset.
#pragma once

#include <string>

#include "datasets/dataset.h"

namespace espalier {

/// The folder or archive that holds a data set. Throws FileError, saying where it looked, when there is none.
std::string find_dataset(const DatasetInfo& info, const std::string& data_dir);
/// Reads one split of a data set that is not embedded; without statistics. Files that hold more than twice what they
/// should are refused before they take memory and time; `any_size`: more than kMostContents.
Dataset read_split(const DatasetInfo& info, const std::string& source, bool train, bool any_size = false);
/// folder/file, or folder/file.gz when only that is there.
std::string idx_path(const std::string& folder, const std::string& file);

}  // namespace espalier
