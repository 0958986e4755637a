#include "control/snapshot_schedule.h"

#include <algorithm>
#include <ctime>

namespace tandem::control {
namespace {

std::vector<const SnapshotStatus*> automatic(const std::vector<SnapshotStatus>& kept) {
  std::vector<const SnapshotStatus*> found;
  for (const auto& snapshot : kept) {
    if (snapshot.name.starts_with(kAutomaticPrefix)) found.push_back(&snapshot);
  }
  return found;
}

}  // namespace

std::string time_name(UtcNs now) {
  const auto seconds = static_cast<std::time_t>(now.value / 1'000'000'000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc)};
}

std::string automatic_name(UtcNs now) { return std::string(kAutomaticPrefix) + time_name(now); }

bool snapshot_is_due(const replication::SnapshotPolicy& policy,
                     const std::vector<SnapshotStatus>& kept, UtcNs last, UtcNs now) {
  if (!policy.every) return false;
  const auto found = automatic(kept);
  if (!found.empty()) last = std::max(last, found.back()->utc);
  const auto every = static_cast<std::uint64_t>(policy.every->count());
  return now.value / every > last.value / every;
}

std::vector<std::string> expired_snapshots(const replication::SnapshotPolicy& policy,
                                           const std::vector<SnapshotStatus>& kept, UtcNs now) {
  const auto found = automatic(kept);
  std::vector<std::string> expired;
  for (std::size_t i = 0; i + 1 < found.size(); ++i) {
    const std::uint64_t time = found[i]->utc.value;
    const bool old = policy.keep_time && now.value > time &&
                     now.value - time > static_cast<std::uint64_t>(policy.keep_time->count());
    const bool many = policy.keep_count && found.size() - i > *policy.keep_count;
    if (old || many) expired.push_back(found[i]->name);
  }
  return expired;
}

}  // namespace tandem::control
