#include "replication/link_router.h"

#include <spdlog/fmt/fmt.h>

#include <utility>

#include "replication/group_replication.h"
#include "replication/handshake.h"
#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::replication {
namespace {

constexpr std::size_t kGuestsMax = 64;

}  // namespace

LinkRouter::LinkRouter(Runtime runtime, ReplicationOptions options, RouterCallbacks callbacks)
    : runtime_(runtime),
      options_(options),
      callbacks_(std::move(callbacks)),
      ticker_(runtime, tick_period(options), [this] { tick(); }) {}

LinkRouter::~LinkRouter() { CHECK(guests_.empty() && running_.held() == 0); }

void LinkRouter::accept(std::unique_ptr<Link> link) {
  if (stopping_ || guests_.size() >= kGuestsMax) {
    link->close();
    return;
  }
  ticker_.start();
  spawn(welcome(std::move(link)));
}

Task<void> LinkRouter::welcome(std::unique_ptr<Link> link) {
  auto holder = running_.hold();
  guests_.push_back({link.get(), {}});
  set_deadline(link.get(), options_.handshake_timeout);
  auto received = co_await link->receive();
  const bool is_hello = received && std::holds_alternative<message::Hello>(*received);
  if (stopping_ || !is_hello) {
    if (!stopping_) {
      log_event(Level::kWarn, "stream.rejected", "peer=\"{}\" reason=\"{}\"", link->peer(),
                received ? "its first message is not a Hello" : received.error().message);
    }
    forget(link.get());
    co_return;
  }
  message::Hello hello = std::get<message::Hello>(std::move(*received));
  GroupReplication* group = callbacks_.find(hello.identity.group);
  std::string reason = "it is unknown on this node";
  if (group == nullptr && callbacks_.create && hello.role != Role::kFenced &&
      common_version(options_.versions, hello.versions)) {
    auto lock = co_await create_lock_.lock();
    group = callbacks_.find(hello.identity.group);
    if (group == nullptr && !stopping_) {
      auto created = co_await callbacks_.create(hello);
      if (created) {
        group = *created;
      } else {
        reason = created.error().message;
      }
    }
  }
  if (stopping_ || group == nullptr) {
    const bool understood = common_version(options_.versions, hello.versions).has_value();
    if (!understood) {
      reason = version_mismatch("that was dialled", options_.versions, hello.identity.node,
                                hello.versions);
    }
    auto leaving =
        turn_away(std::move(link),
                  message::Refuse{understood ? ErrorCode::kNotFound : ErrorCode::kUnsupported,
                                  fmt::format("group {} ({}): {}", hello.identity.name,
                                              hello.identity.group.text(), reason),
                                  {}});
    co_await std::move(leaving);
    co_return;
  }
  forget(link.get());
  group->accept(std::move(link), std::move(hello));
}

Task<void> LinkRouter::turn_away(std::unique_ptr<Link> link, message::Refuse refusal) {
  if (!stopping_) {
    log_event(Level::kWarn, "stream.refused", "peer=\"{}\" reason=\"{}\"", link->peer(),
              refusal.reason);
    link->send(Message(std::move(refusal)));
    set_deadline(link.get(), options_.parting_time);
    while (true) {
      auto received = co_await link->receive();
      if (!received) break;
    }
  }
  forget(link.get());
}

void LinkRouter::set_deadline(Link* link, Nanoseconds in) {
  for (Guest& guest : guests_)
    if (guest.link == link) guest.deadline = runtime_.clock.monotonic() + in;
}

void LinkRouter::forget(Link* link) {
  std::erase_if(guests_, [&](const Guest& guest) { return guest.link == link; });
}

void LinkRouter::tick() {
  const auto now = runtime_.clock.monotonic();
  for (const Guest& guest : guests_)
    if (now >= guest.deadline) guest.link->close();
}

Task<void> LinkRouter::stop() {
  if (!stopping_) {
    stopping_ = true;
    ticker_.stop();
    for (const Guest& guest : guests_) guest.link->close();
  }
  co_await running_.close();
}

}  // namespace tandem::replication
