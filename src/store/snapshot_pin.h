// SnapshotPin: an operation under way on a snapshot; while there is one, a deleted snapshot keeps
// its blocks.
#pragma once

#include <cstddef>

namespace tandem::store {

class SnapshotPin {
 public:
  explicit SnapshotPin(std::size_t& readers) : readers_(readers) { ++readers_; }
  SnapshotPin(const SnapshotPin&) = delete;
  SnapshotPin& operator=(const SnapshotPin&) = delete;
  ~SnapshotPin() { --readers_; }

 private:
  std::size_t& readers_;
};

}  // namespace tandem::store
