// ReplyQueue: replies that wait for the socket, kept as what one gathering send needs.
//
// Usage: append a head to head(), optionally attach() payload behind it, any number of times, then
// end_reply(). Heads of neighbouring replies without payload lie together, so a burst of write
// acknowledgements is a single entry of the vector. Bounded by its owner, which admits a request
// only while few enough replies wait.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "frontend/nbd/codec.h"
#include "tandem/base/buffer.h"

namespace tandem::nbd {

class ReplyQueue {
 public:
  /// Whose replies have left completely.
  struct Released {
    std::size_t requests = 0;
    std::size_t bytes = 0;
  };

  Bytes& head() { return heads_; }
  void attach(IoBuffer payload);
  /// The reply is complete; `charge` bytes are given back once it has left.
  void end_reply(std::size_t charge);

  bool empty() const { return first_ == segments_.size(); }
  /// Fills `out` with what is to be sent next; returns how many entries it used.
  std::size_t gather(std::span<iovec> out) const;
  /// `bytes` of what gather() named were sent.
  Released advance(std::size_t bytes);
  /// The connection is gone: drops everything.
  Released clear();

 private:
  struct Segment {
    std::size_t head_bytes = 0;  // of heads_, behind those of the segment before
    IoBuffer payload;
    std::size_t replies = 0;  // how many replies end with this segment
    std::size_t charge = 0;
    std::size_t bytes() const { return head_bytes + payload.size(); }
  };
  Segment& open_segment();
  void take_heads(Segment& segment);
  void compact();

  Bytes heads_;
  std::size_t heads_taken_ = 0;  // bytes of heads_ that belong to a segment
  std::size_t heads_first_ = 0;  // where the heads of segments_[first_] begin
  std::vector<Segment> segments_;
  std::size_t first_ = 0;       // segments before it have left
  std::size_t first_sent_ = 0;  // bytes of segments_[first_] that have left
};

}  // namespace tandem::nbd
