// The Control service over real gRPC: every call, every error code, stopping, health, reflection.
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "grpc/health/v1/health.grpc.pb.h"
#include "rpc/address.h"
#include "rpc/control_client.h"
#include "rpc/control_translation.h"
#include "rpc/reflection_service.h"
#include "tests/support/grpc_node.h"
#include "tests/unit/rpc_control_samples.h"

namespace tandem::rpc {
namespace {

using test::ThreadExecutor;

class ControlTest : public testing::Test {
 protected:
  std::unique_ptr<ControlClient> client(std::chrono::milliseconds timeout = 10s) {
    ClientOptions options;
    options.address = node_.address();
    options.tls = false;
    options.timeout = timeout;
    auto made = ControlClient::create(options);
    EXPECT_TRUE(made.has_value());
    return std::move(*made);
  }
  ThreadExecutor executor_;
  TestNode node_{executor_};
};

/// A translation that forgets a field would forget it on both ways: so compare the wire's own text,
/// and count what a full message has.
TEST_F(ControlTest, StatusSurvivesTheJourney) {
  const auto status = full_status();
  executor_.run([&] { node_.control.node = status; });
  const auto got = client()->status();
  ASSERT_TRUE(got.has_value()) << got.error().message;
  v1::NodeStatus sent, received;
  to_proto(status, &sent);
  to_proto(*got, &received);
  EXPECT_EQ(sent.DebugString(), received.DebugString());
  for (const auto* message :
       {static_cast<const google::protobuf::Message*>(&sent),
        static_cast<const google::protobuf::Message*>(&sent.pool()),
        static_cast<const google::protobuf::Message*>(&sent.groups(0)),
        static_cast<const google::protobuf::Message*>(&sent.groups(0).slots(0)),
        static_cast<const google::protobuf::Message*>(&sent.groups(0).upstream()),
        static_cast<const google::protobuf::Message*>(&sent.groups(0).policy()),
        static_cast<const google::protobuf::Message*>(&sent.groups(0).writers()),
        static_cast<const google::protobuf::Message*>(&sent.groups(0).hook()),
        static_cast<const google::protobuf::Message*>(&sent.groups(0).snapshots(0)),
        static_cast<const google::protobuf::Message*>(&sent.groups(0).snapshots(0).volumes(0)),
        static_cast<const google::protobuf::Message*>(&sent.groups(0).clone_of()),
        static_cast<const google::protobuf::Message*>(&sent.groups(0).volumes(0))}) {
    std::vector<const google::protobuf::FieldDescriptor*> set;
    message->GetReflection()->ListFields(*message, &set);
    EXPECT_EQ(static_cast<int>(set.size()), message->GetDescriptor()->field_count())
        << message->GetDescriptor()->name();
  }
  EXPECT_EQ(got->groups[0].slots[0].missing_blocks, 21u);
  EXPECT_EQ(got->groups[0].head, point(9));
  EXPECT_EQ(got->groups[0].settings, status.groups[0].settings);
  EXPECT_EQ(got->groups[0].slots[0].settings, status.groups[0].slots[0].settings);
  EXPECT_EQ(got->groups[0].upstream->primary_head, point(27));
  EXPECT_EQ(got->groups[0].snapshots[0].unique_bytes, 39u);
  EXPECT_EQ(got->groups[0].snapshots[0].volumes[1].size_bytes, 37u);
  EXPECT_EQ(got->groups[0].volumes[1].logical_block_bytes, 512u);
  EXPECT_EQ(got->groups[0].history, status.groups[0].history);
  EXPECT_EQ(got->groups[0].writers.cause, "policy");
  EXPECT_EQ(got->groups[0].writers.since, UtcNs(34));
  EXPECT_EQ(got->groups[0].writers.refused, 35u);
  auto older = sent;
  older.mutable_groups(0)->clear_writers();
  EXPECT_EQ(from_proto(older)->groups[0].writers.state, "answered") << "it does not say";
  EXPECT_FALSE(got->groups[1].upstream.has_value());
  EXPECT_EQ(got->pool.id, status.pool.id);
}

TEST_F(ControlTest, ARoleOfANewerVersionIsNotGuessed) {
  v1::NodeStatus in;
  in.add_groups()->set_role(static_cast<v1::Role>(17));
  const auto got = from_proto(in);
  ASSERT_FALSE(got.has_value());
  EXPECT_EQ(got.error().code, ErrorCode::kUnsupported);
}

void expect_receipt(const Result<Receipt>& got) {
  ASSERT_TRUE(got.has_value()) << got.error().message;
  const auto want = full_receipt();
  EXPECT_EQ(got->group, want.group);
  EXPECT_EQ(got->recovers_to, want.recovers_to);
  EXPECT_EQ(got->consistent, want.consistent);
  EXPECT_EQ(got->new_timeline, want.new_timeline);
  EXPECT_EQ(got->complete_image, want.complete_image);
  EXPECT_EQ(got->primary_reachable, want.primary_reachable);
  EXPECT_EQ(got->head_known, want.head_known);
  EXPECT_EQ(got->primary_head, want.primary_head);
  EXPECT_EQ(got->missing_records, want.missing_records);
  EXPECT_EQ(got->missing_bytes, want.missing_bytes);
  EXPECT_EQ(got->last_contact, want.last_contact);
  EXPECT_EQ(got->contact_age_ms, want.contact_age_ms);
}

void expect_snapshot(const Result<SnapshotStatus>& got) {
  ASSERT_TRUE(got.has_value()) << got.error().message;
  v1::SnapshotStatus want, have;
  to_proto(full_snapshot(), &want);
  to_proto(*got, &have);
  EXPECT_EQ(want.DebugString(), have.DebugString());
}

void expect_history(const Result<HistoryStatus>& got) {
  ASSERT_TRUE(got.has_value()) << got.error().message;
  EXPECT_EQ(got->now, UtcNs(1));
  EXPECT_EQ(got->window, "6h");
  EXPECT_EQ(got->bytes_max, "1GiB");
  EXPECT_EQ(got->start, point(2));
  EXPECT_EQ(got->head, point(9));
  EXPECT_EQ(got->bytes, 3u);
  EXPECT_EQ(got->marks, (std::vector<LogPoint>{point(4), point(5)}));
  EXPECT_EQ(got->volume_changes, full_history().volume_changes);
  v1::HistoryStatus newer;
  to_proto(full_history(), &newer);
  newer.mutable_volume_changes(0)->set_kind(static_cast<v1::VolumeChange::Kind>(9));
  EXPECT_EQ(from_proto(newer).volume_changes.size(), 2u);
  v1::HistoryStatus none;
  to_proto(HistoryStatus{}, &none);
  EXPECT_FALSE(from_proto(none).start.has_value());
}

TEST_F(ControlTest, EveryCallArrivesWithItsArguments) {
  executor_.run([&] {
    node_.control.receipt_answer = full_receipt();
    node_.control.snapshot_answer = full_snapshot();
    node_.control.history_answer = full_history();
    node_.control.latency_answer.node = "alpha";
  });
  auto c = client();
  EXPECT_TRUE(c->create_volume({"v", "g", 1 << 30, 4096}).has_value());
  EXPECT_TRUE(c->resize_volume("v", 2u << 30).has_value());
  EXPECT_TRUE(c->delete_volume("v").has_value());
  EXPECT_TRUE(c->delete_group("g").has_value());
  EXPECT_TRUE(c->clone_group({"g", "s", "n"}).has_value());
  EXPECT_TRUE(c->set_mode("g", ReplicationMode::kAsync).has_value());
  EXPECT_TRUE(c->set_mode("g", ReplicationMode::kFlush).has_value());
  EXPECT_TRUE(c->set_mode("g", ReplicationMode::kSync).has_value());
  EXPECT_TRUE(c->add_mirror({"g", "h:1", ReplicationMode::kSync}).has_value());
  EXPECT_TRUE(c->remove_mirror("g", "h:1").has_value());
  EXPECT_TRUE(c->change_settings({"g", "", {{"lag_time", "5s"}, {"lag_bytes", ""}}}).has_value());
  EXPECT_TRUE(c->change_settings({"g", "h:1", {{"compression", "on"}}}).has_value());
  expect_snapshot(c->create_snapshot({"g", "", "l"}));
  expect_snapshot(c->create_snapshot({"g", "s", ""}));
  expect_snapshot(c->create_snapshot({"g", "s", "", SnapshotHook::kSkip}));
  expect_snapshot(c->create_snapshot({"g", "s", "", SnapshotHook::kRequire}));
  EXPECT_TRUE(c->delete_snapshot("g", "s").has_value());
  EXPECT_TRUE(c->rename_snapshot({"g", "s", "t", {}}).has_value());
  EXPECT_TRUE(c->rename_snapshot({"g", "s", "t", ""}).has_value());
  expect_snapshot(c->show_snapshot("g", "t"));
  const auto rolled_back = c->rollback({"g", "s", "old"});
  ASSERT_TRUE(rolled_back.has_value()) << rolled_back.error().message;
  expect_snapshot(rolled_back->to);
  expect_snapshot(rolled_back->branch);
  const auto nothing = c->rollback({"g", "s", ""});
  ASSERT_TRUE(nothing.has_value());
  EXPECT_EQ(nothing->branch.name, "");
  expect_history(c->history("g"));
  const auto latency = c->latency("g");
  ASSERT_TRUE(latency.has_value()) << latency.error().message;
  EXPECT_EQ(latency->node, "alpha");
  expect_snapshot(c->keep_point({"g", Lsn(0), {}, "p", "l"}));
  expect_snapshot(c->keep_point({"g", {}, UtcNs(17), "", ""}));
  EXPECT_TRUE(c->start_scrub("g").has_value());
  EXPECT_TRUE(c->stop_scrub("g").has_value());
  EXPECT_TRUE(c->start_compaction("g").has_value());
  EXPECT_TRUE(c->stop_compaction("g").has_value());
  EXPECT_TRUE(c->check_content({"g", "s", "v", 3, true, true}).has_value());
  expect_receipt(c->receipt("g"));
  expect_receipt(c->promote("g", false));
  expect_receipt(c->promote("g", true));
  EXPECT_TRUE(c->demote("g").has_value());
  const auto switched = c->switchover("g", "h:1");
  ASSERT_TRUE(switched.has_value());
  EXPECT_EQ(switched->held_ms, 120u);
  const std::vector<std::string> want = {"create v in g of 1073741824 by 4096",
                                         "resize v to 2147483648",
                                         "delete volume v",
                                         "delete group g",
                                         "clone g@s as n",
                                         "mode g async",
                                         "mode g flush",
                                         "mode g sync",
                                         "add g h:1 sync",
                                         "remove g h:1",
                                         "set g : lag_bytes= lag_time=5s",
                                         "set g h:1: compression=on",
                                         "snapshot g  \"l\"",
                                         "snapshot g s \"\"",
                                         "snapshot g s \"\"!",
                                         "snapshot g s \"\"!!",
                                         "delete snapshot g s",
                                         "rename snapshot g s t -",
                                         "rename snapshot g s t \"\"",
                                         "show snapshot g t",
                                         "roll back g to s as old",
                                         "roll back g to s as ",
                                         "history g",
                                         "latency g",
                                         "keep g at 0 - as p \"l\"",
                                         "keep g at - 17 as  \"\"",
                                         "start scrub g",
                                         "stop scrub g",
                                         "start compaction g",
                                         "stop compaction g",
                                         "check g s v 3 read detail",
                                         "receipt g",
                                         "promote g",
                                         "promote g by force",
                                         "demote g",
                                         "switchover g to h:1"};
  executor_.run([&] { EXPECT_EQ(node_.control.calls, want); });
}

TEST_F(ControlTest, EveryErrorCodeComesBackExactly) {
  auto c = client();
  for (int code = 0; code <= static_cast<int>(ErrorCode::kCancelled); ++code) {
    const Error error{static_cast<ErrorCode>(code), "what happened, and the cure \xc3\xa9"};
    executor_.run([&] { node_.control.result = error; });
    const auto status = c->demote("g");
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(to_string(status.error().code), std::string(to_string(error.code)));
    EXPECT_EQ(status.error().message, error.message);
    EXPECT_TRUE(c->reached());
    const auto receipt = c->promote("g", false);
    ASSERT_FALSE(receipt.has_value());
    EXPECT_EQ(to_string(receipt.error().code), std::string(to_string(error.code)));
    const auto snapshot = c->create_snapshot({"g", "s", ""});
    ASSERT_FALSE(snapshot.has_value());
    EXPECT_EQ(to_string(snapshot.error().code), std::string(to_string(error.code)));
    const auto rolled_back = c->rollback({"g", "s", ""});
    ASSERT_FALSE(rolled_back.has_value());
    EXPECT_EQ(to_string(rolled_back.error().code), std::string(to_string(error.code)));
  }
}

TEST_F(ControlTest, AModeMustBeNamed) {
  auto c = client();
  const auto status = c->set_mode("g", static_cast<ReplicationMode>(9));
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kInvalid);
}

TEST_F(ControlTest, ANodeThatIsGoneIsUnreachable) {
  auto c = client(2s);
  node_.stop();
  const auto status = c->status();
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
  EXPECT_FALSE(c->reached());
  ClientOptions bad;
  bad.address = "nowhere";
  bad.tls = false;
  const auto made = ControlClient::create(bad);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code, ErrorCode::kInvalid);
}

TEST_F(ControlTest, ASlowAnswerEndsAtTheTimeOut) {
  executor_.run([&] { node_.control.hold = true; });
  const auto status = client(200ms)->demote("g");
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(status.error().message.find("in time"), std::string::npos) << status.error().message;
  executor_.run([&] {
    node_.control.hold = false;
    node_.control.opened.notify_all();
  });
}

/// Waits until the fake Control has been called `count` times.
void wait_for_calls(ThreadExecutor& executor, TestNode& node, std::size_t count) {
  for (int i = 0; i < 10000; ++i) {
    std::size_t calls = 0;
    executor.run([&] { calls = node.control.calls.size(); });
    if (calls >= count) return;
    std::this_thread::sleep_for(1ms);
  }
  FAIL() << "the calls never arrived";
}

TEST_F(ControlTest, DrainingFinishesWhatRuns) {
  executor_.run([&] { node_.control.hold = true; });
  Status running = Error{ErrorCode::kIo, "not yet"};
  std::thread caller([&] { running = client()->demote("g"); });
  wait_for_calls(executor_, node_, 1);
  std::atomic<bool> drained = false;
  std::thread drainer([&] {
    executor_.run_task([&] { return node_.service->drain(20s); });
    drained = true;
  });
  // New calls are refused from now on (once drain has begun), while the old one goes on.
  auto c = client();
  Status refused = ok();
  for (int i = 0; i < 10000 && refused; ++i) {
    auto answer = c->status();
    if (!answer) refused = answer.error();
  }
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_FALSE(drained);
  executor_.run([&] {
    node_.control.hold = false;
    node_.control.opened.notify_all();
  });
  caller.join();
  drainer.join();
  EXPECT_TRUE(running.has_value()) << running.error().message;
}

TEST_F(ControlTest, DrainingGivesUpAfterItsLimit) {
  executor_.run([&] { node_.control.hold = true; });
  Status running = ok();
  std::thread caller([&] { running = client()->demote("g"); });
  wait_for_calls(executor_, node_, 1);
  executor_.run_task([&] { return node_.service->drain(20ms); });
  node_.service->stop();
  caller.join();
  ASSERT_FALSE(running.has_value());
  EXPECT_EQ(running.error().code, ErrorCode::kUnavailable);
  executor_.run([&] {  // the task ends after its call: nothing is left to answer
    node_.control.hold = false;
    node_.control.opened.notify_all();
  });
}

TEST_F(ControlTest, TooManyCallsAtOnceAreTurnedAway) {
  constexpr std::size_t kCallers = 70;  // six more than are taken
  // Connected one after the other: seventy at once are more than a listening socket has to take.
  std::vector<std::unique_ptr<ControlClient>> clients;
  for (std::size_t i = 0; i < kCallers; ++i) {
    clients.push_back(client(60s));
    ASSERT_TRUE(clients.back()->status().has_value());
  }
  executor_.run([&] { node_.control.hold = true; });
  std::atomic<int> busy = 0;
  std::vector<std::thread> callers;
  for (auto& each : clients) {
    callers.emplace_back([&busy, &each] {
      const auto status = each->demote("g");
      if (!status && status.error().code == ErrorCode::kBusy) {
        ++busy;
      } else {
        EXPECT_TRUE(status.has_value()) << status.error().message;
      }
    });
  }
  wait_for_calls(executor_, node_, 64);
  for (int i = 0; i < 20000 && busy < 6; ++i) std::this_thread::sleep_for(1ms);
  executor_.run([&] {
    node_.control.hold = false;
    node_.control.opened.notify_all();
  });
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(busy, 6);
}

Task<void> ask_peer(TestNode& from, TestNode& to, ThreadExecutor& executor) {
  auto& peers = from.service->peers();
  auto status = co_await peers.status(to.address(), 10s);
  EXPECT_TRUE(status.has_value()) << (status ? "" : status.error().message);
  EXPECT_EQ(status ? status->node : "", "beta");
  auto receipt = co_await peers.receipt(to.address(), "g", 10s);
  expect_receipt(receipt);
  auto promoted = co_await peers.promote(to.address(), "g", true, 10s);
  expect_receipt(promoted);
  auto taken = co_await peers.take_over(to.address(), "g", 10s);
  expect_receipt(taken);
  AddMirror reverse{"g", "10.0.0.1:7788", ReplicationMode::kFlush};
  auto added = co_await peers.add_mirror(to.address(), std::move(reverse), 10s);
  EXPECT_TRUE(added.has_value());
  auto demoted = co_await peers.demote(to.address(), "g", 10s);
  EXPECT_TRUE(demoted.has_value());
  to.control.result = Error{ErrorCode::kFenced, "newer"};
  auto fenced = co_await peers.promote(to.address(), "g", false, 10s);
  EXPECT_FALSE(fenced.has_value());
  EXPECT_EQ(fenced ? ErrorCode::kIo : fenced.error().code, ErrorCode::kFenced);
  to.control.hold = true;
  auto slow = co_await peers.demote(to.address(), "g", 100ms);
  EXPECT_EQ(slow ? ErrorCode::kIo : slow.error().code, ErrorCode::kUnavailable);
  to.control.hold = false;
  to.control.opened.notify_all();
  auto nobody = co_await peers.status("127.0.0.1:1", 10s);
  EXPECT_EQ(nobody ? ErrorCode::kIo : nobody.error().code, ErrorCode::kUnavailable);
  auto nonsense = co_await peers.status("x", 10s);
  EXPECT_EQ(nonsense ? ErrorCode::kIo : nonsense.error().code, ErrorCode::kInvalid);
  EXPECT_TRUE(executor.is_here());
}
TEST_F(ControlTest, ANodeCanAskItsPeer) {
  TestNode other(executor_);
  executor_.run([&] {
    other.control.node.node = "beta";
    other.control.receipt_answer = full_receipt();
  });
  executor_.run_task([&] { return ask_peer(node_, other, executor_); });
  const std::vector<std::string> want = {"status",
                                         "receipt g",
                                         "promote g by force",
                                         "take over g",
                                         "add g 10.0.0.1:7788 flush",
                                         "demote g",
                                         "promote g",
                                         "demote g"};
  executor_.run([&] { EXPECT_EQ(other.control.calls, want); });
}

TEST_F(ControlTest, HealthSaysServingUntilItStops) {
  auto channel = grpc::CreateChannel(node_.address(), grpc::InsecureChannelCredentials());
  auto stub = grpc::health::v1::Health::NewStub(channel);
  using Answer = grpc::health::v1::HealthCheckResponse;
  const auto check = [&](const std::string& service, Answer& answer) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    return stub->Check(&context, request, &answer);
  };
  Answer answer;
  for (const char* service : {"", "tandem.v1.Control", "tandem.v1.Replication"}) {
    EXPECT_TRUE(check(service, answer).ok());
    EXPECT_EQ(answer.status(), Answer::SERVING);
  }
  EXPECT_EQ(check("other", answer).error_code(), grpc::StatusCode::NOT_FOUND);

  grpc::ClientContext watching;
  auto watch = stub->Watch(&watching, {});
  ASSERT_TRUE(watch->Read(&answer));
  EXPECT_EQ(answer.status(), Answer::SERVING);
  executor_.run_task([&] { return node_.service->drain(1s); });
  EXPECT_TRUE(check("", answer).ok());
  EXPECT_EQ(answer.status(), Answer::NOT_SERVING);
  node_.service->stop();
  EXPECT_FALSE(watch->Read(&answer));
  EXPECT_FALSE(watch->Finish().ok());
}

TEST_F(ControlTest, AWatcherMayLeave) {
  auto channel = grpc::CreateChannel(node_.address(), grpc::InsecureChannelCredentials());
  auto stub = grpc::health::v1::Health::NewStub(channel);
  grpc::health::v1::HealthCheckResponse answer;
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext watching;
    auto watch = stub->Watch(&watching, {});
    ASSERT_TRUE(watch->Read(&answer));
    watching.TryCancel();
    EXPECT_FALSE(watch->Finish().ok());
  }
}

TEST_F(ControlTest, ReflectionDescribesTheServices) {
  using namespace grpc::reflection::v1alpha;
  auto channel = grpc::CreateChannel(node_.address(), grpc::InsecureChannelCredentials());
  auto stub = ServerReflection::NewStub(channel);
  grpc::ClientContext context;
  auto stream = stub->ServerReflectionInfo(&context);
  ServerReflectionRequest question;
  ServerReflectionResponse answer;
  question.set_list_services("");
  ASSERT_TRUE(stream->Write(question));
  ASSERT_TRUE(stream->Read(&answer));
  std::vector<std::string> names;
  for (const auto& s : answer.list_services_response().service()) names.push_back(s.name());
  EXPECT_EQ(names, (std::vector<std::string>{"tandem.v1.Control", "tandem.v1.Replication",
                                             "grpc.health.v1.Health",
                                             "grpc.reflection.v1alpha.ServerReflection"}));
  for (const auto& name : names) {
    question.set_file_containing_symbol(name);
    ASSERT_TRUE(stream->Write(question));
    ASSERT_TRUE(stream->Read(&answer));
    EXPECT_GE(answer.file_descriptor_response().file_descriptor_proto_size(), 1) << name;
  }
  question.set_file_containing_symbol("tandem.v1.Control");
  ASSERT_TRUE(stream->Write(question));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.file_descriptor_response().file_descriptor_proto_size(), 2);  // and common
  question.set_file_by_filename("tandem/v1/common.proto");
  ASSERT_TRUE(stream->Write(question));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.file_descriptor_response().file_descriptor_proto_size(), 1);
  question.set_file_containing_symbol("no.such.Thing");
  ASSERT_TRUE(stream->Write(question));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.error_response().error_code(), grpc::StatusCode::NOT_FOUND);
  question.Clear();
  ASSERT_TRUE(stream->Write(question));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.error_response().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());

  grpc::ClientContext abandoned;
  auto open = stub->ServerReflectionInfo(&abandoned);
  question.set_list_services("");
  ASSERT_TRUE(open->Write(question));
  ASSERT_TRUE(open->Read(&answer));
  node_.service->stop();  // an open conversation does not keep the node up
  EXPECT_FALSE(open->Finish().ok());
}

TEST(AddressTest, OnlyHostAndPort) {
  const auto good = parse_address("node-b.example:7788");
  ASSERT_TRUE(good.has_value());
  EXPECT_EQ(good->host, "node-b.example");
  EXPECT_EQ(good->port, 7788);
  const auto six = parse_address("[fe80::1%eth0]:1");
  ASSERT_TRUE(six.has_value());
  EXPECT_EQ(six->host, "fe80::1%eth0");
  for (const char* bad : {"", ":", "a", "a:", "a:b", "a:-1", "a:65536", "a:1 ", "[]:1", "[::1:1",
                          "::1:1", "a/b:1", "dns:///a:1"}) {
    EXPECT_FALSE(parse_address(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace tandem::rpc
