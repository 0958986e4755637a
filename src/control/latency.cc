// Where the time goes, as the store and the replication of each group have counted it.
#include "control/node_control.h"

namespace tandem::control {

Task<Result<NodeLatency>> NodeControl::latency(std::string group) {
  auto holder = work_.hold();
  NodeLatency latency;
  latency.node = options_.node;
  latency.now = runtime_.clock.utc();
  if (!group.empty()) {
    const auto runner = find_group(group);
    if (!runner) co_return runner.error();
    latency.groups.push_back((*runner)->group().latency());
    co_return latency;
  }
  for (const auto& [name, runner] : runners_) latency.groups.push_back(runner->group().latency());
  co_return latency;
}

}  // namespace tandem::control
