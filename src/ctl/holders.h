// What is asked of each node that is named and holds a group: its copy there is its own matter.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ctl/answers.h"

namespace tandem::ctl {

/// The answers of nodes that hold the group, with its status.
std::vector<std::pair<const Answer*, const GroupStatus*>> holders(
    const std::vector<Answer>& answers, const std::string& group);

/// Does `call` at each node named that holds the group, and says that it is `done` there. One
/// failure does not keep the others from it, and is the command's.
Exit at_holders(Context& context, const std::string& group,
                const std::function<Status(rpc::ControlClient&)>& call, const std::string& done);

}  // namespace tandem::ctl
