// Metadata contexts: what is listed, what is selected, and what they say.
#include "frontend/nbd/meta_contexts.h"
#include "tests/interop/nbd_fixture.h"

namespace tandem::test {
namespace {

namespace option = nbd::option;
namespace rep = nbd::rep;
namespace command = nbd::command;
namespace chunk = nbd::chunk;
using Extents = std::vector<std::pair<std::uint32_t, std::uint32_t>>;  // length, flags
using Names = std::vector<std::string>;

class NbdMetaContext : public NbdServerTest {
 protected:
  RawClient negotiating() {
    auto client = connect();
    client.greet();
    client.ask(option::kStructuredReply);
    return client;
  }
  /// Names and ids that LIST or SET answers.
  static std::vector<std::pair<std::uint32_t, std::string>> ask(
      RawClient& client, std::uint32_t which, std::vector<std::string_view> queries) {
    std::vector<std::pair<std::uint32_t, std::string>> found;
    for (const auto& reply : client.ask(which, RawClient::meta_request("disk", queries))) {
      if (reply.type != rep::kMetaContext) continue;
      const auto* name = reinterpret_cast<const char*>(reply.data.data());
      found.emplace_back(get_be<std::uint32_t>(reply.data, 0),
                         std::string(name + 4, reply.data.size() - 4));
    }
    return found;
  }
  static Names names(RawClient& client, std::uint32_t which,
                     std::vector<std::string_view> queries) {
    Names out;
    for (auto& [id, name] : ask(client, which, std::move(queries))) out.push_back(name);
    return out;
  }
  RawClient open(std::vector<std::string_view> contexts) {
    auto client = negotiating();
    ask(client, option::kSetMetaContext, std::move(contexts));
    EXPECT_EQ(client.ask(option::kGo, RawClient::export_request("disk")).back().type, rep::kAck);
    return client;
  }
  static Extents extents(const Reply& reply) {
    Extents out;
    for (std::size_t at = 4; at < reply.data.size(); at += 8)
      out.emplace_back(get_be<std::uint32_t>(reply.data, at),
                       get_be<std::uint32_t>(reply.data, at + 4));
    return out;
  }
  void snapshot(const std::string& name) {
    on_reactor([&] { volume_->snapshot(name); });
  }
};

TEST_F(NbdMetaContext, ListingShowsEverySnapshotUnderBothNames) {
  start();
  snapshot("s1");
  snapshot("2026-05-01T12:00:00Z");
  auto client = negotiating();
  const auto list = [&](std::vector<std::string_view> queries) {
    return names(client, option::kListMetaContext, std::move(queries));
  };
  const Names tandem{"tandem:changed:s1", "tandem:changed:2026-05-01T12:00:00Z"};
  const Names qemu{"qemu:dirty-bitmap:s1", "qemu:dirty-bitmap:2026-05-01T12:00:00Z"};
  Names all{"base:allocation"};
  all.insert(all.end(), tandem.begin(), tandem.end());
  all.insert(all.end(), qemu.begin(), qemu.end());
  EXPECT_EQ(list({}), all);
  EXPECT_EQ(list({"tandem:"}), tandem);
  EXPECT_EQ(list({"qemu:dirty-bitmap:"}), qemu);
  EXPECT_EQ(list({"qemu:", "base:", "qemu:"}), (Names{all[0], qemu[0], qemu[1]}));
  EXPECT_EQ(list({"tandem:changed:s1"}), Names{tandem[0]});
  EXPECT_EQ(list({"tandem:changed:s", "tandem:changed:s2", "other:", ""}), Names{});
}

TEST_F(NbdMetaContext, SelectingTakesExactNamesOnce) {
  start();
  snapshot("s1");
  auto client = negotiating();
  const auto set = [&](std::vector<std::string_view> queries) {
    return names(client, option::kSetMetaContext, std::move(queries));
  };
  EXPECT_EQ(set({"tandem:changed:", "tandem:", "qemu:dirty-bitmap:s2", "tandem:changed:s1 "}),
            Names{});
  const auto found = ask(client, option::kSetMetaContext,
                         {"qemu:dirty-bitmap:s1", "no:such", "base:allocation",
                          "qemu:dirty-bitmap:s1", "tandem:changed:s1"});
  const std::vector<std::pair<std::uint32_t, std::string>> wanted{
      {2, "qemu:dirty-bitmap:s1"},
      {nbd::kBaseAllocationId, "base:allocation"},
      {3, "tandem:changed:s1"}};
  EXPECT_EQ(found, wanted);
}

TEST_F(NbdMetaContext, MoreThanTheBoundIsRefused) {
  start();
  std::vector<std::string> all;
  for (std::size_t i = 0; i <= nbd::kMetaContextsMax; ++i) {
    snapshot("s" + std::to_string(i));
    all.push_back("tandem:changed:s" + std::to_string(i));
  }
  std::vector<std::string_view> queries(all.begin(), all.end());
  auto client = negotiating();
  const auto set = [&] {
    return client.ask(option::kSetMetaContext, RawClient::meta_request("disk", queries)).back();
  };
  EXPECT_EQ(set().type, rep::kErrTooBig);
  queries.pop_back();
  EXPECT_EQ(set().type, rep::kAck);
}

TEST_F(NbdMetaContext, SeveralAnswerOneRequest) {
  start();
  auto writer = open({});
  const Bytes data(8192, std::byte{1});
  writer.call({.type = command::kWrite, .length = 4096}, Bytes(4096, std::byte{1}));
  snapshot("s1");
  writer.call({.type = command::kWrite, .offset = 8192, .length = 8192}, data);
  snapshot("s2");
  writer.call({.type = command::kTrim, .offset = 12288, .length = 4096});

  auto client = open({"base:allocation", "tandem:changed:s1", "qemu:dirty-bitmap:s2"});
  client.request({.type = command::kBlockStatus, .cookie = 7, .length = 65536});
  const Reply replies[] = {client.reply(), client.reply(), client.reply()};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(replies[i].type, chunk::kBlockStatus);
    EXPECT_EQ(replies[i].cookie, 7u);
    EXPECT_EQ(replies[i].flags, i == 2 ? chunk::kDone : 0);
    EXPECT_EQ(get_be<std::uint32_t>(replies[i].data, 0), static_cast<std::uint32_t>(i + 1));
  }
  const std::uint32_t hole = nbd::kStateHole | nbd::kStateZero;
  EXPECT_EQ(extents(replies[0]), (Extents{{4096, 0}, {4096, hole}, {4096, 0}, {53248, hole}}));
  EXPECT_EQ(extents(replies[1]), (Extents{{8192, 0}, {8192, 1}, {49152, 0}}));
  EXPECT_EQ(extents(replies[2]), (Extents{{12288, 0}, {4096, 1}, {49152, 0}}));
  // One extent each, when no more is wanted.
  client.request({.flags = nbd::flag::kReqOne, .type = command::kBlockStatus, .length = 65536});
  EXPECT_EQ(extents(client.reply()), (Extents{{4096, 0}}));
  EXPECT_EQ(extents(client.reply()), (Extents{{8192, 0}}));
  EXPECT_EQ(extents(client.reply()), (Extents{{12288, 0}}));
}

TEST_F(NbdMetaContext, ADeletedSnapshotIsAnErrorForGood) {
  start();
  snapshot("s1");
  auto client = open({"base:allocation", "tandem:changed:s1"});
  on_reactor([&] { volume_->delete_snapshot("s1"); });
  const nbd::Request status{.type = command::kBlockStatus, .cookie = 3, .length = 65536};
  Reply reply = client.call(status);
  EXPECT_EQ(reply.type, chunk::kError);
  EXPECT_EQ(reply.flags, chunk::kDone);
  EXPECT_EQ(reply.error, static_cast<std::uint32_t>(nbd::WireError::kIo));
  // Another of its name is another snapshot.
  snapshot("s1");
  EXPECT_EQ(client.call(status).type, chunk::kError);
  EXPECT_EQ(client.call({.type = command::kRead, .length = 512}).error, 0u);
}

TEST_F(NbdMetaContext, WithoutBaseAllocation) {
  start();
  snapshot("s1");
  auto client = open({"qemu:dirty-bitmap:s1"});
  const Reply reply = client.call({.type = command::kBlockStatus, .length = 4096});
  EXPECT_EQ(reply.type, chunk::kBlockStatus);
  EXPECT_EQ(reply.flags, chunk::kDone);
  EXPECT_EQ(get_be<std::uint32_t>(reply.data, 0), 2u);
  EXPECT_EQ(extents(reply), (Extents{{4096, 0}}));
}

}  // namespace
}  // namespace tandem::test
