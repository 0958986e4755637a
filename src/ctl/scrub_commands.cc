// Scrubs: every node reads and checks its own copy.
#include <iostream>
#include <nlohmann/json.hpp>

#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/holders.h"
#include "ctl/integrity_text.h"

namespace tandem::ctl {
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
