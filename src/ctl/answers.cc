#include "ctl/answers.h"

#include <algorithm>
#include <future>
#include <iostream>

namespace tandem::ctl {
namespace {

/// A mirror that the operator did not name is asked for its own view, but not waited for long.
constexpr std::chrono::milliseconds kPeerTimeout{2000};

/// The addresses of mirrors that nobody named and whose node has not answered under another name.
std::vector<std::string> unasked_mirrors(const std::vector<Answer>& answers) {
  std::vector<std::string> found;
  const auto is_known = [&](const SlotStatus& slot) {
    if (std::find(found.begin(), found.end(), slot.address) != found.end()) return true;
    return std::any_of(answers.begin(), answers.end(), [&](const Answer& a) {
      return a.address == slot.address ||
             (a.status && (a.status->control_address == slot.address ||
                           (!slot.node.empty() && a.status->node == slot.node)));
    });
  };
  for (const auto& answer : answers) {
    if (!answer.status) continue;
    for (const auto& group : answer.status->groups) {
      for (const auto& slot : group.slots) {
        if (!is_known(slot)) found.push_back(slot.address);
      }
    }
  }
  return found;
}

}  // namespace

std::vector<Answer> ask(Context& context, const std::vector<std::string>& addresses, bool named,
                        std::chrono::milliseconds timeout) {
  std::vector<std::future<Answer>> running;
  for (const auto& address : addresses) {
    running.push_back(std::async(std::launch::async, [&context, address, named, timeout] {
      Answer answer{.address = address, .named = named};
      auto client = context.connect(address, timeout);
      if (client) {
        answer.status = (*client)->status();
      } else {
        answer.status = client.error();
      }
      return answer;
    }));
  }
  std::vector<Answer> answers;
  for (auto& one : running) answers.push_back(one.get());
  return answers;
}

const GroupStatus* find_group(const Result<NodeStatus>& node, const std::string& group) {
  if (!node) return nullptr;
  const auto found = std::find_if(node->groups.begin(), node->groups.end(),
                                  [&](const GroupStatus& g) { return g.name == group; });
  return found == node->groups.end() ? nullptr : &*found;
}

Error no_such_group(const std::string& group) {
  return {ErrorCode::kNotFound, "there is no group " + group + "; 'tandem group list' shows all"};
}

bool answered(const std::vector<Answer>& answers) {
  return std::any_of(answers.begin(), answers.end(),
                     [](const Answer& a) { return a.status.has_value(); });
}

std::vector<Answer> collect(Context& context) {
  auto answers = ask(context, context.settings.nodes, true, context.settings.timeout);
  const auto mirrors = unasked_mirrors(answers);
  for (auto& peer :
       ask(context, mirrors, false, std::min(context.settings.timeout, kPeerTimeout))) {
    // The same node under another address (a name and a number, say) is not shown twice.
    const bool twice = std::any_of(answers.begin(), answers.end(), [&](const Answer& a) {
      return a.status && peer.status && a.status->node == peer.status->node &&
             a.status->pool.id == peer.status->pool.id;
    });
    if (!twice) answers.push_back(std::move(peer));
  }
  return answers;
}

std::vector<std::string> silent_nodes(const std::vector<Answer>& answers) {
  std::vector<std::string> silent;
  for (const auto& answer : answers) {
    if (!answer.status) silent.push_back(answer.address);
  }
  return silent;
}

Exit listing_end(Context& context, const std::vector<Answer>& answers) {
  std::optional<Error> error;
  for (const auto& answer : answers) {
    if (answer.named && answer.status) return Exit::kOk;
    if (answer.named && !answer.status && !error) error = answer.status.error();
  }
  return error ? fail(context, *error, false) : Exit::kOk;
}

void warn_silent(Context& context, const std::vector<Answer>& answers) {
  if (context.settings.json || !answered(answers)) return;
  for (const auto& answer : answers) {
    if (!answer.status)
      context.err << "tandem: not answering: " << answer.status.error().message << "\n";
  }
}

}  // namespace tandem::ctl
