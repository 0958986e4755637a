#include "ctl/places.h"

#include <algorithm>

namespace tandem::ctl {
namespace {

/// Less is better.
int distance(const Place& place) {
  if (!place.nbd.unix_path.empty()) return 0;
  return place.group->role == Role::kMirror ? 1 : 2;
}

}  // namespace

Result<std::vector<Answer>> ask_readers(Context& context, const std::string& nbd) {
  const auto& nodes = context.settings.nodes;
  if (nbd.empty()) return collect(context);
  if (nodes.size() != 1)
    return Error{ErrorCode::kInvalid,
                 "--nbd says where one node's exports are: give that node's --node alone"};
  return ask(context, nodes, true, context.settings.timeout);
}

Result<std::vector<Place>> places_with(const std::vector<Answer>& answers, const std::string& nbd,
                                       const std::string& what, const Holds& holds) {
  std::vector<Place> places;
  std::optional<Error> unreachable, silent;
  for (const auto& answer : answers) {
    if (!answer.status) {
      silent = answer.status.error();
      continue;
    }
    for (const auto& group : answer.status->groups) {
      if (!holds(group)) continue;
      auto address = nbd_address(*answer.status, answer.address, nbd);
      if (address) {
        places.push_back({&*answer.status, &group, std::move(*address), answer.address});
      } else {
        unreachable = address.error();
      }
    }
  }
  if (places.empty() && unreachable) return *unreachable;
  if (places.empty() && silent)
    return Error{ErrorCode::kUnavailable,
                 "no node that answers has " + what + "; and " + silent->message};
  if (places.empty())
    return Error{ErrorCode::kNotFound, "no node has " + what + "; see 'tandem snapshot list'"};
  std::stable_sort(places.begin(), places.end(),
                   [](const Place& a, const Place& b) { return distance(a) < distance(b); });
  return places;
}

const SnapshotStatus* find_snapshot(const GroupStatus& group, const std::string& name) {
  const auto found = std::find_if(group.snapshots.begin(), group.snapshots.end(),
                                  [&](const auto& s) { return s.name == name; });
  return found == group.snapshots.end() ? nullptr : &*found;
}

bool has_volume(const SnapshotStatus& snapshot, const std::string& volume) {
  return std::any_of(snapshot.volumes.begin(), snapshot.volumes.end(),
                     [&](const auto& v) { return v.name == volume; });
}

Result<Opened> open_at_one(const std::vector<Place>& places, const Settings& settings,
                           const std::function<Wanted(const Place&)>& wanted) {
  std::optional<Error> first;
  for (const auto& place : places) {
    const auto what = wanted(place);
    auto exported = Export::open(place.nbd, what.name, settings, what.since);
    if (exported) return Opened{&place, std::move(*exported)};
    if (!first) first = exported.error();
  }
  return first.value_or(Error{ErrorCode::kNotFound, "there is no node to read at"});
}

}  // namespace tandem::ctl
