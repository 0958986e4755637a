// StoreNode: a pool with its groups on a SimDisk, as one process of one node would hold it.
//
// A node is started on an image and ends in one of three ways: stop() (clean), or a crash of its
// disk (SimDisk::power_off, kill), after which stop() unwinds the coroutines while nothing reaches
// the image any more. Its image lives on in disk().remains().
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "store/group.h"
#include "store/pool.h"
#include "tests/sim/store_client.h"
#include "tests/support/sim_disk.h"
#include "tests/support/store_model.h"

namespace tandem::sim {

/// Keeps the newest log lines of a simulation, prints them only when asked (a test failed, or
/// TANDEM_LOG is set), and counts those of level error.
class SimLog {
 public:
  SimLog();
  ~SimLog();
  SimLog(const SimLog&) = delete;
  SimLog& operator=(const SimLog&) = delete;
  std::size_t errors() const { return errors_; }
  std::string text() const;

 private:
  std::deque<std::string> lines_;
  std::size_t errors_ = 0;
};

struct StoreShape {
  std::uint64_t disk_bytes = 12 << 20;
  std::uint64_t zone_bytes = 256 << 10;
  store::StoreOptions options{};
  Nanoseconds latency_max{200'000};
  /// Shapes that reach the corners: tiny caches, one page in flight, checkpoints all the time.
  static StoreShape from_seed(SimRandom random);
};

class StoreNode final : public ClientTarget {
 public:
  StoreNode(SimRuntime& world, SimImage image, const StoreShape& shape, std::uint64_t seed);
  ~StoreNode() override;
  StoreNode(const StoreNode&) = delete;
  StoreNode& operator=(const StoreNode&) = delete;

  /// A formatted, empty image of this shape.
  static SimImage formatted(const StoreShape& shape, std::uint64_t seed);

  Task<Status> open();
  /// Opens and serves every group; what fails is in the message.
  Task<Status> start();
  Task<void> stop();
  bool is_open() const { return pool_ != nullptr; }

  SimDisk& disk() { return disk_; }
  store::Pool& pool() { return *pool_; }
  store::Group* group() const;  // the only one
  /// Creates group "g" with volumes, serves it and flushes. For an empty pool.
  Task<Status> make_group(StoreClients& clients, StoreModel& model, std::size_t volumes,
                          std::uint64_t size_bytes);

  // ClientTarget: group(), which must exist.
  Result<std::shared_ptr<Volume>> open_volume(const std::string& name) override;
  Task<Status> create_volume(std::string name, std::uint64_t size_bytes) override;
  Task<Status> resize_volume(std::string name, std::uint64_t size_bytes) override;
  Task<Status> delete_volume(std::string name) override;
  Task<Status> checkpoint() override;
  void compact() override;  // for a group without a history
  bool is_dead() const override { return disk_.is_off(); }
  bool is_stopped() const override { return group()->stopped().has_value(); }

  /// Every byte of every volume.
  Task<Result<StoreModel::Found>> read_all();

 private:
  SimRuntime& world_;
  StoreShape shape_;
  SimDisk disk_;
  BufferPool buffers_;
  std::unique_ptr<store::Pool> pool_;
};

/// Makes group "g", served on `source` and with a mirror on `target`; both are open and empty.
Status make_mirrored_group(SimRuntime& world, StoreNode& source, StoreNode& target);
/// The mirror applies what the primary's log has, to its head.
Status follow(SimRuntime& world, store::Group& primary, store::Group& mirror);

/// Every block of the pool is accounted for: empty, or which sum is wrong. While nothing is under
/// way, so give it a moment: still_unbalanced() does.
std::string imbalance(const store::Pool& pool);
std::string still_unbalanced(SimRuntime& world, const store::Pool& pool);

/// Starts a node on `image` in a world of its own, reads everything and stops it cleanly.
struct Recovery {
  Status status;  // of opening and reading
  StoreModel::Found found;
  LogPoint head;
  TimelineHistory history;  // before it was promoted, if it was
  SimImage image;           // after the clean stop
};
Recovery recover(const SimImage& image, const StoreShape& shape, std::uint64_t seed,
                 const std::function<void(StoreNode&)>& before_open = nullptr);

/// The same for a mirror's image: what would a promotion find? The copy is promoted, the image not.
Recovery promote_copy(const SimImage& image, const StoreShape& shape, std::uint64_t seed);

}  // namespace tandem::sim
