// What lies beside an image file that is being restored, see FORMAT.md: which restore it is of, and
// how far it is durable. Pure text and structures.
#pragma once

#include <cstdint>
#include <string>

#include "tandem/base/result.h"
#include "tandem/base/units.h"

namespace tandem::backup {

/// A volume of a point of a backup: two restores of one identity write the same bytes.
struct ImageIdentity {
  std::string group_id;
  std::uint32_t point = 0;
  std::string manifest_sha256;  // of the point; it names those in front, and the data files
  std::string volume;
  std::uint64_t size_bytes = 0;
  bool operator==(const ImageIdentity&) const = default;
};

struct ImageJournal {
  ImageIdentity identity;
  /// In front of this the image is as it shall be, on stable storage; the rest is unknown.
  std::uint64_t durable_bytes = 0;
  /// Chained over what was written there: a backup whose files are others now is found out.
  Digest front;
};

/// What is put behind the name of the image until it is whole: another for every identity.
std::string partial_suffix(const ImageIdentity& identity);

std::string to_text(const ImageJournal& journal);
/// kCorrupt: torn, damaged, of another version, or no journal.
Result<ImageJournal> parse_image_journal(const std::string& text);

}  // namespace tandem::backup
