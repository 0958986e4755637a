#include "rpc/latency_translation.h"

#include "rpc/translation.h"
#include "rpc/wire.h"

namespace tandem::rpc {

using wire::utf8;

namespace {

void to_proto(const StageLatency& stage, v1::StageLatency* out) {
  out->set_operation(utf8(stage.operation));
  out->set_stage(utf8(stage.stage));
  out->set_count(stage.count);
  out->set_sum_ns(stage.sum_ns);
  out->set_max_ns(stage.max_ns);
  for (const auto& bucket : stage.buckets) {
    auto* to = out->add_buckets();
    to->set_from_ns(bucket.from_ns);
    to->set_below_ns(bucket.below_ns);
    to->set_count(bucket.count);
  }
}

StageLatency from_proto(const v1::StageLatency& in) {
  StageLatency stage{in.operation(), in.stage(), in.count(), in.sum_ns(), in.max_ns(), {}};
  for (const auto& bucket : in.buckets())
    stage.buckets.push_back({bucket.from_ns(), bucket.below_ns(), bucket.count()});
  return stage;
}

}  // namespace

void to_proto(const NodeLatency& latency, v1::NodeLatency* out) {
  out->set_node(utf8(latency.node));
  out->set_now_utc_ns(latency.now.value);
  for (const auto& group : latency.groups) {
    auto* to = out->add_groups();
    to->set_group(utf8(group.group));
    to->set_role(rpc::to_proto(group.role));
    to->set_since_utc_ns(group.since.value);
    for (const auto& stage : group.stages) to_proto(stage, to->add_stages());
    for (const auto& sizes : group.batches) {
      auto* batch = to->add_batches();
      batch->set_batch(utf8(sizes.batch));
      batch->set_batches(sizes.batches);
      batch->set_records(sizes.records);
    }
  }
}

Result<NodeLatency> from_proto(const v1::NodeLatency& in) {
  NodeLatency latency{.node = in.node(), .now = UtcNs(in.now_utc_ns()), .groups = {}};
  for (const auto& from : in.groups()) {
    const auto role = rpc::from_proto(from.role());
    if (!role) {
      return Error{ErrorCode::kUnsupported, "node " + in.node() + " has group " + from.group() +
                                                " in a role that this release does not know"};
    }
    GroupLatency group;
    group.group = from.group();
    group.role = *role;
    group.since = UtcNs(from.since_utc_ns());
    for (const auto& stage : from.stages()) group.stages.push_back(from_proto(stage));
    for (const auto& sizes : from.batches())
      group.batches.push_back({sizes.batch(), sizes.batches(), sizes.records()});
    latency.groups.push_back(std::move(group));
  }
  return latency;
}

}  // namespace tandem::rpc
