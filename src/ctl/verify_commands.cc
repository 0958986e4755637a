// Verify: the copies of a group are compared by checksums of one snapshot that all of them have. No
// data moves: each node reads its own and says what it holds, and where two differ, which is older.
#include <algorithm>
#include <future>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/content_compare.h"
#include "ctl/format.h"
#include "ctl/places.h"

namespace tandem::ctl {
namespace {

using Clock = std::chrono::steady_clock;

/// One copy under verification.
struct Copy {
  std::string node, address;
  Client client;
};

class Verification {
 public:
  Verification(Context& context, const VerifyOptions& options)
      : context_(context), options_(options), snapshot_(options.snapshot) {}
  ~Verification() { delete_own_snapshot(); }
  Verification(const Verification&) = delete;
  Verification& operator=(const Verification&) = delete;

  Exit run() {
    Exit exit = find_copies();
    if (exit == Exit::kOk && snapshot_.empty()) exit = make_snapshot();
    if (exit == Exit::kOk) exit = wait_for_snapshot();
    if (exit != Exit::kOk) return exit;
    std::vector<std::string> names;
    for (const auto& copy : copies_) names.push_back(copy.node);
    ContentCompare compare(names);
    for (const auto& volume : volumes_) {
      if (!compare_volume(compare, volume))
        return fail(context_, *error_, error_->code != ErrorCode::kUnavailable);
    }
    delete_own_snapshot();
    return tell(compare);
  }

 private:
  Exit find_copies() {
    answers_ = collect(context_);
    for (const auto& answer : answers_) {
      const auto* group = find_group(answer.status, options_.group);
      if (group == nullptr) continue;
      auto client = context_.connect(answer.address, patient(context_.settings));
      if (!client) return fail(context_, client.error(), false);
      if (group->role == Role::kPrimary) primary_ = copies_.size();
      copies_.push_back({answer.status->node, answer.address, std::move(*client)});
    }
    if (!copies_.empty()) return Exit::kOk;
    const Exit silent = listing_end(context_, answers_);
    if (silent != Exit::kOk) return silent;
    return fail(context_, no_such_group(options_.group));
  }

  /// A state that all copies have, for as long as it takes.
  Exit make_snapshot() {
    if (!primary_) {
      return refuse(context_, "no node that serves group " + options_.group +
                                  " answers, so no common state can be made: name a snapshot that "
                                  "all have with --snapshot");
    }
    auto& at = copies_[*primary_];
    const CreateSnapshot request{
        options_.group,
        "verify-" + std::to_string(std::chrono::system_clock::now().time_since_epoch().count()),
        "made by tandem verify, which deletes it", SnapshotHook::kSkip};
    const auto made = at.client->create_snapshot(request);
    if (!made) return fail(context_, made.error(), at.client->reached());
    snapshot_ = made->name;
    own_ = true;
    return Exit::kOk;
  }

  /// Until every copy has it, and has it at the same record.
  Exit wait_for_snapshot() {
    const auto end = Clock::now() + patient(context_.settings);
    for (;;) {
      std::string missing;
      std::set<Lsn> at;
      volumes_.clear();
      for (const auto& copy : copies_) {
        const auto status = copy.client->status();
        if (!status) return fail(context_, status.error(), copy.client->reached());
        const auto* group = find_group(status, options_.group);
        const auto* snapshot = group == nullptr ? nullptr : find_snapshot(*group, snapshot_);
        if (!snapshot) {
          missing = copy.node;
          continue;
        }
        at.insert(snapshot->lsn);
        lsn_ = snapshot->lsn;
        volumes_ = snapshot->volumes;
      }
      if (at.size() > 1) {
        return refuse(context_, "snapshot " + snapshot_ +
                                    " is not the same state everywhere: the "
                                    "copies have it at different records");
      }
      if (missing.empty()) return Exit::kOk;
      if (!own_ || Clock::now() >= end) {
        return refuse(context_, "node " + missing + " does not have snapshot " + snapshot_ +
                                    (own_ ? " yet; 'tandem status' shows what it lacks"
                                          : "; 'tandem snapshot list' shows what it has"));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }

  /// False: `error_` says which node failed.
  bool compare_volume(ContentCompare& compare, const SnapshotVolume& volume) {
    compare.begin(volume.name);
    std::vector<ContentRequest> next(copies_.size(), {.group = options_.group,
                                                      .snapshot = snapshot_,
                                                      .volume = volume.name,
                                                      .first = 0,
                                                      .read = !options_.quick,
                                                      .detail = false});
    while (!compare.is_done()) {
      const auto began = Clock::now();
      const auto wanted = compare.behind();  // those that are behind the others
      std::vector<ContentRequest> requests;
      for (const auto copy : wanted) {
        next[copy].first = compare.next(copy);
        requests.push_back(next[copy]);
      }
      auto reports = ask_all(wanted, requests);
      if (!reports) return false;
      std::uint64_t blocks = 0;
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        std::uint64_t here = 0;
        for (const auto& piece : (*reports)[i].pieces) here += piece.blocks;
        blocks = std::max(blocks, here);
        compare.take(wanted[i], std::move((*reports)[i]));
      }
      for (const auto piece : compare.settle()) {
        if (!look_closer(compare, next, piece)) return false;
      }
      keep_pace(began, blocks);
    }
    return true;
  }

  /// The blocks of a piece in which the copies differ.
  bool look_closer(ContentCompare& compare, std::vector<ContentRequest> requests,
                   std::uint64_t piece) {
    std::vector<std::size_t> all;
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      requests[i].first = piece;
      requests[i].read = false;
      requests[i].detail = true;
      all.push_back(i);
    }
    auto reports = ask_all(all, requests);
    if (!reports) return false;
    compare.take_detail(*reports);
    return true;
  }

  std::optional<std::vector<ContentReport>> ask_all(const std::vector<std::size_t>& copies,
                                                    const std::vector<ContentRequest>& requests) {
    std::vector<std::future<Result<ContentReport>>> running;
    for (std::size_t i = 0; i < copies.size(); ++i) {
      running.push_back(std::async(std::launch::async, [this, copy = copies[i], &requests, i] {
        return copies_[copy].client->check_content(requests[i]);
      }));
    }
    std::vector<ContentReport> reports;
    for (std::size_t i = 0; i < running.size(); ++i) {
      auto report = running[i].get();
      if (report && (report->end || report->next > requests[i].first)) {
        reports.push_back(std::move(*report));
      } else if (report) {
        error_ = Error{ErrorCode::kInvalid, "node " + copies_[copies[i]].node + " gets no further"};
      } else {
        error_ = Error{report.error().code,
                       "node " + copies_[copies[i]].node + ": " + report.error().message};
      }
    }
    if (error_) return std::nullopt;
    return reports;
  }

  void keep_pace(Clock::time_point began, std::uint64_t blocks) const {
    if (!options_.bytes_per_second || options_.quick) return;
    const double seconds =
        static_cast<double>(blocks * kBlockBytes) / static_cast<double>(*options_.bytes_per_second);
    std::this_thread::sleep_until(began + std::chrono::duration_cast<Clock::duration>(
                                              std::chrono::duration<double>(seconds)));
  }

  void delete_own_snapshot() {
    if (!own_) return;
    own_ = false;
    for (const auto& copy : copies_) {
      const auto deleted = copy.client->delete_snapshot(options_.group, snapshot_);
      if (deleted || deleted.error().code == ErrorCode::kNotFound) continue;
      context_.err << "warning: snapshot " << snapshot_ << " is left on node " << copy.node << " ("
                   << deleted.error().message << "); delete it with 'tandem --node " << copy.address
                   << " snapshot delete " << options_.group << " " << snapshot_ << "'\n";
    }
  }

  Exit tell(const ContentCompare& compare) {
    if (context_.settings.json) {
      Json out = {{"group", options_.group}, {"lsn", lsn_.value}, {"read", !options_.quick}};
      out.update(compare.json());
      context_.out << json_text(out);
    } else {
      context_.out << "Group " << options_.group << " at record " << lsn_.value << ", "
                   << (options_.quick ? "what the maps name, without reading the data"
                                      : "all data read and checked")
                   << ":\n"
                   << compare.text();
      warn_silent(context_, answers_);
    }
    return compare.all_good() ? Exit::kOk : Exit::kAttention;
  }

  Context& context_;
  const VerifyOptions& options_;
  std::vector<Answer> answers_;
  std::vector<Copy> copies_;
  std::optional<std::size_t> primary_;
  std::string snapshot_;
  bool own_ = false;  // made here, and to be deleted
  Lsn lsn_;
  std::vector<SnapshotVolume> volumes_;
  std::optional<Error> error_;
};

}  // namespace

Exit run_verify(Context& context, const VerifyOptions& options) {
  return Verification(context, options).run();
}

}  // namespace tandem::ctl
