#include "rpc/channel.h"

#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "rpc/address.h"
#include "rpc/credentials.h"
#include "rpc/link_codec.h"
#include "tandem/base/log.h"

namespace tandem::rpc {
namespace {

constexpr int kStreamsPerConnectionMax = 256;
constexpr int kHandshakeMs = 10000;
/// Of a command; a node's are options.
constexpr std::chrono::milliseconds kKeepalive{10000}, kKeepaliveTimeout{5000};
/// gRPC's complaints in the log: this many in a row, one more each second.
constexpr double kComplaintsMax = 10;

int ms(std::chrono::milliseconds time) { return static_cast<int>(time.count()); }

void drop_log(gpr_log_func_args*) {}

void log_to_events(gpr_log_func_args* line) {
  if (line->severity != GPR_LOG_SEVERITY_ERROR) return;
  static std::mutex mutex;
  static double allowance = kComplaintsMax;
  static auto last = std::chrono::steady_clock::now();
  {
    // A hostile client can fail a handshake as often as it likes; the log must not grow with it.
    std::lock_guard lock(mutex);
    const auto now = std::chrono::steady_clock::now();
    allowance += std::chrono::duration<double>(now - last).count();
    if (allowance > kComplaintsMax) allowance = kComplaintsMax;
    last = now;
    if (allowance < 1) return;
    allowance -= 1;
  }
  log_event(Level::kWarn, "grpc.complaint", "text=\"{}\"", line->message);
}

}  // namespace

std::shared_ptr<grpc::Channel> make_channel(
    const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
    std::chrono::milliseconds connect_timeout, std::chrono::milliseconds keepalive,
    std::chrono::milliseconds keepalive_timeout) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kMessageBytesMax));
  arguments.SetMaxSendMessageSize(static_cast<int>(kMessageBytesMax));
  // Whoever dials again makes a new channel and keeps the time between attempts itself: gRPC's
  // shared connections and its back-off would only make that wait longer.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, ms(connect_timeout));
  // A retried stream would be a second stream; and gRPC copies messages to be able to retry.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, ms(keepalive));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, ms(keepalive_timeout));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel("dns:///" + address, credentials, arguments);
}

Result<std::shared_ptr<grpc::Channel>> open_channel(const ClientOptions& options) {
  const auto address = parse_address(options.address);
  if (!address) return address.error();
  Certificates certificates;
  if (options.tls) {
    auto loaded = load_certificates(options.files);
    if (!loaded) return loaded.error();
    certificates = std::move(*loaded);
  }
  route_grpc_log(false);
  return make_channel(options.address, channel_credentials(options.tls, certificates),
                      std::max(options.timeout, std::chrono::milliseconds(1)), kKeepalive,
                      kKeepaliveTimeout);
}

void configure_server(grpc::ServerBuilder& builder, const ServiceOptions& options) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(kMessageBytesMax));
  builder.SetMaxSendMessageSize(static_cast<int>(kMessageBytesMax));
  // Without this a second daemon could listen on the same port and get every other connection.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnectionMax);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, ms(options.keepalive));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, ms(options.keepalive_timeout));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // The callers ping too: do not take that for abuse.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             ms(options.keepalive) / 4);
}

void route_grpc_log(bool to_events) {
  gpr_set_log_function(to_events ? &log_to_events : &drop_log);
}

}  // namespace tandem::rpc
