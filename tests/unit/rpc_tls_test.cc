// Mutual TLS on links and control calls: who is let in, and what the others are told.
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "rpc/control_client.h"
#include "rpc/credentials.h"
#include "tandem/v1/control.grpc.pb.h"
#include "tests/support/grpc_node.h"

namespace tandem::rpc {
namespace {

using test::CertificateFiles;
using test::ThreadExecutor;

/// One set of certificates for all tests: making them takes longer than using them.
struct Authority {
  Authority() {
    test::make_ca(directory, "ours");
    test::make_ca(directory, "theirs");
    alpha = test::make_certificate(directory, "ours", "alpha");
    beta = test::make_certificate(directory, "ours", "beta");
    foreign = test::make_certificate(directory, "theirs", "foreign");
    expired = test::make_certificate(directory, "ours", "expired", 0);
  }
  test::TemporaryDirectory directory;
  CertificateFiles alpha, beta, foreign, expired;
};

class TlsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { authority = new Authority; }
  static void TearDownTestSuite() {
    delete authority;
    authority = nullptr;
  }
  static Authority* authority;

  ThreadExecutor executor_;
};
Authority* TlsTest::authority = nullptr;

struct Outcome {
  std::string dialer_sees, acceptor_sees;  // names
  std::optional<Error> error;              // of the dialer's receive()
};

Task<void> receive_into(Link& link, std::optional<Result<Message>>& out) {
  auto got = co_await link.receive();
  out = std::move(got);
}

Task<void> greet(ThreadExecutor& executor, TestNode& from, TestNode& to, Outcome& outcome) {
  auto link = from.service->dialer().dial(to.address());
  link->send(message::Hello{});
  std::optional<Result<Message>> answer;
  spawn(receive_into(*link, answer));
  while (!answer && to.acceptor.links.empty()) co_await sleep_for(executor, 1ms);
  if (!answer) {
    auto accepted = std::move(to.acceptor.links.front());
    to.acceptor.links.pop_front();
    auto hello = co_await accepted->receive();
    EXPECT_TRUE(hello.has_value());
    outcome.acceptor_sees = accepted->peer();
    accepted->send(message::Welcome{});
    while (!answer) co_await sleep_for(executor, 1ms);
    outcome.dialer_sees = link->peer();
  }
  if (!*answer) outcome.error = answer->error();
}

#define EXPECT_MENTIONS(text, word) EXPECT_NE((text).find(word), std::string::npos) << (text)

TEST_F(TlsTest, BothSidesKnowEachOther) {
  TestNode a(executor_, TestNode::secured(authority->alpha));
  TestNode b(executor_, TestNode::secured(authority->beta));
  Outcome outcome;
  executor_.run_task([&] { return greet(executor_, a, b, outcome); });
  ASSERT_FALSE(outcome.error.has_value()) << outcome.error->message;
  EXPECT_EQ(outcome.acceptor_sees, "alpha");
  EXPECT_EQ(outcome.dialer_sees, "beta");
}

TEST_F(TlsTest, AForeignAuthorityIsRefused) {
  TestNode a(executor_, TestNode::secured(authority->foreign));
  TestNode b(executor_, TestNode::secured(authority->beta));
  for (auto [from, to] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    Outcome outcome;
    executor_.run_task([&] { return greet(executor_, *from, *to, outcome); });
    ASSERT_TRUE(outcome.error.has_value());
    EXPECT_EQ(outcome.error->code, ErrorCode::kUnavailable);
    EXPECT_MENTIONS(outcome.error->message, to->address());
    EXPECT_MENTIONS(outcome.error->message, "CA");
  }
}

TEST_F(TlsTest, AnExpiredCertificateIsRefusedAndNamed) {
  TestNode a(executor_, TestNode::secured(authority->expired));  // starts: volumes can be served
  TestNode b(executor_, TestNode::secured(authority->beta));
  Outcome outcome;
  executor_.run_task([&] { return greet(executor_, a, b, outcome); });
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kUnavailable);
  EXPECT_MENTIONS(outcome.error->message, authority->expired.certificate);
  EXPECT_MENTIONS(outcome.error->message, "expired on Jan  2");
  Outcome back;
  executor_.run_task([&] { return greet(executor_, b, a, back); });
  ASSERT_TRUE(back.error.has_value());
  EXPECT_MENTIONS(back.error->message, "expired");
}

TEST_F(TlsTest, PlainAndSecuredDoNotMix) {
  TestNode plain(executor_);
  TestNode secured(executor_, TestNode::secured(authority->alpha));
  Outcome outcome;
  executor_.run_task([&] { return greet(executor_, plain, secured, outcome); });
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kUnavailable);
  Outcome back;
  executor_.run_task([&] { return greet(executor_, secured, plain, back); });
  ASSERT_TRUE(back.error.has_value());
  EXPECT_EQ(back.error->code, ErrorCode::kUnavailable);
  EXPECT_MENTIONS(back.error->message, "no TLS there");
}

ClientOptions client(const TestNode& node, const CertificateFiles& files) {
  ClientOptions options;
  options.address = node.address();
  options.files = {files.ca, files.certificate, files.key};
  return options;
}

TEST_F(TlsTest, ControlWantsACertificateToo) {
  TestNode node(executor_, TestNode::secured(authority->alpha));
  node.control.node.node = "alpha";
  auto good = ControlClient::create(client(node, authority->beta));
  ASSERT_TRUE(good.has_value());
  const auto status = (*good)->status();
  ASSERT_TRUE(status.has_value()) << status.error().message;
  EXPECT_EQ(status->node, "alpha");
  EXPECT_TRUE((*good)->reached());

  auto foreign = ControlClient::create(client(node, authority->foreign));
  ASSERT_TRUE(foreign.has_value());
  const auto refused = (*foreign)->status();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_FALSE((*foreign)->reached());

  auto plain_options = client(node, authority->beta);
  plain_options.tls = false;
  auto plain = ControlClient::create(plain_options);
  ASSERT_TRUE(plain.has_value());
  EXPECT_FALSE((*plain)->status().has_value());
  EXPECT_EQ(node.control.calls.size(), 1u);  // only the first got through
}

TEST_F(TlsTest, ACallWithoutAClientCertificateIsRefused) {
  TestNode node(executor_, TestNode::secured(authority->alpha));
  // Our own client has no way to leave its certificate out.
  std::ifstream ca(authority->alpha.ca);
  grpc::SslCredentialsOptions options;
  options.pem_root_certs.assign(std::istreambuf_iterator<char>(ca), {});
  ASSERT_FALSE(options.pem_root_certs.empty());
  v1::Control::Stub stub(grpc::CreateChannel(node.address(), grpc::SslCredentials(options)));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + 10s);
  v1::NodeStatus answer;
  const auto status = stub.GetStatus(&context, v1::GetStatusRequest(), &answer);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(node.control.calls.empty());
}

void copy_over(const CertificateFiles& from, const CertificateFiles& to) {
  namespace fs = std::filesystem;
  // As an operator should: each file is replaced at once, never seen half written.
  for (const auto& [source, target] : {std::pair(from.ca, to.ca), std::pair(from.key, to.key),
                                       std::pair(from.certificate, to.certificate)}) {
    fs::copy_file(source, target + ".new", fs::copy_options::overwrite_existing);
    fs::rename(target + ".new", target);
  }
}

CertificateFiles place(const std::string& name, const CertificateFiles& content,
                       const test::TemporaryDirectory& directory) {
  CertificateFiles files{directory.file(name + "-ca"), directory.file(name + "-crt"),
                         directory.file(name + "-key")};
  copy_over(content, files);
  return files;
}

TEST_F(TlsTest, NewCertificatesAreUsedWithoutARestart) {
  const auto a_files = place("a", authority->alpha, authority->directory);
  const auto b_files = place("b", authority->beta, authority->directory);
  auto options = TestNode::secured(a_files);
  options.certificate_check = 1s;
  TestNode a(executor_, options);
  options = TestNode::secured(b_files);
  options.certificate_check = 1s;
  TestNode b(executor_, options);
  const auto greeted = [&] {
    Outcome outcome;
    executor_.run_task([&] { return greet(executor_, a, b, outcome); });
    return outcome;
  };
  const auto wait_until = [&](auto holds) {
    for (int i = 0; i < 100; ++i) {
      if (holds(greeted())) return true;
      std::this_thread::sleep_for(100ms);
    }
    return false;
  };
  EXPECT_EQ(greeted().dialer_sees, "beta");
  // The whole authority changes: first on the answering node, so that the two do not fit ...
  copy_over(authority->foreign, b_files);
  EXPECT_TRUE(wait_until([](const Outcome& o) { return o.error.has_value(); }));
  // ... then on the calling one. Neither was started anew.
  copy_over(authority->foreign, a_files);
  Outcome last;
  EXPECT_TRUE(wait_until([&](const Outcome& o) {
    last = o;
    return !o.error.has_value();
  }));
  EXPECT_EQ(last.dialer_sees, "foreign");
  EXPECT_EQ(last.acceptor_sees, "foreign");
}

TEST_F(TlsTest, CertificatesThatDoNotDoLeaveTheOldInUse) {
  const auto files = place("c", authority->alpha, authority->directory);
  TestNode a(executor_, TestNode::secured(files));
  TestNode b(executor_, TestNode::secured(authority->beta));
  std::filesystem::copy_file(authority->beta.key, files.key,
                             std::filesystem::copy_options::overwrite_existing);
  Status checked = ok();
  executor_.run([&] { checked = a.service->reload_certificates(); });
  ASSERT_FALSE(checked.has_value());
  EXPECT_MENTIONS(checked.error().message, "does not belong");
  Outcome outcome;
  executor_.run_task([&] { return greet(executor_, a, b, outcome); });
  EXPECT_FALSE(outcome.error.has_value());
  EXPECT_EQ(outcome.acceptor_sees, "alpha");
  copy_over(authority->beta, files);
  executor_.run([&] { checked = a.service->reload_certificates(); });
  EXPECT_TRUE(checked.has_value());
  Outcome after;
  executor_.run_task([&] { return greet(executor_, a, b, after); });
  EXPECT_EQ(after.acceptor_sees, "beta");
}

TEST_F(TlsTest, AViewerMayLookAndChangeNothing) {
  const auto viewer = test::make_certificate(authority->directory, "ours", "eve", 1, kViewerUnit);
  TestNode node(executor_, TestNode::secured(authority->alpha));
  auto look = ControlClient::create(client(node, viewer));
  ASSERT_TRUE(look.has_value());
  EXPECT_TRUE((*look)->status().has_value());
  EXPECT_TRUE((*look)->receipt("g").has_value());
  for (const auto& refused :
       {(*look)->create_volume({"v", "", 1 << 20, 512}), (*look)->resize_volume("v", 2 << 20),
        (*look)->delete_volume("v"), (*look)->delete_group("g"),
        (*look)->set_mode("g", ReplicationMode::kSync),
        (*look)->add_mirror({"g", "h:1", ReplicationMode::kSync}),
        (*look)->remove_mirror("g", "h:1"), (*look)->change_settings({"g", "", {}}),
        (*look)->demote("g")}) {
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::kRefused);
    EXPECT_MENTIONS(refused.error().message, "eve may only look");
  }
  EXPECT_EQ((*look)->promote("g", true).error().code, ErrorCode::kRefused);
  EXPECT_EQ((*look)->switchover("g", "").error().code, ErrorCode::kRefused);
  const std::vector<std::string> only_looked = {"status", "receipt g"};
  EXPECT_EQ(node.control.calls, only_looked);
  // Nor may it play a node.
  TestNode false_node(executor_, TestNode::secured(viewer));
  Outcome outcome;
  executor_.run_task([&] { return greet(executor_, false_node, node, outcome); });
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kRefused);
  EXPECT_MENTIONS(outcome.error->message, "eve may only look");
  // And turning it away cost nobody else a place.
  TestNode good_node(executor_, TestNode::secured(authority->beta));
  Outcome after;
  executor_.run_task([&] { return greet(executor_, good_node, node, after); });
  EXPECT_FALSE(after.error.has_value());
}

TEST_F(TlsTest, AnOperatorMayChangeEverythingAndReplicatesNothing) {
  const auto desk = test::make_certificate(authority->directory, "ours", "ann", 1, kOperatorUnit);
  TestNode node(executor_, TestNode::secured(authority->alpha));
  auto operates = ControlClient::create(client(node, desk));
  ASSERT_TRUE(operates.has_value());
  EXPECT_TRUE((*operates)->create_volume({"v", "", 1 << 20, 512}).has_value());
  EXPECT_TRUE((*operates)->promote("g", true).has_value());
  TestNode false_node(executor_, TestNode::secured(desk));
  Outcome outcome;
  executor_.run_task([&] { return greet(executor_, false_node, node, outcome); });
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_EQ(outcome.error->code, ErrorCode::kRefused);
  EXPECT_MENTIONS(outcome.error->message, "ann is an operator's");
}

TEST_F(TlsTest, BadFilesAreNamedAtTheStart) {
  auto& directory = authority->directory;
  const auto expect = [&](TlsOptions files, const std::string& word) {
    auto options = TestNode::plain();
    options.tls = true;
    options.files = files;
    BufferPool pool{1 << 20};
    auto made = Service::create(executor_, nullptr, pool, options);
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().code, ErrorCode::kInvalid);
    EXPECT_MENTIONS(made.error().message, word);
  };
  const auto& good = authority->alpha;
  std::ofstream(directory.file("empty.pem")) << "";
  std::ofstream(directory.file("text.pem")) << "this is no certificate\n";
  expect({"", good.certificate, good.key}, "CA file; name one");
  expect({good.ca, directory.file("none.pem"), good.key}, "none.pem: No such file");
  expect({good.ca, good.certificate, directory.file("empty.pem")}, "it is empty");
  expect({good.ca, directory.file("text.pem"), good.key}, "text.pem holds no certificate");
  expect({directory.file("text.pem"), good.certificate, good.key}, "text.pem holds no certificate");
  expect({good.ca, good.certificate, directory.file("text.pem")}, "no private key");
  expect({good.ca, good.certificate, authority->beta.key}, "does not belong");
  expect({good.ca, good.certificate, directory.path()}, "cannot read the key file");
}

TEST_F(TlsTest, TroubleIsFoundBeforeAnybodyRefuses) {
  const auto& good = authority->alpha;
  EXPECT_EQ(certificate_trouble({good.ca, good.certificate, good.key}), "");
  const auto& old = authority->expired;
  EXPECT_MENTIONS(certificate_trouble({old.ca, old.certificate, old.key}), "expired on");
}

}  // namespace
}  // namespace tandem::rpc
