// Changed blocks against a plain model that remembers which operation wrote each block: between any
// two points, snapshots or the present, exactly what another operation wrote is reported, whatever
// was discarded, resized, deleted and made again, over rollbacks, whose branches are points as
// well, and while writes and checkpoints go on.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "tests/sim/store_node.h"

namespace tandem::sim {
namespace {

/// One volume at one point: the operation that wrote each block; none: zeroes.
struct Point {
  std::uint64_t blocks = 0;
  std::map<std::uint64_t, std::uint32_t> by;
  std::uint32_t at(std::uint64_t block) const {
    const auto found = by.find(block);
    return found == by.end() || block >= blocks ? 0 : found->second;
  }
};
using Volumes = std::map<std::string, Point>;

class ChangingLife {
 public:
  explicit ChangingLife(std::uint64_t seed)
      : seed_(seed),
        random_(seed * 131),
        shape_(StoreShape::from_seed(random_.fork())),
        world_(seed),
        node_(world_, StoreNode::formatted(big(shape_), seed), shape_, seed) {}

  static StoreShape& big(StoreShape& shape) {
    shape.disk_bytes = 48 << 20;
    return shape;
  }

  void run(std::size_t operations) {
    ASSERT_TRUE(world_.run(node_.start()).has_value());
    auto made =
        world_.run(node_.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
    ASSERT_TRUE(made.has_value());
    group_ = *made;
    group_->serve(true);
    create("small", 300);
    create("large", 70'000);  // a map of three levels
    create("grows", 200);     // one level, then two, then three
    for (; operation_ < operations && problem_.empty(); ++operation_) {
      one();
      if (random_.chance(1, 4)) compare_two();
    }
    world_.run(node_.stop());
  }

  const std::string& problem() const { return problem_; }
  std::size_t changed() const { return changed_; }
  std::size_t compared() const { return compared_; }
  std::size_t while_writing() const { return while_writing_; }
  std::size_t lost() const { return lost_; }
  std::size_t rolled_back() const { return rolled_back_; }
  std::size_t across() const { return across_; }

 private:
  void complain(const std::string& what) {
    if (!problem_.empty()) return;
    problem_ =
        "seed " + std::to_string(seed_) + ", operation " + std::to_string(operation_) + ": " + what;
  }
  void expect(const Status& status) {
    if (!status) complain(status.error().message);
  }

  void create(const std::string& name, std::uint64_t blocks) {
    expect(world_.run(group_->create_volume(name, blocks * kBlockBytes, 4096)));
    live_[name] = Point{.blocks = blocks, .by = {}};
  }

  const std::string& any_volume() {
    auto it = live_.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random_.below(live_.size())));
    return it->first;
  }

  Task<void> write(std::string name, std::uint64_t first, std::uint64_t count, std::uint32_t by) {
    auto volume = group_->open_volume(name);
    CHECK(volume.has_value());
    Status done;
    if (by == 0) {
      const WriteOptions options{.fua = false, .no_hole = first % 2 == 0};
      done =
          first % 3 == 0
              ? co_await (*volume)->discard(first * kBlockBytes, count * kBlockBytes, {})
              : co_await (*volume)->write_zeroes(first * kBlockBytes, count * kBlockBytes, options);
    } else {
      IoBuffer data = IoBuffer::on_heap(count * kBlockBytes);
      // Often the bytes that were there already.
      std::memset(data.data(), by % 4 == 0 ? 7 : static_cast<int>(by % 251), data.size());
      done = co_await (*volume)->write(first * kBlockBytes, std::move(data), {});
    }
    expect(done);
    auto& point = live_[name];
    for (std::uint64_t block = first; block < first + count; ++block) {
      point.by.erase(block);
      if (by != 0) point.by[block] = by;
    }
    --writing_;
    if (writing_ == 0) in_flight_.clear();
  }

  void begin_write() {
    const std::string name = any_volume();
    const auto& point = live_[name];
    // Near the others, so that leaves and blocks are hit again; now and then all of a leaf.
    const std::uint64_t near = random_.below(6) * (point.blocks / 6);
    const std::uint64_t first = std::min(near + random_.below(40), point.blocks - 1);
    const std::uint64_t length = random_.chance(1, 6) ? random_.below(600) : random_.below(5);
    const std::uint64_t count = std::min(length + 1, point.blocks - first);
    auto& taken = in_flight_[name];
    for (std::uint64_t block = first; block < first + count; ++block) {
      if (taken.count(block) != 0) return;  // one at a time
    }
    const bool clears = random_.chance(1, 3) || count > 64;
    for (std::uint64_t block = first; block < first + count; ++block) taken.insert(block);
    ++writing_;
    spawn(write(name, first, count, clears ? 0 : ++last_by_));
  }

  void settle() {
    world_.run_until([this] { return writing_ == 0; });
  }

  void snapshot() {
    settle();
    if (snapshots_.size() > 6) return drop_snapshot();
    const std::string name = "s" + std::to_string(names_++);
    auto made = world_.run(group_->create_snapshot({.name = name, .label = ""}));
    if (!made) return complain(made.error().message);
    snapshots_[name] = live_;
  }

  void drop_snapshot() {
    if (snapshots_.empty()) return;
    auto it = snapshots_.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random_.below(snapshots_.size())));
    expect(world_.run(group_->delete_snapshot(it->first)));
    snapshots_.erase(it);
  }

  void roll_back() {
    if (snapshots_.empty() || snapshots_.size() > 8) return;
    settle();
    auto to = snapshots_.begin();
    std::advance(to, static_cast<std::ptrdiff_t>(random_.below(snapshots_.size())));
    const std::string branch = "b" + std::to_string(names_++);
    const auto left = world_.run(group_->rollback(to->first, branch));
    if (!left) return complain(left.error().message);
    const Volumes abandoned = std::exchange(live_, to->second);
    const auto states = group_->snapshots();
    if (std::none_of(states.begin(), states.end(), [&](const auto& s) { return s.name == branch; }))
      return;  // nothing had happened since
    ++rolled_back_;
    snapshots_[branch] = abandoned;
    left_.insert(branch);
    compare_two();
  }

  void one() {
    const auto dice = random_.below(100);
    if (dice < 60) {
      const auto writes = random_.between(1, 6);
      for (std::uint64_t i = 0; i < writes; ++i) begin_write();
      if (random_.chance(1, 3)) compare_two();
      settle();
    } else if (dice < 74) {
      snapshot();
    } else if (dice < 79) {
      drop_snapshot();
    } else if (dice < 82) {
      roll_back();
    } else if (dice < 90) {
      spawn(checkpoint());
      for (int i = 0; i < 3; ++i) begin_write();
      compare_two();
      world_.run_until([this] { return checkpoints_ == 0; });
      settle();
    } else if (dice < 93) {
      const std::uint64_t blocks = std::min<std::uint64_t>(live_["grows"].blocks * 3, 150'000);
      expect(world_.run(group_->resize_volume("grows", blocks * kBlockBytes)));
      live_["grows"].blocks = blocks;
    } else if (dice < 95) {
      expect(world_.run(group_->delete_volume("small")));
      create("small", random_.between(200, 400));
    } else {
      lose_a_point();
    }
  }

  Task<void> checkpoint() {
    ++checkpoints_;
    expect(co_await group_->checkpoint());
    --checkpoints_;
  }

  /// Two points, or one and the present, and a volume that both have.
  void compare_two() {
    if (snapshots_.empty() || !problem_.empty()) return;
    auto older = snapshots_.begin();
    std::advance(older, static_cast<std::ptrdiff_t>(random_.below(snapshots_.size())));
    auto newer = snapshots_.begin();
    std::advance(newer, static_cast<std::ptrdiff_t>(random_.below(snapshots_.size())));
    const bool to_present = random_.chance(1, 2);
    const std::string& name = any_volume();
    auto opened =
        to_present ? group_->open_volume(name) : group_->open_snapshot(newer->first, name);
    if (!opened) return complain(opened.error().message);
    auto changes = (*opened)->changes_since(older->first);
    if (!changes) return complain(changes.error().message);
    while_writing_ += to_present && writing_ != 0 ? 1 : 0;
    const auto wrong = world_.run(expect_changes(
        **changes, older->second.at(name), to_present ? nullptr : &newer->second.at(name), name));
    if (!wrong.empty())
      complain(name + " since " + older->first + " to " + (to_present ? "now" : newer->first) +
               ": " + wrong);
    ++compared_;
    const bool is_across =
        left_.count(older->first) != (to_present ? 0 : left_.count(newer->first));
    across_ += is_across ? 1 : 0;
  }

  /// `now` null: the present, where blocks being written may count either way.
  Task<std::string> expect_changes(Changes& changes, Point then, const Point* now,
                                   std::string name) {
    const std::set<std::uint64_t> unsure =
        now != nullptr ? std::set<std::uint64_t>{} : in_flight_[name];
    const Point newer = now != nullptr ? *now : live_[name];
    const std::uint64_t end = newer.blocks * kBlockBytes;
    std::uint64_t at = random_.chance(1, 2) ? 0 : random_.below(newer.blocks) * kBlockBytes;
    while (at < end) {
      const std::uint64_t length = random_.chance(1, 2) ? end - at : random_.between(1, end - at);
      const std::size_t most = random_.between(1, 40);
      auto runs = co_await changes.extents(at, length, most);
      if (!runs) co_return runs.error().message;
      if (runs->empty() || runs->size() > most) co_return std::to_string(runs->size()) + " extents";
      std::uint64_t covered = 0;
      for (std::size_t i = 0; i < runs->size(); ++i) {
        const auto& run = (*runs)[i];
        if (i > 0 && run.changed == (*runs)[i - 1].changed) co_return "equal neighbours";
        const std::uint64_t from = at + covered;
        covered += run.length_bytes;
        if (run.length_bytes == 0 || covered > length) co_return "a wrong length";
        const std::uint64_t last = (from + run.length_bytes - 1) / kBlockBytes;
        for (std::uint64_t block = from / kBlockBytes; block <= last; ++block) {
          if ((then.at(block) != newer.at(block)) == run.changed || unsure.count(block) != 0)
            continue;
          co_return "block " + std::to_string(block) + " is reported as " +
              (run.changed ? "changed" : "the same") + "; operations " +
              std::to_string(then.at(block)) + " and " + std::to_string(newer.at(block));
        }
        changed_ += run.changed ? 1 : 0;
      }
      at += covered;
    }
    co_return std::string{};
  }

  /// A snapshot that is deleted while it is compared: the answer is right, the next one an error.
  void lose_a_point() {
    if (snapshots_.size() < 2) return;
    const std::string name = any_volume();
    const auto older = snapshots_.begin();
    auto opened = group_->open_snapshot(std::next(older)->first, name);
    if (!opened) return complain(opened.error().message);
    auto changes = (*opened)->changes_since(older->first);
    if (!changes) return complain(changes.error().message);
    std::string wrong = "not answered";
    spawn(compare_aside(**changes, older->second.at(name), std::next(older)->second.at(name), name,
                        wrong));
    expect(world_.run(group_->delete_snapshot(older->first)));
    world_.run_until([&] { return wrong != "not answered"; });
    if (!wrong.empty() && wrong != "snapshot " + older->first + " was deleted") complain(wrong);
    const auto gone = world_.run((*changes)->extents(0, kBlockBytes, 1));
    if (gone || gone.error().code != ErrorCode::kNotFound) complain("a deleted snapshot answers");
    snapshots_.erase(older);
    ++lost_;
  }
  Task<void> compare_aside(Changes& changes, const Point& then, const Point& now, std::string name,
                           std::string& wrong) {
    wrong = co_await expect_changes(changes, then, &now, name);
  }

  std::uint64_t seed_;
  SimRandom random_;
  StoreShape shape_;
  SimRuntime world_;
  StoreNode node_;
  store::Group* group_ = nullptr;
  Volumes live_;
  std::map<std::string, Volumes> snapshots_;                  // and branches
  std::set<std::string> left_;                                // those of them that are branches
  std::map<std::string, std::set<std::uint64_t>> in_flight_;  // blocks, until nothing is written
  std::size_t writing_ = 0, checkpoints_ = 0;
  std::uint32_t last_by_ = 0;
  std::size_t names_ = 0, operation_ = 0;
  std::size_t changed_ = 0, compared_ = 0, while_writing_ = 0, lost_ = 0;
  std::size_t rolled_back_ = 0, across_ = 0;
  std::string problem_;
};

TEST(Changes, AreWhatAnotherOperationWrote) {
  std::size_t changed = 0, compared = 0, while_writing = 0, lost = 0, rolled_back = 0, across = 0;
  for (const std::uint64_t seed : seeds_to_run(301, 16)) {
    SimLog log;
    ChangingLife life(seed);
    life.run(250);
    ASSERT_EQ(life.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    changed += life.changed();
    compared += life.compared();
    while_writing += life.while_writing();
    lost += life.lost();
    rolled_back += life.rolled_back();
    across += life.across();
  }
  EXPECT_GT(compared, 500u);
  EXPECT_GT(changed, 2000u);
  EXPECT_GT(while_writing, 50u);
  EXPECT_GT(lost, 20u);
  EXPECT_GT(rolled_back, 40u);
  EXPECT_GT(across, 100u) << "between a branch and what is none";
}

}  // namespace
}  // namespace tandem::sim
