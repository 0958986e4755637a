// ContentCheck: what one copy of a snapshot's volume holds, as checksums that another copy's are
// compared with. With `read` the data is read and checked against its map too, so that equal
// digests of two sound copies mean equal bytes; what is damaged is had from a peer (repair.h).
//
// A piece is what one leaf of the map names. Zeroes and holes are the same content.
//
// Thread: the group's reactor. The caller keeps the snapshot in place.
#pragma once

#include "store/volume_reader.h"
#include "tandem/integrity.h"

namespace tandem::store {

class ContentCheck {
 public:
  /// Of data in one call: a bounded time for who waits.
  static constexpr std::uint64_t kBlocksMax = 4096;
  static constexpr std::uint64_t kPiecesMax = 16384;
  static constexpr std::size_t kFindingsMax = 16;

  ContentCheck(const VolumeReader& reader, MapCache& cache, MapTree& tree,
               const ContentRequest& request)
      : reader_(reader), cache_(cache), tree_(tree), request_(request) {
    report_.next = request.first;
  }

  /// Piece report().next; moves it on.
  Task<void> look_at_next();
  /// Nothing more fits into this call.
  bool is_full() const;
  ContentReport& report() { return report_; }

 private:
  Task<void> read(std::uint64_t first, const std::vector<format::MapEntry>& entries);
  void note(std::uint64_t byte, std::string outcome);

  VolumeReader reader_;
  MapCache& cache_;
  MapTree& tree_;
  const ContentRequest& request_;
  ContentReport report_;
  std::uint64_t blocks_ = 0;
};

}  // namespace tandem::store
