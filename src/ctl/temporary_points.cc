#include "ctl/temporary_points.h"

#include <chrono>
#include <iostream>
#include <utility>

namespace tandem::ctl {
namespace {

void say_it_stays(Context& context, const std::string& group, const std::string& name,
                  const std::string& why) {
  context.err << "tandem: point " << name << " of group " << group
              << " was kept for this and stays: " << why << "\n";
}

}  // namespace

void let_go(Context& context, rpc::ControlClient& client, const std::string& group,
            const std::string& name) {
  const auto done = client.delete_snapshot(group, name);
  if (!done) say_it_stays(context, group, name, done.error().message);
}

Result<SnapshotStatus> TemporaryPoints::keep(const std::string& address, KeepPoint request) {
  if (!interruption_) interruption_.emplace([this] { let_all_go(); });
  const std::lock_guard lock(mutex_);
  if (interrupted()) return Error{ErrorCode::kUnavailable, "interrupted"};
  // Named here, so that it can be let go also when its answer is lost.
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  request.name = purpose_ + "-" + std::to_string(now / std::chrono::nanoseconds(1)) + "-" +
                 std::to_string(++names_);
  request.label = "for a tandem " + purpose_ + " only";
  const auto client = context_.connect(address, patient(context_.settings));
  if (!client) return client.error();
  kept_.push_back({address, request.group, request.name, false});
  auto made = (*client)->keep_point(request);
  if (made) {
    kept_.back().sure = true;
  } else if ((*client)->reached()) {
    kept_.pop_back();
  }
  return made;
}

void TemporaryPoints::let_all_go() {
  const std::lock_guard lock(mutex_);
  for (const auto& [address, group, name, sure] : std::exchange(kept_, {})) {
    const auto client = context_.connect(address, patient(context_.settings));
    const auto done = client ? (*client)->delete_snapshot(group, name) : Status(client.error());
    if (done) continue;
    if (sure || done.error().code != ErrorCode::kNotFound)
      say_it_stays(context_, group, name, done.error().message);
  }
}

}  // namespace tandem::ctl
