// Points of a history that one command needs, and that go with it.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ctl/context.h"
#include "ctl/interruption.h"

namespace tandem::ctl {

/// Deletes a state that was kept for a command alone. What stays is told.
void let_go(Context& context, rpc::ControlClient& client, const std::string& group,
            const std::string& name);

/// Lets all of its points go at the end of the command, whichever that is, and before an
/// interruption ends it; only a killed command leaves them behind. What stays is told.
class TemporaryPoints {
 public:
  /// `purpose`: in their names and labels.
  TemporaryPoints(Context& context, std::string purpose)
      : context_(context), purpose_(std::move(purpose)) {}
  ~TemporaryPoints() { let_all_go(); }
  TemporaryPoints(const TemporaryPoints&) = delete;
  TemporaryPoints& operator=(const TemporaryPoints&) = delete;

  /// At the node whose service is at `address`; name and label of `request` are filled in. Errors:
  /// as of Control::keep_point().
  Result<SnapshotStatus> keep(const std::string& address, KeepPoint request);
  void let_all_go();
  /// The process is about to end, and nothing more is to be said.
  bool interrupted() const { return interruption_ && interruption_->came(); }

 private:
  struct Kept {
    std::string address, group, name;
    bool sure = false;  // else the node has not said whether it is there
  };

  Context& context_;
  const std::string purpose_;
  std::mutex mutex_;  // over kept_, and over the calls that make and delete them
  std::vector<Kept> kept_;
  std::size_t names_ = 0;
  std::optional<Interruption> interruption_;
};

}  // namespace tandem::ctl
