// Recovery: from the anchor to a group that can go on.
//
//   1. descriptor, bitmaps   the state at the checkpoint
//   2. scan                  follow log pages behind it while they are whole and chained; a later
//                            page that knows of more shows that one was damaged since
//   3. verify                read the data of every record that was not flushed when the last page
//                            was built; the first page with damaged data, and all behind it, are
//                            cut off
//   4. replay                apply what is left to map, space and dead list
//   5. flush                 what we now stand on must survive a power cut
//
// The record of a snapshot or a rollback makes step 4 write a checkpoint right there, because that
// state must be kept.
// Otherwise nothing is written before step 5. A crash anywhere in here changes nothing: a
// checkpoint goes to blocks that neither the old one nor any whole page uses.
//
// Thread: the group's reactor.
#pragma once

#include <vector>

#include "store/group.h"

namespace tandem::store {

class Recovery {
 public:
  Recovery(Group& group, const format::Anchor& anchor) : group_(group), anchor_(anchor) {}
  Task<Status> run();

 private:
  struct ScannedPage {
    IoBuffer buffer;  // holds the page, maybe among others
    std::span<const std::byte, kBlockBytes> page;
    format::LogPageHeader header;
    PoolBlock at;
  };
  Task<Status> read_descriptor();
  Status adopt_descriptor();
  Task<Status> read_bitmaps();
  Task<Status> scan();
  Task<Status> check_end(PoolBlock end, Lsn last, std::uint64_t boot);
  Task<Status> verify();
  Task<Result<bool>> data_is_whole(const std::vector<format::PlacedRecord>& records);
  Task<Status> replay();
  Status mark_places();
  Task<Status> prepare_revert(const format::Record& record, std::size_t places_done);
  Task<Status> replay_record(const format::PlacedRecord& placed);

  Group& group_;
  format::Anchor anchor_;
  format::Descriptor descriptor_;
  std::vector<ScannedPage> pages_;
  std::optional<Error> leads_nowhere_;  // the last of pages_ names a zone that is not the group's
  std::vector<Extent> places_;          // of all data in pages_, in order
};

}  // namespace tandem::store
