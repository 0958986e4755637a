#include "frontend/nbd/reply_queue.h"

#include <algorithm>
#include <utility>

#include "tandem/base/check.h"

namespace tandem::nbd {
namespace {
constexpr std::size_t kCompactAt = 1024;  // segments that have left
constexpr std::size_t kCompactHeadBytes = 64 << 10;
}  // namespace

void ReplyQueue::take_heads(Segment& segment) {
  segment.head_bytes += heads_.size() - heads_taken_;
  heads_taken_ = heads_.size();
}

ReplyQueue::Segment& ReplyQueue::open_segment() {
  // A segment whose payload is set is closed: heads that come later are sent behind the payload.
  if (empty() || !segments_.back().payload.empty()) segments_.emplace_back();
  return segments_.back();
}

void ReplyQueue::attach(IoBuffer payload) {
  CHECK(!payload.empty());
  Segment& segment = open_segment();
  take_heads(segment);
  segment.payload = std::move(payload);
}

void ReplyQueue::end_reply(std::size_t charge) {
  Segment& segment = heads_.size() != heads_taken_ || empty() ? open_segment() : segments_.back();
  take_heads(segment);
  ++segment.replies;
  segment.charge += charge;
}

std::size_t ReplyQueue::gather(std::span<iovec> out) const {
  std::size_t used = 0;
  std::size_t head_at = heads_first_;
  std::size_t skip = first_sent_;
  for (std::size_t i = first_; i < segments_.size() && used + 2 <= out.size(); ++i) {
    const Segment& segment = segments_[i];
    const std::size_t head_skip = std::min(skip, segment.head_bytes);
    if (segment.head_bytes > head_skip) {
      auto* base = const_cast<std::byte*>(heads_.data()) + head_at + head_skip;
      out[used++] = {base, segment.head_bytes - head_skip};
    }
    const std::size_t payload_skip = skip - head_skip;
    if (segment.payload.size() > payload_skip)
      out[used++] = {segment.payload.data() + payload_skip, segment.payload.size() - payload_skip};
    head_at += segment.head_bytes;
    skip = 0;
  }
  return used;
}

ReplyQueue::Released ReplyQueue::advance(std::size_t bytes) {
  Released released;
  while (bytes > 0) {
    CHECK(!empty());
    Segment& segment = segments_[first_];
    const std::size_t left = segment.bytes() - first_sent_;
    if (bytes < left) {
      first_sent_ += bytes;
      break;
    }
    bytes -= left;
    released.requests += segment.replies;
    released.bytes += segment.charge;
    heads_first_ += segment.head_bytes;
    segment.payload = IoBuffer();
    ++first_;
    first_sent_ = 0;
  }
  compact();
  return released;
}

ReplyQueue::Released ReplyQueue::clear() {
  Released released;
  for (std::size_t i = first_; i < segments_.size(); ++i) {
    released.requests += segments_[i].replies;
    released.bytes += segments_[i].charge;
  }
  first_ = segments_.size();
  first_sent_ = 0;
  compact();
  return released;
}

void ReplyQueue::compact() {
  if (empty()) {
    segments_.clear();
    heads_.erase(heads_.begin(), heads_.begin() + static_cast<std::ptrdiff_t>(heads_taken_));
    first_ = heads_first_ = heads_taken_ = 0;
    return;
  }
  // A client that always leaves something unread must not make the queue grow at its front.
  if (first_ < kCompactAt && heads_first_ < kCompactHeadBytes) return;
  segments_.erase(segments_.begin(), segments_.begin() + static_cast<std::ptrdiff_t>(first_));
  heads_.erase(heads_.begin(), heads_.begin() + static_cast<std::ptrdiff_t>(heads_first_));
  heads_taken_ -= heads_first_;
  first_ = heads_first_ = 0;
}

}  // namespace tandem::nbd
