// What tandem/integrity.h has to say, for people and as JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "ctl/json.h"
#include "ctl/verdict.h"
#include "tandem/control.h"

namespace tandem::ctl {

/// Members of a group's JSON.
Json integrity_json(const GroupStatus& group);
Json to_json(const ScrubStatus& scrub);
Json agreement_json(const AgreementStatus& agreement);
/// What 'tandem scrub status' says of one node.
std::string scrub_text(const std::string& node, UtcNs now, const GroupStatus& group);
/// Lines of 'tandem group show': name and value.
std::vector<std::pair<std::string, std::string>> integrity_lines(const View& view);
/// What is wrong with a node's copy, as a sentence of a verdict; "" when nothing is.
std::string integrity_complaint(const View& view);

}  // namespace tandem::ctl
