// HostilePeer: the other end of a replication stream, which says what an Input tells it to: whole
// messages in a short form whose digests, checksums and positions fit, so that they get behind the
// first checks, with everything else as the input has it.
#pragma once

#include <optional>

#include "tandem/port/link.h"
#include "tandem/replicated_log.h"
#include "tests/fuzz/input.h"

namespace tandem::fuzz {

class HostilePeer {
 public:
  /// Pretends to hold the other copy of the group whose copy here is `log`.
  HostilePeer(ReplicatedLog& log, BufferPool& buffers) : log_(log), buffers_(buffers) { agree(); }

  /// The next message, or nothing: the input only moved what is said next.
  std::optional<Message> next(Input& input);

 private:
  /// From now on its records follow the end of the group's copy.
  void agree();
  GroupIdentity identity() const;
  TimelineHistory history(std::uint8_t flags) const;
  LogPoint head(Input& input) const;
  Message hello(Input& input);
  Message welcome(Input& input);
  Message records(Input& input);
  void record(Input& input, RecordBatch& batch);
  Message image_begin(Input& input);
  Message image_blocks(Input& input);
  BlockVersion version(Input& input) const;
  IoBuffer block(std::uint8_t stamp) const;

  ReplicatedLog& log_;
  BufferPool& buffers_;
  LogPoint point_;  // where its next record goes
};

}  // namespace tandem::fuzz
