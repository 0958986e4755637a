// tandem mirror seed: plays the primary as of a point of a backup, so that a mirror begins as that
// point. The node installs it as it does any full copy: whole, or not at all. Decision 0018.
#include <chrono>
#include <condition_variable>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "backup/seed.h"
#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/json.h"
#include "ctl/progress.h"

namespace tandem::ctl {
namespace {

constexpr auto kLook = std::chrono::milliseconds(100);
/// A mirror gives a silent stream up; reading a slow disk can take longer than that.
constexpr auto kQuiet = std::chrono::seconds(1);

/// Keeps the stream from being silent for as long as it lives, within the image: by blocks that are
/// none. Not by heartbeats: a mirror would take the point for where its primary is now.
class KeepAlive {
 public:
  KeepAlive(rpc::StreamClient& stream, VolumeId volume)
      : stream_(stream), volume_(volume), thread_([this] { run(); }) {}
  ~KeepAlive() {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, kQuiet, [this] { return done_; })) {
      lock.unlock();
      // A failure shows to the sender of the image.
      (void)stream_.send(Message(message::ImageBlocks{.volume = volume_}));
      lock.lock();
    }
  }

  rpc::StreamClient& stream_;
  const VolumeId volume_;
  std::mutex mutex_;  // guards done_
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_;
};

/// The same of every run with the same point: a new stream replaces one that hangs.
Uuid pool_of(const backup::Point& point) {
  const auto half = [&](std::size_t at) {
    return std::stoull(point.manifest_sha256.substr(at, 16), nullptr, 16);
  };
  return Uuid::from_random(half(0), half(16));
}

class Seeding {
 public:
  Seeding(Context& context, const backup::Point& point, backup::SeedPlan plan)
      : context_(context), point_(point), plan_(std::move(plan)) {}

  Exit run() {
    if (context_.settings.nodes.size() != 1)
      return fail_usage(context_, "say with one --node which node is to have the mirror");
    const auto& address = context_.settings.nodes.front();
    const auto client = context_.connect(address, context_.settings.timeout);
    if (!client) return fail(context_, client.error(), false);
    const auto node = (*client)->status();
    if (!node) return fail(context_, node.error(), (*client)->reached());
    if (const auto may = may_have(*node); !may) return fail(context_, may.error());
    auto stream = context_.open_stream(address, patient(context_.settings));
    if (!stream) return fail(context_, stream.error(), false);
    stream_ = std::move(*stream);
    const auto sent = send(node->node);
    bar_.reset();
    if (!sent) {
      const auto& why = sent.error();
      return fail(context_, {why.code, why.message + "; nothing was installed at node " +
                                           node->node + ", the same command begins anew"});
    }
    report(*node);
    return Exit::kOk;
  }

 private:
  const std::string& group() const { return point_.manifest->group; }

  /// A copy that is there already is the operator's to delete.
  Status may_have(const NodeStatus& node) const {
    for (const auto& copy : node.groups) {
      const bool is_empty = copy.role == Role::kMirror && copy.head.lsn == Lsn{0};
      if (copy.id == plan_.group && !is_empty)
        return Error{ErrorCode::kExists,
                     "node " + node.node + " has a copy of group " + copy.name + " already (" +
                         to_string(copy.role) + ", " + point_text(copy.head) +
                         "): it needs no seed; to give that copy up, 'tandem group delete " +
                         copy.name + "' there first"};
      if (copy.id != plan_.group && copy.name == group())
        return Error{ErrorCode::kExists, "node " + node.node + " has another group of the name " +
                                             copy.name + " (" + copy.id.text() +
                                             "; the backup is of " + plan_.group.text() + ")"};
    }
    return ok();
  }

  Status send(const std::string& node) {
    auto reader = backup::SeedReader::open(plan_, [this](std::uint64_t n) { bar_->add(n); });
    if (!reader) return Error(std::move(reader.error()));
    TANDEM_TRY(greet(node));
    TANDEM_TRY(pass(message::Start{.after = Lsn{0}, .from_image = true}));
    bar_.emplace(context_, group(), plan_.volume_bytes);
    TANDEM_TRY(pass(backup::image_of(plan_)));
    if (!plan_.seed.volumes.empty()) TANDEM_TRY(send_blocks(**reader));
    // Only now every byte of the backup is known to be right.
    TANDEM_TRY(pass(message::ImageEnd{plan_.seed.point}));
    while (durable_ < plan_.seed.point.lsn) TANDEM_TRY(look(kLook));
    return ok();
  }

  Status send_blocks(backup::SeedReader& reader) {
    const KeepAlive keep_alive(*stream_, plan_.seed.volumes.front().id);
    for (;;) {
      auto blocks = reader.next();
      if (!blocks) return Error(std::move(blocks.error()));
      if (blocks->entries.empty()) return ok();
      blocks_sent_ += blocks->entries.size();
      TANDEM_TRY(pass(std::move(*blocks)));
      TANDEM_TRY(look(std::chrono::milliseconds(0)));
    }
  }

  Status greet(const std::string& node) {
    message::Hello hello;
    hello.identity = {.group = plan_.group,
                      .name = group(),
                      .pool = pool_of(point_),
                      .node = "backup-of-" + point_.manifest->node};
    hello.head = plan_.seed.point;
    hello.history = plan_.seed.history;
    TANDEM_TRY(pass(hello));
    const auto end = std::chrono::steady_clock::now() + patient(context_.settings);
    for (;;) {
      auto answer = stream_->receive(kLook);
      if (!answer) return explained(answer.error());
      if (*answer && std::holds_alternative<message::Welcome>(**answer)) {
        const auto& welcome = std::get<message::Welcome>(**answer);
        if (welcome.head.lsn == Lsn{0}) return ok();
        return Error{ErrorCode::kExists, "node " + node + " has a copy of the group already"};
      }
      if (*answer) TANDEM_TRY(heed(**answer));
      if (std::chrono::steady_clock::now() > end)
        return Error{ErrorCode::kUnavailable, "node " + node + " does not answer the stream"};
    }
  }

  /// What the node says of a failure comes in front of the stream's end.
  Status pass(Message message) {
    const auto sent = stream_->send(std::move(message));
    if (sent) return ok();
    for (;;) {
      const auto came = stream_->receive(std::chrono::milliseconds(0));
      if (!came || !*came) return explained(sent.error());
      TANDEM_TRY(heed(**came));
    }
  }

  Status look(std::chrono::milliseconds wait) {
    for (;;) {
      const auto came = stream_->receive(wait);
      if (!came) return explained(came.error());
      if (!*came) return ok();
      TANDEM_TRY(heed(**came));
      wait = std::chrono::milliseconds(0);
    }
  }

  Status heed(const Message& message) {
    if (const auto* ack = std::get_if<message::Ack>(&message)) durable_ = ack->durable;
    if (const auto* refusal = std::get_if<message::Refuse>(&message))
      return Error{refusal->code, refusal->reason};
    return ok();
  }

  /// An operator's certificate is turned away before anything is read.
  static Error explained(const Error& error) {
    if (error.code != ErrorCode::kRefused) return error;
    return {error.code, error.message +
                            ": give --certificate and --key of the node, which [service] of its "
                            "configuration names"};
  }

  void report(const NodeStatus& node) const {
    const auto& at = plan_.seed.point;
    if (context_.settings.json) {
      context_.out << json_text({{"ok", true},
                                 {"group", group()},
                                 {"group_id", plan_.group.text()},
                                 {"node", node.node},
                                 {"point", point_.number},
                                 {"timeline", at.timeline.value},
                                 {"lsn", at.lsn.value},
                                 {"data_bytes", blocks_sent_ * kBlockBytes}});
      return;
    }
    context_.out << "Node " << node.node << " has group " << group() << " now as of point "
                 << point_.number << " (" << point_text(at) << "), "
                 << size_text(blocks_sent_ * kBlockBytes)
                 << " of data, as a mirror.\nAt the primary: tandem mirror add " << group() << " "
                 << context_.settings.nodes.front()
                 << "\nIt sends what changed since, as long as it keeps snapshot "
                 << point_.manifest->snapshot.name << " or the log from there on.\n";
  }

  Context& context_;
  const backup::Point& point_;
  const backup::SeedPlan plan_;
  Stream stream_;
  std::optional<ProgressBar> bar_;
  std::uint64_t blocks_sent_ = 0;
  Lsn durable_;
};

}  // namespace

Exit run_mirror_seed(Context& context, const SeedRequest& request) {
  const auto repository = backup::Repository::open(request.directory, false);
  if (!repository) return fail(context, repository.error());
  const auto point = repository->find(request.number);
  if (!point) return fail(context, point.error());
  auto plan = backup::plan_seed(*repository, **point);
  if (!plan) return fail(context, plan.error());
  return Seeding(context, **point, std::move(*plan)).run();
}

}  // namespace tandem::ctl
