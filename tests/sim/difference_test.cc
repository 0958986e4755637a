// A difference as the receiving store sees it: it begins as a state that both hold, wherever the
// mirror has gone since, and is there as a whole or not at all. Nothing of what the mirror keeps is
// touched, and what it replaced comes back to the pool.
#include <gtest/gtest.h>

#include "tests/sim/image_messages.h"
#include "tests/sim/store_client.h"
#include "tests/sim/store_node.h"
#include "tests/unit/inspect_fixture.h"

namespace tandem::sim {
namespace {

class Difference {
 public:
  explicit Difference(std::uint64_t seed)
      : random_(seed),
        shape_(shape_of(random_)),
        world_(seed),
        source_(world_, StoreNode::formatted(shape_, seed), shape_, seed),
        target_(world_, StoreNode::formatted(shape_, seed + 1), shape_, seed + 1) {
    mix_.operations = 60;
    mix_.remove = 1;
  }

  void run(std::size_t rounds) {
    StoreClients clients(world_, source_, model_, mix_, random_.next());
    complain(world_.run(source_.start()));
    complain(world_.run(source_.make_group(clients, model_, 3, 512 << 10)));
    complain(world_.run(target_.open()));
    if (!problem_.empty()) return;
    auto made = world_.run(target_.pool().create_group("g", source_.group()->identity().group,
                                                       Role::kMirror, ReplicationMode::kAsync));
    if (!made) return complain(made.error().message);
    mirror().set_history_policy({});
    for (std::size_t round = 0; round < rounds && problem_.empty(); ++round) one_round(round);
    if (problem_.empty()) give_all_back();
    world_.run(source_.stop());
    world_.run(target_.stop());
  }
  const std::string& problem() const { return problem_; }
  std::size_t differences = 0, full_copies = 0, moments = 0, refused = 0;

 private:
  static StoreShape shape_of(SimRandom& random) {
    StoreShape shape = StoreShape::from_seed(random.fork());
    shape.disk_bytes = 24 << 20;
    return shape;
  }
  store::Group& primary() { return *source_.group(); }
  store::Group& mirror() { return *target_.group(); }
  void complain(std::string what) {
    if (problem_.empty()) problem_ = std::move(what);
  }
  void complain(const Status& status) {
    if (!status) complain(status.error().message);
  }

  void change_primary() {
    const auto more = random_.between(1, 3);
    for (std::uint64_t i = 0; i < more; ++i) {
      StoreClients clients(world_, source_, model_, mix_, random_.next());
      world_.run(clients.run());
      if (random_.chance(1, 2)) {
        const auto name = "s" + std::to_string(++snapshots_);
        complain(status_of(world_.run(primary().create_snapshot({.name = name}))));
      }
      if (random_.chance(1, 4)) complain(world_.run(primary().checkpoint()));
    }
    const auto kept = primary().snapshots();
    if (kept.empty() || !random_.chance(1, 3)) return;
    const auto& to = kept[random_.below(kept.size())].name;
    complain(status_of(world_.run(primary().rollback(to, ""))));
  }

  /// Goes on with what the primary has, somewhere in front of its end.
  void follow_a_little(std::uint64_t records) {
    while (records != 0 && mirror().tail().lsn < primary().head().lsn && problem_.empty()) {
      auto batch = world_.run(primary().read_after(mirror().tail().lsn, 1));
      if (!batch) return complain(batch.error().message);
      // A rollback to what the mirror does not keep.
      if (!world_.run(mirror().apply(std::move(*batch)))) break;
      --records;
    }
    complain(world_.run(mirror().flush_local()));
    if (random_.chance(1, 2)) complain(world_.run(mirror().checkpoint()));
  }

  StoreModel::Found content_of_mirror() {
    auto left = target_.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random_);
    const Recovery found = promote_copy(left, shape_, random_.next());
    if (!found.status) complain("the mirror cannot be promoted: " + found.status.error().message);
    return found.found;
  }

  void one_round(std::size_t round) {
    if (round != 0) {
      const auto behind = random_.below(40);
      primary().set_log_hold(mirror().tail().lsn);
      change_primary();
      if (random_.chance(2, 3)) follow_a_little(behind);
    }
    if (!problem_.empty()) return;
    std::optional<LogPoint> since;
    if (round != 0) since = common_;
    auto image = world_.run(take_image(primary(), since));
    if (!image) return complain(image.error().message);
    const auto after = world_.run(source_.read_all());
    if (!after) return complain(after.error().message);
    const auto before = round == 0 ? StoreModel::Found{} : content_of_mirror();
    ++(image->begin.base ? differences : full_copies);

    watch(before, *after);
    if (random_.chance(1, 3)) give_up_half_way(*image);
    Status installed = world_.run(install(mirror(), *image));
    target_.disk().set_observer(nullptr);
    if (std::exchange(watched_, 0) == 0) complain("the installation had no moment to be cut at");
    if (!installed && installed.error().code == ErrorCode::kNotFound && image->begin.base) {
      ++refused;
      mirror().abandon_install();
      auto whole = world_.run(take_image(primary(), std::nullopt));
      if (!whole) return complain(whole.error().message);
      image = std::move(whole);
      installed = world_.run(install(mirror(), *image));
    }
    complain(installed);
    if (content_of_mirror() != *after) complain("the mirror has other content");
    common_ = image->begin.point;
    mirror().set_primary_durable(common_.lsn, common_.lsn);
    world_.run_for(std::chrono::seconds(2));
    complain(still_unbalanced(world_, target_.pool()));
    const auto disk = target_.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random_);
    if (const auto report = inspect::verify(disk); !report.sound()) complain(report.text());
  }

  void give_up_half_way(Image image) {
    if (!world_.run(mirror().begin_install(image.begin))) return;
    image.blocks.resize(random_.below(image.blocks.size() + 1));
    for (auto& blocks : image.blocks) complain(world_.run(mirror().install_blocks(blocks)));
    if (random_.chance(1, 2)) complain(world_.run(mirror().checkpoint()));
    mirror().abandon_install();
  }

  /// Whenever the power goes, the mirror has the one or the other.
  void watch(const StoreModel::Found& before, const StoreModel::Found& after) {
    target_.disk().set_observer([&](SimDisk::Moment, const IoRequest&) {
      ++watched_;
      if (!problem_.empty() || before.empty() || !random_.chance(1, 12)) return;
      ++moments;
      const auto left = target_.disk().crash_image({}, random_);
      const Recovery found = promote_copy(left, shape_, random_.next());
      if (!found.status) {
        complain(found.status.error().message);
      } else if (found.found != after && found.found != before) {
        complain("a power cut left half of it");
      }
    });
  }

  void give_all_back() {
    for (const auto& snapshot : mirror().snapshots())
      complain(world_.run(mirror().delete_snapshot(snapshot.name)));
    mirror().set_primary_durable(mirror().head().lsn, mirror().head().lsn);
    world_.run_for(std::chrono::seconds(10));
    complain(world_.run(mirror().checkpoint()));
    const auto left = target_.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random_);
    if (const auto report = inspect::verify(left); !report.sound()) complain(report.text());
  }

  template <class T>
  static Status status_of(const Result<T>& result) {
    return result ? ok() : Status(result.error());
  }

  SimRandom random_;
  StoreShape shape_;
  SimRuntime world_;
  StoreNode source_, target_;
  StoreModel model_;
  Mix mix_;
  LogPoint common_;
  std::size_t snapshots_ = 0, watched_ = 0;
  std::string problem_;
};

TEST(Differences, AreWholeOrNotThere) {
  std::size_t differences = 0, full_copies = 0, moments = 0, refused = 0;
  for (const std::uint64_t seed : seeds_to_run(1, 12)) {
    SimLog log;
    Difference difference(seed);
    difference.run(5);
    ASSERT_EQ(difference.problem(), "") << "replay with TANDEM_SEED=" << seed << "\n" << log.text();
    differences += difference.differences;
    full_copies += difference.full_copies;
    moments += difference.moments;
    refused += difference.refused;
  }
  EXPECT_GT(differences, full_copies);
  EXPECT_GT(moments, 50u);
  EXPECT_LT(4 * refused, differences);
}

}  // namespace
}  // namespace tandem::sim
