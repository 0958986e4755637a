#include "ctl/group_copies.h"

#include <algorithm>
#include <iostream>

namespace tandem::ctl {

const SnapshotStatus* find_snapshot(const GroupStatus& group, const backup::SnapshotId& id) {
  const auto found = std::find_if(group.snapshots.begin(), group.snapshots.end(),
                                  [&](const auto& s) { return id.is(s.lsn, s.utc); });
  return found == group.snapshots.end() ? nullptr : &*found;
}

template <class Matches>
std::vector<GroupCopies::Copy> GroupCopies::copies(Matches matches) const {
  std::vector<Copy> found;
  for (const auto& answer : answers_) {
    if (!answer.status) continue;
    for (const auto& group : answer.status->groups) {
      if (matches(group)) found.push_back({&answer, &group});
    }
  }
  return found;
}

std::vector<GroupCopies::Copy> GroupCopies::copies() const {
  return copies([&](const GroupStatus& g) { return g.id.text() == id_; });
}

Status GroupCopies::ask() {
  auto answers = ask_readers(context_, nbd_);
  if (!answers) return Error(std::move(answers.error()));
  answers_ = std::move(*answers);
  return id_.empty() ? find_id() : ok();
}

Status GroupCopies::find_id() {
  for (const auto& [answer, group] :
       copies([&](const GroupStatus& g) { return g.name == name_; })) {
    const auto id = group->id.text();
    if (!id_.empty() && id != id_)
      return Error{ErrorCode::kRefused, "there are two groups " + name_ +
                                            " that are not copies of each other; say with a "
                                            "single --node which one"};
    id_ = id;
  }
  if (!id_.empty()) return ok();
  const auto with = copies([&](const GroupStatus& g) {
    return std::any_of(g.volumes.begin(), g.volumes.end(),
                       [&](const auto& v) { return v.name == name_; });
  });
  if (!with.empty()) {
    const auto& group = with.front().group->name;
    return Error{ErrorCode::kNotFound, "there is no group " + name_ +
                                           "; the volume of that name is one of group " + group +
                                           ": 'tandem backup create " + group +
                                           " DIRECTORY --volume " + name_ + "'"};
  }
  for (const auto& answer : answers_) {
    if (!answer.status) return answer.status.error();
  }
  return no_such_group(name_);
}

UtcNs GroupCopies::now() const {
  UtcNs now;
  for (const auto& copy : copies()) now = std::max(now, copy.answer->status->now);
  return now;
}

std::string GroupCopies::silent_nodes() const {
  std::string text;
  for (const auto& address : ctl::silent_nodes(answers_))
    text += (text.empty() ? "" : ", ") + address;
  return text;
}

const SnapshotStatus* GroupCopies::find(const std::string& name) const {
  for (const auto& copy : copies()) {
    if (const auto* found = find_snapshot(*copy.group, name)) return found;
  }
  return nullptr;
}

bool GroupCopies::keeps(const backup::SnapshotId& id) const {
  const auto all = copies();
  return std::any_of(all.begin(), all.end(),
                     [&](const Copy& copy) { return find_snapshot(*copy.group, id) != nullptr; });
}

std::string GroupCopies::free_name(const std::string& name) const {
  std::string free = name;
  for (int i = 2; find(free) != nullptr; ++i) free = name + "-" + std::to_string(i);
  return free;
}

Result<SnapshotStatus> GroupCopies::take(const std::string& name, const std::string& label) {
  const auto primaries =
      copies([&](const GroupStatus& g) { return g.id.text() == id_ && g.role == Role::kPrimary; });
  if (primaries.empty())
    return Error{ErrorCode::kUnavailable,
                 "no node that answers is primary of group " + name_ +
                     ", so no snapshot can be taken; name the primary with --node, or a snapshot "
                     "that there is with --snapshot"};
  if (primaries.size() > 1)
    return Error{ErrorCode::kRefused, "more than one node is primary of group " + name_ +
                                          "; say with a single --node which one"};
  const auto& [answer, group] = primaries.front();
  if (const auto* made = find_snapshot(*group, name)) return *made;
  const auto client = context_.connect(answer->address, patient(context_.settings));
  if (!client) return client.error();
  return (*client)->create_snapshot({.group = group->name, .name = name, .label = label});
}

void GroupCopies::drop(const backup::SnapshotId& id) {
  for (const auto& [answer, group] : copies()) {
    const auto* snapshot = find_snapshot(*group, id);
    if (snapshot == nullptr) continue;
    const auto client = context_.connect(answer->address, patient(context_.settings));
    const auto done =
        client ? (*client)->delete_snapshot(group->name, snapshot->name) : Status(client.error());
    if (!done)
      context_.err << "tandem: snapshot " << snapshot->name << " stays at " << answer->address
                   << " until the next backup: " << done.error().message << "\n";
  }
}

Result<std::vector<Place>> GroupCopies::places(const backup::SnapshotId& snapshot,
                                               const backup::SnapshotId* older) const {
  const std::string also = older == nullptr ? "" : " and snapshot " + older->name;
  return places_with(answers_, nbd_, "snapshot " + snapshot.name + also + " of group " + name_,
                     [&](const GroupStatus& g) {
                       return g.id.text() == id_ && find_snapshot(g, snapshot) != nullptr &&
                              (older == nullptr || find_snapshot(g, *older) != nullptr);
                     });
}

}  // namespace tandem::ctl
