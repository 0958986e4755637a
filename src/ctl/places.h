// Where a volume, or what a snapshot keeps of it, can be read from here.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ctl/answers.h"
#include "ctl/nbd_export.h"

namespace tandem::ctl {

/// The nodes that may be asked and read. `nbd`, if not "", is where the exports of the single node
/// that the operator named are; else the mirrors are asked, too. kInvalid: several were named.
Result<std::vector<Answer>> ask_readers(Context& context, const std::string& nbd);

/// A node whose exports can be reached. Points into the answers.
struct Place {
  const NodeStatus* node = nullptr;
  const GroupStatus* group = nullptr;
  NbdAddress nbd;
  std::string service;
};
using Holds = std::function<bool(const GroupStatus&)>;

/// Those whose group `holds` what is wanted, best first: on this machine, then the mirrors, which
/// have less to do, then the primary. kNotFound: none that answers, `what` says of what;
/// kUnavailable: none of them can be reached.
Result<std::vector<Place>> places_with(const std::vector<Answer>& answers, const std::string& nbd,
                                       const std::string& what, const Holds& holds);

const SnapshotStatus* find_snapshot(const GroupStatus& group, const std::string& name);
bool has_volume(const SnapshotStatus& snapshot, const std::string& volume);

/// An export at the first of `places` that can be reached now; what to open there is told for each.
struct Wanted {
  std::string name, since;
};
struct Opened {
  const Place* place = nullptr;
  std::unique_ptr<Export> exported;
};
Result<Opened> open_at_one(const std::vector<Place>& places, const Settings& settings,
                           const std::function<Wanted(const Place&)>& wanted);

}  // namespace tandem::ctl
