// What all nodes together say about one group, in one plain sentence or two.
#pragma once

#include <string>
#include <vector>

#include "tandem/control.h"

namespace tandem::ctl {

/// One node's view of the group.
struct View {
  std::string node;
  UtcNs now;  // that node's clock when it answered
  const GroupStatus* group;
};

struct Verdict {
  bool good = false;  // served, and the mirror has everything or follows
  std::string text;
};

/// `views`: of every node that answered and has the group; at least one. `silent`: nodes that did
/// not answer.
Verdict judge(const std::vector<View>& views, const std::vector<std::string>& silent);

/// Of a node's pool: how full it is, and how long the rest lasts.
Verdict judge(const std::string& node, const PoolStatus& pool);

/// What one mirror lacks: "lacks nothing" or "lacks 3 records (12 KiB of data in 2 blocks)".
std::string missing_text(const SlotStatus& slot);

}  // namespace tandem::ctl
