// The history of a group: how far back each node can go, and what was written when.
#include <iostream>
#include <nlohmann/json.hpp>

#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/history_text.h"
#include "ctl/moment.h"

namespace tandem::ctl {
namespace {

/// The limits of what is shown, as times; kInvalid when one is not a time.
Status narrow(HistoryView& view, const HistoryOptions& options) {
  for (const auto& [text, limit] :
       {std::pair(&options.from, &view.from), std::pair(&options.to, &view.to)}) {
    if (text->empty()) continue;
    const auto moment = parse_moment(*text, view.history.now);
    if (!moment) return moment.error();
    if (!moment->time)
      return Error{ErrorCode::kInvalid, "--from and --to are times, not records: " + *text};
    *limit = *moment->time;
  }
  return ok();
}

}  // namespace

Exit run_history(Context& context, const HistoryOptions& options) {
  const auto answers = ask(context, context.settings.nodes, true, context.settings.timeout);
  Json list = Json::array();
  bool found = false;
  for (const auto& answer : answers) {
    const auto* group = find_group(answer.status, options.group);
    if (group == nullptr) continue;
    const auto client = context.connect(answer.address, context.settings.timeout);
    if (!client) return fail(context, client.error(), false);
    auto history = (*client)->history(options.group);
    if (!history) return fail(context, history.error(), (*client)->reached());
    HistoryView view{.node = answer.status->node, .group = group, .history = std::move(*history)};
    if (const auto narrowed = narrow(view, options); !narrowed)
      return fail(context, narrowed.error(), false);
    if (context.settings.json) {
      list.push_back(to_json(view));
    } else {
      context.out << (found ? "\n" : "") << history_text(view);
    }
    found = true;
  }
  if (!found && answered(answers)) return fail(context, no_such_group(options.group));
  if (context.settings.json && found) context.out << json_text({{"histories", std::move(list)}});
  warn_silent(context, answers);
  return listing_end(context, answers);
}

}  // namespace tandem::ctl
