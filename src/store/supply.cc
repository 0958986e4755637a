// Space for data and log: zones are fetched ahead; what gives way when the pool is full, and in
// which order, is here.
#include "format/checkpoint.h"
#include "store/compaction.h"
#include "store/group.h"
#include "store/image.h"
#include "tandem/base/log.h"

namespace tandem::store {

namespace {
constexpr std::uint64_t kZonesPlenty = 16;
}

/// Blocks that the next checkpoint may need. Kept back from data, so that a full pool can always
/// write a checkpoint, and so delete, discard and demote.
std::uint64_t Group::reserve() const {
  // Leaves that are dirty, or will be once what is under way is applied; each may need a new node
  // at every level above it.
  std::uint64_t leaves = cache_.dirty_leaves(static_cast<std::uint16_t>(slot_)) + 32;
  for (const auto& page : in_flight_) leaves += 2 * page->records.size();
  leaves += compaction_->leaves_pinned();
  std::uint64_t height = 1;
  for (const auto& [id, volume] : volumes_) {
    height = std::max<std::uint64_t>(height, volume->tree.height);
  }
  const std::uint64_t maps = leaves * height + 8 * (volumes_.size() + 1);
  const std::uint64_t bitmap =
      std::min<std::uint64_t>(space_.zone_count(),
                              pool_.superblock().blocks / format::kBitsPerBitmapPage + 1) +
      bitmap_.size() + 4;
  // Lists of what snapshots hold, one per interval at most; and a snapshot being deleted.
  const std::uint64_t snapshots =
      snapshots_.empty() ? 0 : snapshots_.size() + leaves * height / 64 + kReapReserve;
  const std::uint64_t listing =
      image_target_ ? image_target_->replaced.size() / format::kDeadPerChunk + 2 : 0;
  return maps + bitmap + dead_.chunk_blocks_needed() + snapshots + descriptor_blocks_.size() + 4 +
         checkpoint_reserve_ + point_reserve_ + listing + compaction_->list_blocks();
}

std::uint64_t Group::available() const {
  const std::uint64_t kept = reserve();
  return space_.free_blocks() > kept ? space_.free_blocks() - kept : 0;
}

/// Blocks that the request at the front of the queue needs and that are not promised to it yet.
std::uint64_t Group::blocks_asked() const {
  if (queue_.empty() || promised_blocks_ != 0) return 0;
  const auto& front = queue_.front();
  return std::max<std::uint64_t>(front.data.size() / kBlockBytes, front.request_blocks);
}

/// Two zones ahead keeps preparing them off a write's way; a pool that fills up affords less. While
/// it has plenty, long writes get zones without holes.
bool Group::space_is_low() const {
  const std::uint64_t zone = pool_.superblock().zone_blocks;
  const std::uint64_t plenty = std::max(kZonesPlenty, std::uint64_t{pool_.superblock().zones} / 8);
  if (space_.wants_clean_zones() && pool_.zones_free() > plenty) return true;
  const std::uint64_t ahead = pool_.zones_free() > kZonesPlenty ? 2 * zone : zone / 2;
  return available() < std::max(ahead, blocks_asked());
}

void Group::supply_if_low() {
  if (supplying_ || closing_ || stopped_) return;
  const bool low = space_is_low() && pool_.zones_free() != 0;
  if (!starved_ && !low && log_.has_spare()) return;
  supplying_ = true;
  spawn(supply());
}

Task<void> Group::supply() {
  auto hold = gate_.hold();
  while (!closing_ && !stopped_) {
    const bool want_spare = !log_.has_spare();
    if (space_is_low() && compaction_->reopen_waiting()) continue;
    if (pool_.zones_free() != 0 && (want_spare || space_is_low())) {
      auto zone = co_await pool_.take_zone(slot_);
      if (zone && !log_.has_spare()) {
        log_.give_spare(*zone);
      } else if (zone) {
        space_.add_zone(*zone);
      } else if (zone.error().code != ErrorCode::kNoSpace) {
        stop(std::move(zone.error()));
      }
      continue;
    }
    // The pool is full. Only somebody who waits justifies work.
    const bool log_is_stuck = !log_.can_place();
    if (!starved_ && !log_is_stuck) break;
    const bool changed = co_await relieve();
    if (!changed) break;
  }
  supplying_ = false;
  starved_ = false;
  schedule_pump();
}

bool Group::has_room() const { return log_.can_place() && available() >= blocks_asked(); }

/// The order of giving way: what is merely not written yet (a checkpoint frees dead blocks and
/// log), then zones that compaction empties, then what copies that follow each other need only
/// until they have said what is durable, then history, from its beginning on, then the log kept for
/// a mirror that lags, then the write that asks.
Task<bool> Group::relieve() {
  if (has_room()) co_return false;
  if (!log_.has_spare()) {
    auto empty = space_.empty_zones();
    if (!empty.empty()) {
      space_.remove_zone(empty.front());
      compaction_->zone_left(empty.front());
      log_.give_spare(empty.front());
      co_return true;
    }
  }
  if (futile_ != freeable()) {
    const auto before = available();
    const auto pages = log_.pages();
    Status done = co_await checkpoint();
    if (!done) co_return false;
    if (available() <= before && log_.pages() >= pages && !reaps_snapshots()) {
      futile_ = freeable();
    }
    co_return true;
  }
  if (compaction_->give_way()) {
    co_await compaction_->wait_over();
    co_return true;
  }
  if (may_wait_for_others()) {
    co_await wait_for_others();
    co_return true;
  }
  if (const auto start = history_start(); start && *start < checkpoint_lsn_) {
    log_event(Level::kWarn, "history.given-up", "group={} behind={} reason=\"the pool is full\"",
              name_, start->value);
    give_up_history();
    futile_.reset();
    co_return true;
  }
  if (const auto hold = lowest_hold(); hold && *hold < checkpoint_lsn_) {
    log_event(Level::kWarn, "log.given-up",
              "group={} behind={} reason=\"the pool is full; the mirror will be sent what changed, "
              "or all, once it is back\"",
              name_, hold->value);
    hold_.reset();
    unnamed_hold_.reset();
    futile_.reset();
    co_return true;
  }
  if (queue_.empty()) co_return false;
  refuse_front();
  co_return true;
}

/// Nothing gives way any more: the request at the front is refused, and leaves no trace. Records
/// from a primary must follow each other, so a mirror refuses all that wait and asks for them
/// again.
void Group::refuse_front() {
  std::vector<Completion*> refused;
  bool is_mirror = false;
  while (!queue_.empty()) {
    const bool replicated = queue_.front().replicated;
    auto* completion = queue_.front().completion;
    queue_.pop_front();
    if (completion != nullptr) refused.push_back(completion);
    is_mirror = is_mirror || replicated;
    if (completion != nullptr && !replicated) break;
  }
  refusals_.count += refused.size();
  refusals_.last = runtime_.clock.utc();
  writes_answered_ = runtime_.clock.monotonic();
  const std::string why =
      is_mirror ? " is full, so nothing more is taken from the primary: delete snapshots there "
                  "that are not needed, kept tails among them, or enlarge its pool"
                : " is full: this write was refused and changed nothing; discard or delete what is "
                  "not needed, or enlarge the pool";
  for (auto* completion : refused)
    completion->complete(Error{ErrorCode::kNoSpace, "pool " + device_.name() + why});
  applied_.notify_all();
}

}  // namespace tandem::store
