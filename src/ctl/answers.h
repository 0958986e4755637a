// What lists and summaries work with: the status of several nodes, asked at once.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "ctl/context.h"

namespace tandem::ctl {

struct Answer {
  std::string address;
  bool named = true;  // by the operator; else by another node
  Result<NodeStatus> status = Error{ErrorCode::kUnavailable, "not asked"};
};

/// Asks all of `addresses` at once.
std::vector<Answer> ask(Context& context, const std::vector<std::string>& addresses, bool named,
                        std::chrono::milliseconds timeout);
/// The nodes of the command line, and the mirrors that they name.
std::vector<Answer> collect(Context& context);

/// Null: that node did not answer, or has no such group.
const GroupStatus* find_group(const Result<NodeStatus>& node, const std::string& group);
Error no_such_group(const std::string& group);

bool answered(const std::vector<Answer>& answers);
std::vector<std::string> silent_nodes(const std::vector<Answer>& answers);
/// The exit code of a listing: bad only when none of the named nodes answered.
Exit listing_end(Context& context, const std::vector<Answer>& answers);
/// Says which nodes are missing from a listing.
void warn_silent(Context& context, const std::vector<Answer>& answers);

}  // namespace tandem::ctl
