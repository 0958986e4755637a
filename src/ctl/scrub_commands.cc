// Scrubs: every node reads and checks its own copy.
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/integrity_text.h"

namespace tandem::ctl {
namespace {

/// The answers of nodes that hold the group, with its status.
std::vector<std::pair<const Answer*, const GroupStatus*>> holders(
    const std::vector<Answer>& answers, const std::string& group) {
  std::vector<std::pair<const Answer*, const GroupStatus*>> out;
  for (const auto& answer : answers) {
    if (const auto* found = find_group(answer.status, group)) out.emplace_back(&answer, found);
  }
  return out;
}

/// Does `call` at each node named that holds the group. One failure does not keep the others from
/// it, and is the command's.
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

}  // namespace

Exit run_scrub_start(Context& context, const std::string& group) {
  return at_holders(
      context, group, [&](rpc::ControlClient& client) { return client.start_scrub(group); },
      "A scrub of group " + group + " began");
}

Exit run_scrub_stop(Context& context, const std::string& group) {
  return at_holders(
      context, group, [&](rpc::ControlClient& client) { return client.stop_scrub(group); },
      "The scrub of group " + group + " ends");
}

Exit run_scrub_status(Context& context, const std::string& group) {
  const auto answers = ask(context, context.settings.nodes, true, context.settings.timeout);
  const auto there = holders(answers, group);
  if (there.empty() && answered(answers)) return fail(context, no_such_group(group));
  Json list = Json::array();
  for (const auto& [answer, status] : there) {
    Json entry = {{"node", answer->status->node}, {"group", group}};
    entry.update(to_json(status->scrub));
    list.push_back(std::move(entry));
    if (!context.settings.json)
      context.out << scrub_text(answer->status->node, answer->status->now, *status);
  }
  if (context.settings.json) context.out << json_text({{"scrubs", std::move(list)}});
  warn_silent(context, answers);
  return listing_end(context, answers);
}

}  // namespace tandem::ctl
