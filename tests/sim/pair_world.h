// PairWorld: two whole nodes (store, replication, control) with disks and a network in one seeded
// world. Whichever is the primary serves group "g"; the other mirrors it. There may be a third.
#pragma once

#include <memory>
#include <string>

#include "control/node_control.h"
#include "tests/sim/store_client.h"
#include "tests/sim/store_node.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_link.h"

namespace tandem::sim {

class PairWorld;

/// One node over its disk. Operations of a ClientTarget go to its copy of "g".
class PairNode final : public ClientTarget {
 public:
  PairNode(PairWorld& world, std::string name);
  ~PairNode() override;

  /// An empty disk with a new pool.
  void format();
  /// Opens the pool and starts everything; what fails is in the message. With a number, the power
  /// goes at that many moments of the disk from now (see SimDisk::Observer), if not before.
  Status start(std::uint64_t cut_after = 0);
  /// What other nodes answer when this one hands its group over; nothing: they do it. With
  /// `although`, they did it all the same, and the answer was lost.
  struct Answer {
    std::optional<Error> error;
    bool although = false;
  };
  void set_take_over(Answer answer) { take_over_ = std::move(answer); }
  /// Commands around snapshots, from the next start on.
  void set_hooks(control::SnapshotHooks* hooks) { hooks_ = hooks; }
  /// Ends it cleanly, or, when its disk is off already, unwinds it.
  void stop();
  void power_cut();
  void kill();
  /// The disk is off: nothing of this node is heard any more, and what waits for it is answered.
  void bury();
  bool is_up() const { return control_ != nullptr; }
  /// How often it was started.
  std::uint64_t boots() const { return boots_; }
  /// A stalled machine; nobody may wait for it meanwhile.
  void pause() { node_.pause(); }
  void resume() { node_.resume(); }
  bool is_paused() const { return node_.paused(); }
  void step_clock(Nanoseconds by) { node_.step_utc(by); }

  control::NodeControl& control() { return *control_; }
  SimDisk& disk() { return *disk_; }
  const std::string& name() const { return name_; }
  const std::string& address() const { return address_; }
  store::Pool& pool() { return *pool_; }
  store::Group* group() const { return is_up() ? pool_->find("g") : nullptr; }
  GroupStatus status();
  /// Every byte of every volume, or of those of one kept state.
  Result<StoreModel::Found> read_all(const std::string& snapshot = "");

  // ClientTarget
  Result<std::shared_ptr<Volume>> open_volume(const std::string& name) override;
  Task<Status> create_volume(std::string name, std::uint64_t size_bytes) override;
  Task<Status> resize_volume(std::string name, std::uint64_t size_bytes) override;
  Task<Status> delete_volume(std::string name) override;
  Task<Status> checkpoint() override;
  bool is_dead() const override { return !is_up() || disk_->is_off(); }
  bool is_stopped() const override { return is_dead() || group()->stopped().has_value(); }

 private:
  class Peers;
  Task<Result<StoreModel::Found>> read_volumes(std::string snapshot);

  PairWorld& world_;
  std::string name_;
  std::string address_;
  SimNode& node_;
  BufferPool buffers_;
  SimImage image_;
  std::unique_ptr<Peers> peers_;
  control::SnapshotHooks* hooks_ = nullptr;
  Answer take_over_;
  std::unique_ptr<SimDisk> disk_;
  std::unique_ptr<store::Pool> pool_;
  std::unique_ptr<control::NodeControl> control_;
  std::uint64_t boots_ = 0;
};

class PairWorld {
 public:
  PairWorld(std::uint64_t seed, StoreShape shape);
  ~PairWorld();

  SimRuntime& runtime() { return runtime_; }
  SimNetwork& network() { return network_; }
  const StoreShape& shape() const { return shape_; }
  PairNode& primary() { return a_is_primary_ ? a_ : b_; }
  PairNode& mirror() { return a_is_primary_ ? b_ : a_; }
  PairNode& node(std::size_t index) { return index == 0 ? a_ : b_; }
  PairNode* node_at(const std::string& address);
  void swap_roles() { a_is_primary_ = !a_is_primary_; }
  /// One more node, from the first call on.
  PairNode& third();
  /// The node that is up at that address, or none.
  PairNode* at(const std::string& address);
  /// Looks again every few milliseconds of virtual time.
  bool until(const std::function<bool()>& done, Nanoseconds limit);
  /// The mirror holds, durably, exactly what the primary holds.
  bool is_level() { return are_level(primary(), mirror()); }
  static bool are_level(PairNode& one, PairNode& other);

 private:
  StoreShape shape_;
  SimRuntime runtime_;
  SimNetwork network_;
  PairNode a_, b_;
  std::unique_ptr<PairNode> c_;
  bool a_is_primary_ = true;
};

}  // namespace tandem::sim
