// Unpacking what a download brings.
#pragma once

#include <cstdint>
#include <string>

namespace espalier {

/// Writes every member of a zip or tar archive whose name ends with `suffix` into `folder`, without the folders inside
/// the archive: no member can land elsewhere. A file appears under its name only when it is complete. Throws FileError
/// for a damaged archive, one without such a member, one whose members have more than `most_bytes` together, or when it
/// can't write.
void unpack_archive(const std::string& archive_path, const std::string& folder, const std::string& suffix,
                    int64_t most_bytes);

}  // namespace espalier
