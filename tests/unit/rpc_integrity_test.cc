// What is said of a copy's soundness, between contract and protobuf: no field is forgotten.
#include <gtest/gtest.h>

#include "rpc/integrity_translation.h"
#include "rpc/latency_translation.h"

namespace tandem::rpc {
namespace {

/// A translation that forgets a field would forget it on both ways: so all of a full message's
/// fields must be set.
void expect_full(const google::protobuf::Message& message) {
  std::vector<const google::protobuf::FieldDescriptor*> set;
  message.GetReflection()->ListFields(message, &set);
  EXPECT_EQ(static_cast<int>(set.size()), message.GetDescriptor()->field_count())
      << message.GetDescriptor()->name();
}

template <class Proto, class Status>
Proto there_and_back(const Status& status) {
  Proto sent, received;
  to_proto(status, &sent);
  to_proto(from_proto(sent), &received);
  EXPECT_EQ(sent.DebugString(), received.DebugString());
  expect_full(sent);
  return sent;
}

TEST(Integrity, DamageSurvivesTheJourney) {
  there_and_back<v1::DamageStatus>(
      DamageStatus{52, 53, 54, 55, UtcNs(56), "v", 57, "repaired from a peer"});
}

TEST(Integrity, AScrubSurvivesTheJourney) {
  ScrubStatus scrub{.state = "running", .started = UtcNs(58), .ended = UtcNs(59)};
  scrub.blocks_total = 60;
  scrub.blocks_read = 61;
  scrub.nodes_read = 62;
  scrub.bad_blocks = 63;
  scrub.repaired_blocks = 64;
  scrub.bad_map_nodes = 65;
  scrub.repaired_map_nodes = 66;
  scrub.findings = {{"v", "s", 67, "lost"}, {"w", "", 68, "given back"}};
  const auto sent = there_and_back<v1::ScrubStatus>(scrub);
  expect_full(sent.findings(0));
  EXPECT_EQ(from_proto(sent).findings[1].outcome, "given back");
  EXPECT_EQ(from_proto(sent).repaired_map_nodes, 66u);
}

TEST(Integrity, AnAgreementSurvivesTheJourney) {
  const auto sent =
      there_and_back<v1::AgreementStatus>(AgreementStatus{Lsn(48), UtcNs(49), "other records"});
  EXPECT_EQ(from_proto(sent).through, Lsn(48));
}

TEST(Latency, SurvivesTheJourney) {
  NodeLatency full{"alpha", UtcNs(1), {GroupLatency{}}};
  auto& group = full.groups[0];
  group.group = "g";
  group.role = Role::kMirror;
  group.since = UtcNs(2);
  group.stages = {{"write", "queue", 3, 4, 5, {{6, 7, 8}, {9, 10, 11}}}, {"read", "", 0, 0, 0, {}}};
  group.batches = {{"page", 12, 13}};
  v1::NodeLatency sent;
  to_proto(full, &sent);
  expect_full(sent);
  expect_full(sent.groups(0));
  expect_full(sent.groups(0).stages(0));
  expect_full(sent.groups(0).stages(0).buckets(0));
  expect_full(sent.groups(0).batches(0));
  const auto got = from_proto(sent);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->node, "alpha");
  EXPECT_EQ(got->now, UtcNs(1));
  EXPECT_EQ(got->groups[0].role, Role::kMirror);
  EXPECT_EQ(got->groups[0].since, UtcNs(2));
  EXPECT_EQ(got->groups[0].stages, group.stages);
  EXPECT_EQ(got->groups[0].batches, group.batches);
  sent.mutable_groups(0)->set_role(static_cast<v1::Role>(99));
  EXPECT_EQ(from_proto(sent).error().code, ErrorCode::kUnsupported);
}

TEST(Integrity, ContentSurvivesTheJourney) {
  ContentReport full;
  full.next = 12;
  full.end = true;
  full.pieces = {{3, Digest(0xfedcba9876543210), 4, true}, {11, Digest(0), 5, false}};
  full.blocks = {{768, Lsn(6), 7}, {769, Lsn(8), 9}};
  full.bad_blocks = 10;
  full.repaired_blocks = 9;
  full.findings = {{"v", "s", 4096, "given back"}};
  const auto sent = there_and_back<v1::CheckContentResponse>(full);
  expect_full(sent.blocks(0));
  const ContentReport got = from_proto(sent);
  EXPECT_EQ(got.pieces[0].digest, Digest(0xfedcba9876543210));
  EXPECT_EQ(got.pieces[0].blocks, 4u);
  EXPECT_EQ(got.pieces[0].readable, true);
  EXPECT_EQ(got.pieces[1].readable, false);
  EXPECT_EQ(got.blocks[1].lsn, Lsn(8));
  EXPECT_EQ(got.findings[0].byte, 4096u);
}

TEST(Integrity, AQuestionForContentSurvivesTheJourney) {
  const ContentRequest full{"g", "s", "v", 3, true, true};
  expect_full(to_proto(full));
  const ContentRequest got = from_proto(to_proto(full));
  EXPECT_EQ(got.group + got.snapshot + got.volume, "gsv");
  EXPECT_EQ(got.first, 3u);
  EXPECT_TRUE(got.read && got.detail);
  EXPECT_FALSE(from_proto(to_proto(ContentRequest{"g", "s", "v", 3, false, false})).read);
}

}  // namespace
}  // namespace tandem::rpc
