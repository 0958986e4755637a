#include "tests/sim/simulate/lines.h"

#include <algorithm>

namespace tandem::sim {

void Lines::settle(const LineKey& key, const std::string& server, const StoreModel::Found& found) {
  lines_.clear();
  parents_.clear();
  begin(key, server, found);
}

Line& Lines::begin(const LineKey& key, const std::string& server, const StoreModel::Found& found) {
  Line line;
  line.models.push_back(std::make_unique<StoreModel>(StoreModel::settled(found, next_op_)));
  line.server = server;
  next_op_ += kOpsPerLine;
  return lines_.insert_or_assign(key, std::move(line)).first->second;
}

const LineKey* Lines::newest_of(const TimelineHistory& history) const {
  for (std::size_t n = history.size(); n != 0; --n) {
    const TimelineHistory part(history.begin(), history.begin() + static_cast<std::ptrdiff_t>(n));
    const auto found = lines_.find(key_of(part));
    if (found != lines_.end()) return &found->first;
  }
  return nullptr;
}

StoreModel::Demand Lines::demand_of(const LineKey& key, std::size_t model, const Hold& hold) {
  const StoreModel& of = *at(key).models[model];
  if (hold.line != key || hold.model != model) return {};
  if (hold.own)
    return of.demand(hold.written != 0 ? StoreModel::Crash::kProcessKilled
                                       : StoreModel::Crash::kPowerCut);
  std::uint64_t before = std::max(std::min(hold.written, of.now() + 1), hold.durable);
  if (hold.gated_from != 0)
    before = std::max(before, of.flushed_before(hold.gated_from, of.now() + 1));
  return {before, false};
}

std::optional<std::size_t> Lines::explained_by(const LineKey& key, const StoreModel::Found& found,
                                               const Hold& hold, std::string& why) {
  Line& line = at(key);
  const std::size_t oldest = hold.line == key ? hold.model : 0;
  for (std::size_t i = line.models.size(); i-- > oldest;) {
    const auto problem = line.models[i]->check_recovered(found, demand_of(key, i, hold));
    if (!problem) return i;
    if (why.empty()) why = *problem;
  }
  return std::nullopt;
}

std::optional<std::string> Lines::check(const LineKey& key, const StoreModel::Found& found,
                                        const Hold& hold) {
  std::string why;
  if (explained_by(key, found, hold, why)) return std::nullopt;
  return why;
}

std::optional<std::string> Lines::restart(const LineKey& key, const StoreModel::Found& found,
                                          const Hold& hold) {
  std::string why;
  const auto model = explained_by(key, found, hold, why);
  if (!model) return why;
  Line& line = at(key);
  auto next = std::make_unique<StoreModel>(*line.models[*model]);
  next->restarted(found, demand_of(key, *model, hold));
  line.models.push_back(std::move(next));
  return std::nullopt;
}

void Lines::may_become(const LineKey& key, const StoreModel::Found& found) {
  Line& line = at(key);
  line.models.push_back(
      std::make_unique<StoreModel>(StoreModel::settled(found, line.now().next_op())));
}

void Lines::note_history(const TimelineHistory& history) {
  for (std::size_t n = 1; n < history.size(); ++n) {
    const auto end = history.begin() + static_cast<std::ptrdiff_t>(n);
    parents_[history[n]] = key_of(TimelineHistory(history.begin(), end));
  }
}

bool Lines::parted_before(const TimelineHistory& history, Lsn end) const {
  const LineKey key = key_of(history);
  return std::any_of(parents_.begin(), parents_.end(), [&](const auto& entry) {
    return entry.second == key && entry.first.fork < end;
  });
}

}  // namespace tandem::sim
