// ContentCompare: what several copies say that they hold, compared piece by piece.
//
// Each copy is asked for as much as it likes to answer at once, so they are at different places:
// behind() says who is asked next, settle() compares what all have answered for. Pure state.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ctl/json.h"
#include "tandem/integrity.h"

namespace tandem::ctl {

class ContentCompare {
 public:
  static constexpr std::size_t kDifferencesMax = 16;

  explicit ContentCompare(const std::vector<std::string>& nodes);

  /// The next volume.
  void begin(const std::string& volume);
  bool is_done() const;
  /// The copies to ask, by number, and from which piece.
  std::vector<std::size_t> behind() const;
  std::uint64_t next(std::size_t copy) const { return copies_[copy].next; }
  void take(std::size_t copy, ContentReport report);
  /// Pieces that differ, of those that all have answered for; to be asked for in detail.
  std::vector<std::uint64_t> settle();
  /// The blocks of one such piece, from every copy in order.
  void take_detail(const std::vector<ContentReport>& reports);

  /// Equal, and sound everywhere.
  bool all_good() const;
  std::string text() const;
  Json json() const;

 private:
  struct Copy {
    std::string node;
    std::uint64_t next = 0;
    bool end = false;
    std::map<std::uint64_t, ContentPiece> pieces;  // answered, not settled
    std::uint64_t blocks = 0, bad_blocks = 0, repaired_blocks = 0, unreadable_pieces = 0;
    std::uint64_t older_blocks = 0;  // where this copy has an older version than another one
    std::vector<ScrubFinding> findings;
  };
  /// What a copy has in one block.
  struct Version {
    bool readable = true;               // else nothing is known of it
    std::optional<ContentBlock> block;  // none: zeroes of unknown age
    std::uint32_t crc32c() const;
  };
  using Versions = std::vector<Version>;  // by copy
  struct Difference {
    std::string volume;
    std::uint64_t byte = 0;
    Versions versions;
    std::string verdict;
  };
  bool differs(std::uint64_t piece);
  static bool differ(const Versions& versions);
  std::string judge(const Versions& versions);
  std::string copy_text(const Copy& copy) const;
  static std::string version_text(const std::string& node, const Version& version);

  std::vector<Copy> copies_;
  std::string volume_;
  std::uint64_t differing_blocks_ = 0;
  std::vector<Difference> differences_;  // the first few
};

}  // namespace tandem::ctl
