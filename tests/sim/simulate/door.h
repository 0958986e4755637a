// The door through which one session's clients reach a node: shut for ever once the node serves
// something else than what the session began with.
#pragma once

#include "tests/sim/pair_world.h"
#include "tests/sim/simulate/lines.h"
#include "tests/sim/simulate/pair_chaos.h"

namespace tandem::sim {

class PairChaos::Door final : public ClientTarget {
 public:
  Door(PairNode& node, LineKey line) : node_(node), line_(line), boot_(node.boots()) {}
  void shut() { shut_ = true; }

  Result<std::shared_ptr<Volume>> open_volume(const std::string& name) override {
    return node_.open_volume(name);
  }
  Task<Status> create_volume(std::string name, std::uint64_t size_bytes) override {
    return node_.create_volume(std::move(name), size_bytes);
  }
  Task<Status> resize_volume(std::string name, std::uint64_t size_bytes) override {
    return node_.resize_volume(std::move(name), size_bytes);
  }
  Task<Status> delete_volume(std::string name) override {
    return node_.delete_volume(std::move(name));
  }
  Task<Status> checkpoint() override { return node_.checkpoint(); }
  bool is_dead() const override { return node_.is_dead() || node_.boots() != boot_; }
  bool is_stopped() const override {
    if (shut_ || is_dead()) return true;
    const store::Group* group = node_.group();
    return group == nullptr || !group->serving() || key_of(group->history()) != line_;
  }

 private:
  PairNode& node_;
  LineKey line_;
  std::uint64_t boot_;
  bool shut_ = false;
};

}  // namespace tandem::sim
