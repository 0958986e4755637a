// Silent damage: blocks at rest go bad, and what a copy owes then.
//
// What may go bad is bounded so that the promises can hold: only blocks of data that are durable on
// both nodes, byte for byte, and whole on the other one; and none that a recovery would look at to
// find where a crash cut the log off, which it could not tell from a write that did not arrive.
// So, while the other copy lasts, a bad block is given back by it. It may be gone when it is asked:
// the node is down, its copy was rolled back, or deleted. Then an error is right, and the test
// gives the bytes back itself, as an operator with a backup would. Of a level pair it never does
// that for the live volumes. Bytes that are wrong name themselves: see StoreModel.
#include <algorithm>
#include <set>

#include "tests/sim/simulate/pair_chaos.h"

namespace tandem::sim {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t kPagesMax = 12;  // that go bad at once

/// The pages of stamped data that are durable, and that nothing is about to replace.
std::map<std::uint64_t, SimPageRef> at_rest(const SimDisk& disk, SimRandom& random) {
  std::map<std::uint64_t, SimPageRef> pages;
  const SimImage durable = disk.crash_image({.mode = CutOptions::Mode::kDropAll}, random);
  const SimImage all = disk.crash_image({.mode = CutOptions::Mode::kKeepAll}, random);
  for (const auto& [index, page] : durable.durable()) {
    const auto newest = all.durable().find(index);
    const bool stays = page && newest != all.durable().end() && newest->second == page;
    if (stays && has_stamp(*page)) pages.emplace(index, page);
  }
  return pages;
}

}  // namespace

/// Recoveries from every moment from now on end where they would.
bool PairChaos::is_behind_recovery(Side& side, const std::vector<std::uint64_t>& pages) {
  SimRandom random = random_.fork();
  for (const auto mode : {CutOptions::Mode::kDropAll, CutOptions::Mode::kKeepAll}) {
    SimImage image = side.node->disk().crash_image({.mode = mode}, random);
    const std::uint64_t seed = random.next();
    const Recovery whole = promote_copy(image, swarm_.shape, seed);
    if (!whole.status && !has_rot(side)) return false;
    for (const auto page : pages) image.corrupt(page * kBlockBytes, kBlockBytes, random);
    const Recovery rotten = promote_copy(image, swarm_.shape, seed);
    if (rotten.head.lsn == Lsn{} || rotten.head.lsn != whole.head.lsn) return false;
  }
  return true;
}

void PairChaos::rot(Side& side) {
  Side& other = *side.other;
  if (!can_be_asked(side) || !can_be_asked(other)) return;
  SimDisk& disk = side.node->disk();
  std::set<SimPage> whole;  // on the other node
  for (const auto& [index, page] : at_rest(other.node->disk(), random_)) whole.insert(*page);
  for (const auto& [index, rotten] : other.rotten) whole.erase(*rotten.was);
  std::vector<std::pair<std::uint64_t, SimPageRef>> candidates;
  for (const auto& [index, page] : at_rest(disk, random_)) {
    if (whole.contains(*page)) candidates.emplace_back(index, page);
  }
  if (candidates.empty()) return;
  // Some that lie together, and were written together.
  const std::size_t count = std::min(random_.between(1, kPagesMax), candidates.size());
  const std::size_t first = random_.below(candidates.size() - count + 1);
  std::vector<std::uint64_t> pages;
  for (std::size_t i = first; i < first + count; ++i) pages.push_back(candidates[i].first);
  chronicle_.mute(true);
  const bool possible = is_behind_recovery(side, pages);
  chronicle_.mute(false);
  if (!possible) return;
  for (std::size_t i = first; i < first + count; ++i) {
    const auto& [index, page] = candidates[i];
    disk.corrupt(index * kBlockBytes, kBlockBytes);
    side.rotten[index] = {page, disk.page(index)};
  }
  chronicle_.say(std::to_string(count) + " blocks of " + side.node->name() + " go bad");
  chronicle_.mark("blocks-rotted");
}

/// Something is bad now. What was repaired may be bad again after a power cut, so all is
/// remembered.
bool PairChaos::has_rot(const Side& side) const {
  if (side.node->is_dead()) return false;
  return std::any_of(side.rotten.begin(), side.rotten.end(), [&](const auto& entry) {
    const SimPageRef now = side.node->disk().page(entry.first);
    return now && *now == *entry.second.is;
  });
}

void PairChaos::give_back(Side& side) {
  if (!has_rot(side)) return;
  chronicle_.say("what went bad on " + side.node->name() + " is given back");
  SimDisk& disk = side.node->disk();
  for (const auto& [page, rotten] : side.rotten) {
    const SimPageRef now = disk.page(page);
    if (now && *now == *rotten.is) disk.give_back(page, rotten.was);
  }
}

/// What that node's disk would hold if nothing had gone bad, nor a power cut torn its repair.
SimImage PairChaos::without_rot(const Side& side, SimImage image) const {
  for (const auto& [page, rotten] : side.rotten) {
    SimPage now;
    image.read(page * kBlockBytes, now);
    const SimPageRef live = side.node->disk().page(page);
    const bool is_repaired = live && *live == *rotten.was;
    if (now == *rotten.is || is_repaired) image.write(page * kBlockBytes, *rotten.was);
  }
  return image;
}

/// It could not be read, for blocks that went bad: with those given back it must be.
Result<StoreModel::Found> PairChaos::read_again(Side& side, const std::string& snapshot,
                                                const char* mark) {
  chronicle_.mark(mark);
  give_back(side);
  return side.node->read_all(snapshot);
}

/// In a level pair: afterwards every block of the live volumes is whole. One that an operator began
/// before it was level may have found what nobody could give back then.
bool PairChaos::scrub_whole(Side& side) {
  const auto is_over = [&] { return side.node->status().scrub.state == "finished"; };
  Status started = run(side.node->control().start_scrub("g"));
  if (!started && started.error().code == ErrorCode::kBusy && world_.until(is_over, 120s))
    started = run(side.node->control().start_scrub("g"));
  if (!started) return complain("scrub of " + side.node->name() + ": " + started.error().message);
  if (!world_.until(is_over, 120s))
    return complain("the scrub of " + side.node->name() + " does not end");
  for (const auto& finding : side.node->status().scrub.findings) {
    if (finding.snapshot.empty() && finding.outcome != "given back by a peer")
      return complain("a scrub of " + side.node->name() + " found " + finding.volume + " at byte " +
                      std::to_string(finding.byte) + ": " + finding.outcome);
  }
  world_.runtime().run_for(1s);  // what was fetched is written back behind the scrub
  return true;
}

}  // namespace tandem::sim
