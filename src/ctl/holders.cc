#include "ctl/holders.h"

#include <nlohmann/json.hpp>
#include <ostream>

#include "ctl/json.h"

namespace tandem::ctl {

std::vector<std::pair<const Answer*, const GroupStatus*>> holders(
    const std::vector<Answer>& answers, const std::string& group) {
  std::vector<std::pair<const Answer*, const GroupStatus*>> out;
  for (const auto& answer : answers) {
    if (const auto* found = find_group(answer.status, group)) out.emplace_back(&answer, found);
  }
  return out;
}

Exit at_holders(Context& context, const std::string& group,
                const std::function<Status(rpc::ControlClient&)>& call, const std::string& done) {
  const auto answers = ask(context, context.settings.nodes, true, context.settings.timeout);
  const auto there = holders(answers, group);
  if (there.empty() && answered(answers)) return fail(context, no_such_group(group));
  Exit end = listing_end(context, answers);
  Json at = Json::array();
  for (const auto& [answer, status] : there) {
    const auto client = context.connect(answer->address, context.settings.timeout);
    const Status result = client ? call(**client) : Status(client.error());
    if (!result) {
      end = fail(context, result.error(), client && (*client)->reached());
      continue;
    }
    at.push_back(answer->address);
    if (!context.settings.json)
      context.out << done << " on node " << answer->status->node << ".\n" << std::flush;
  }
  if (context.settings.json && end == Exit::kOk)
    context.out << json_text({{"ok", true}, {"nodes", std::move(at)}});
  warn_silent(context, answers);
  return end;
}

}  // namespace tandem::ctl
