// 'tandem latency': where the time of writes, flushes and reads goes, stage by stage, on each node.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/json.h"

namespace tandem::ctl {
namespace {

struct Reading {
  std::string node;
  UtcNs now;
  GroupLatency counts;
};

/// A microsecond with one decimal.
std::string us_text(double ns) {
  char out[32];
  std::snprintf(out, sizeof out, "%.1f", ns / 1000);
  return out;
}

/// The first error is kept in `failed`; the others' readings are of use all the same.
std::vector<Reading> read_all(Context& context, const std::vector<Answer>& answers,
                              const std::string& group, std::optional<Error>& failed) {
  std::vector<Reading> readings;
  for (const auto& answer : answers) {
    if (!answer.status) continue;
    if (!group.empty() && find_group(answer.status, group) == nullptr) continue;
    auto client = context.connect(answer.address, context.settings.timeout);
    auto latency = client ? (*client)->latency(group) : client.error();
    if (!latency) {
      if (!failed) failed = latency.error();
      continue;
    }
    for (auto& counts : latency->groups)
      readings.push_back({latency->node, latency->now, std::move(counts)});
  }
  return readings;
}

/// What happened between the two; a group that is only in `after` is new.
void subtract(std::vector<Reading>& after, const std::vector<Reading>& before) {
  for (auto& reading : after) {
    for (const auto& was : before) {
      if (was.node != reading.node || was.counts.group != reading.counts.group) continue;
      reading.counts = std::move(reading.counts) - was.counts;
      if (reading.counts.since.value == 0) reading.counts.since = was.now;
    }
  }
}

const StageLatency* whole_of(const GroupLatency& counts, const std::string& operation) {
  for (const auto& stage : counts.stages) {
    if (stage.operation == operation && stage.stage == "whole" && stage.sum_ns != 0) return &stage;
  }
  return nullptr;
}

std::string batches_text(const GroupLatency& counts) {
  std::string text;
  for (const auto& sizes : counts.batches) {
    if (sizes.batches == 0) continue;
    char mean[32];
    std::snprintf(mean, sizeof mean, "%.1f",
                  static_cast<double>(sizes.records) / static_cast<double>(sizes.batches));
    text += (text.empty() ? "" : ", ") + std::string(mean) + " a " +
            (sizes.batch == "page" ? "page" : "batch " + sizes.batch);
  }
  return text.empty() ? "" : " Records: " + text + ".";
}

std::string latency_text(const Reading& reading) {
  const auto& counts = reading.counts;
  const auto ns = reading.now.value - std::min(counts.since.value, reading.now.value);
  std::string out = "Group " + counts.group + " on node " + reading.node + ", " +
                    to_string(counts.role) + ", in " + duration_text(std::chrono::nanoseconds(ns)) +
                    "\n";
  Table table({"  OPERATION", "STAGE", "COUNT", "MEAN", "P50", "P99", "MAX", "SHARE"});
  for (const auto& stage : counts.stages) {
    if (stage.count == 0) continue;
    std::vector<std::string> row = {"  " + stage.operation,
                                    stage.stage,
                                    std::to_string(stage.count),
                                    us_text(stage.mean_ns()),
                                    us_text(stage.quantile_ns(0.5)),
                                    us_text(stage.quantile_ns(0.99)),
                                    us_text(static_cast<double>(stage.max_ns))};
    if (const auto* whole = whole_of(counts, stage.operation)) {
      const double share = static_cast<double>(stage.sum_ns) / static_cast<double>(whole->sum_ns);
      row.push_back(std::to_string(static_cast<int>(100 * share + 0.5)) + " %");
    }
    table.row(std::move(row));
  }
  if (table.empty()) return out + "  nothing was asked of it\n";
  return out + table.text() + "  Times are in microseconds." + batches_text(counts) + "\n";
}

Json to_json(const StageLatency& stage) {
  auto buckets = Json::array();
  for (const auto& b : stage.buckets)
    buckets.push_back({{"from_ns", b.from_ns}, {"below_ns", b.below_ns}, {"count", b.count}});
  return {{"operation", stage.operation},
          {"stage", stage.stage},
          {"count", stage.count},
          {"sum_ns", stage.sum_ns},
          {"max_ns", stage.max_ns},
          {"mean_ns", stage.mean_ns()},
          {"p50_ns", stage.quantile_ns(0.5)},
          {"p99_ns", stage.quantile_ns(0.99)},
          {"buckets", std::move(buckets)}};
}

Json to_json(const Reading& reading) {
  auto stages = Json::array();
  for (const auto& stage : reading.counts.stages) stages.push_back(to_json(stage));
  auto batches = Json::array();
  for (const auto& sizes : reading.counts.batches) {
    batches.push_back(
        {{"batch", sizes.batch}, {"batches", sizes.batches}, {"records", sizes.records}});
  }
  return {{"node", reading.node},
          {"group", reading.counts.group},
          {"role", to_string(reading.counts.role)},
          {"since_utc_ns", reading.counts.since.value},
          {"now_utc_ns", reading.now.value},
          {"stages", std::move(stages)},
          {"batches", std::move(batches)}};
}

}  // namespace

Exit run_latency(Context& context, const std::string& group,
                 std::optional<std::chrono::milliseconds> interval) {
  const auto answers = collect(context);
  const bool found = std::any_of(answers.begin(), answers.end(), [&](const Answer& answer) {
    return find_group(answer.status, group) != nullptr;
  });
  if (!group.empty() && !found && answered(answers)) return fail(context, no_such_group(group));
  std::optional<Error> failed;
  std::vector<Reading> before;
  if (interval) {
    before = read_all(context, answers, group, failed);
    std::this_thread::sleep_for(*interval);
  }
  auto readings = read_all(context, answers, group, failed);
  subtract(readings, before);
  if (readings.empty() && failed) return fail(context, *failed);
  auto list = Json::array();
  std::string text;
  for (const auto& reading : readings) {
    list.push_back(to_json(reading));
    text += (text.empty() ? "" : "\n") + latency_text(reading);
  }
  if (context.settings.json) {
    context.out << json_text({{"latencies", std::move(list)}});
  } else {
    context.out << text;
    if (failed) context.err << "tandem: not shown: " << failed->message << "\n";
  }
  warn_silent(context, answers);
  return listing_end(context, answers);
}

}  // namespace tandem::ctl
