// A group as its backup sees it: the copies that nodes have, and the snapshots that those keep. A
// snapshot is known by its position and time, since each node may have its own name for it.
#pragma once

#include <string>
#include <vector>

#include "backup/manifest.h"
#include "ctl/places.h"

namespace tandem::ctl {

const SnapshotStatus* find_snapshot(const GroupStatus& group, const backup::SnapshotId& id);

class GroupCopies {
 public:
  /// `nbd`: see ask_readers().
  GroupCopies(Context& context, std::string group, std::string nbd)
      : context_(context), name_(std::move(group)), nbd_(std::move(nbd)) {}

  /// How the nodes are now. Errors: kNotFound; kRefused: there are two groups of that name.
  Status ask();

  const std::string& id() const { return id_; }
  UtcNs now() const;  // by the nodes' clocks
  std::string silent_nodes() const;

  /// By its name at any node.
  const SnapshotStatus* find(const std::string& name) const;
  bool keeps(const backup::SnapshotId& id) const;
  /// `name`, or that with a number behind it.
  std::string free_name(const std::string& name) const;
  /// The primary's of that name when there is one.
  Result<SnapshotStatus> take(const std::string& name, const std::string& label);
  /// At every node that answers; says where it stays and why.
  void drop(const backup::SnapshotId& id);

  /// Where `snapshot`, and `older` if not null, can be read. Errors as places_with().
  Result<std::vector<Place>> places(const backup::SnapshotId& snapshot,
                                    const backup::SnapshotId* older) const;

 private:
  struct Copy {
    const Answer* answer;
    const GroupStatus* group;
  };
  template <class Matches>
  std::vector<Copy> copies(Matches matches) const;
  std::vector<Copy> copies() const;
  Status find_id();

  Context& context_;
  const std::string name_, nbd_;
  std::vector<Answer> answers_;
  std::string id_;
};

}  // namespace tandem::ctl
