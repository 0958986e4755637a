// Clients of a group's volumes that do random things and tell a StoreModel about each of them.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tandem/base/sync.h"
#include "tandem/volume.h"
#include "tests/support/sim_runtime.h"
#include "tests/support/store_model.h"

namespace tandem::sim {

/// What the clients drive: one group of a store, or the primary of a pair.
class ClientTarget {
 public:
  virtual ~ClientTarget() = default;
  virtual Result<std::shared_ptr<Volume>> open_volume(const std::string& name) = 0;
  virtual Task<Status> create_volume(std::string name, std::uint64_t size_bytes) = 0;
  virtual Task<Status> resize_volume(std::string name, std::uint64_t size_bytes) = 0;
  virtual Task<Status> delete_volume(std::string name) = 0;
  virtual Task<Status> checkpoint() = 0;
  /// Begins to move blocks to other places, or ends it; whatever there is to gain.
  virtual void compact() {}
  /// It crashed: its answers reach nobody any more.
  virtual bool is_dead() const = 0;
  /// It takes nothing more.
  virtual bool is_stopped() const = 0;
};

struct Mix {
  std::size_t operations = 60;  // in all
  std::size_t depth = 4;        // at a time
  // Weights.
  std::uint32_t write = 10, part_write = 4, large_write = 1, flush = 3, discard = 2, zero = 2;
  std::uint32_t read = 6, resize = 1, create = 1, remove = 0, checkpoint = 1, pause = 1;
  std::uint32_t compact = 0;
  std::uint32_t fua_of_16 = 2;
  /// Changes of the same bytes in flight together. Their order is open, so the model must not judge
  /// what is read then.
  bool overlap = false;
  std::uint64_t volume_bytes_max = 1 << 20;
  static Mix from_seed(SimRandom random);
};

class StoreClients {
 public:
  StoreClients(SimRuntime& world, ClientTarget& target, StoreModel& model, Mix mix,
               std::uint64_t seed);

  /// Creates volumes and writes that down; nothing is flushed.
  Task<Status> make_volumes(std::size_t volumes, std::uint64_t size_bytes);
  /// Runs the mix to its end, or until the disk is off or the group stopped.
  Task<void> run();
  /// Empty, or what a read returned that it must not.
  const std::string& complaint() const { return complaint_; }
  std::size_t acknowledged() const { return acknowledged_; }
  std::size_t refused() const { return refused_; }
  std::size_t failed() const { return failed_; }

 private:
  struct Range {
    std::string volume;
    std::uint64_t offset = 0, length = 0;
    bool is_inside(const Range& o) const {
      return volume == o.volume && offset < o.offset + o.length && o.offset < offset + length;
    }
  };
  Task<void> worker();
  Task<void> one();
  Task<void> write(bool part, bool large);
  Task<void> clear(bool discard);
  Task<void> read();
  Task<void> flush();
  Task<void> resize();
  Task<void> create();
  Task<void> remove();
  Task<void> checkpoint();
  void answer(OpId op, const Status& status);
  Range pick(bool part, bool large);
  bool is_over() const;
  std::shared_ptr<Volume> open(const std::string& volume);

  SimRuntime& world_;
  ClientTarget& target_;
  StoreModel& model_;
  Mix mix_;
  SimRandom random_;
  std::size_t started_ = 0;
  std::size_t running_ = 0;
  Condition finished_;
  std::vector<Range> changing_;
  std::set<std::string> busy_shape_;  // volumes being resized or deleted
  std::size_t names_ = 0;
  std::string complaint_;
  std::size_t acknowledged_ = 0, refused_ = 0, failed_ = 0;
};

}  // namespace tandem::sim
