// tandem pair: two nodes come to trust each other. The first makes an authority and a token, the
// second joins with it; keys stay where they are made.
#include <openssl/crypto.h>
#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/json.h"
#include "ctl/pair_certificates.h"
#include "ctl/pair_channel.h"

namespace tandem::ctl {
namespace {

/// Wrong secrets before the token is void: nobody guesses 128 bits, but nobody should try for long.
constexpr int kWrongSecretsMax = 5;
/// The `tandem` command's own certificates; the unit makes the second one read-only.
constexpr const char* kOperators[] = {"operator", "viewer"};
// By these the nodes tell them from each other, and from a node: see rpc/credentials.h.
constexpr const char* kOperatorUnit = "tandem-operator";
constexpr const char* kViewerUnit = "tandem-viewer";

std::string hex(const std::string& bytes) {
  std::string out;
  char digits[3];
  for (const char c : bytes) {
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(c));
    out += digits;
  }
  return out;
}

std::string absolute(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

std::string toml_lines(const std::string& directory, const std::string& name) {
  return "certificate = \"" + directory + "/" + name + ".crt\"\nkey = \"" + directory + "/" + name +
         ".key\"\nca = \"" + directory + "/ca.crt\"\n";
}

/// True for `key = …` of one of the three.
bool is_ours(const std::string& line) {
  const auto begin = line.find_first_not_of(" \t");
  if (begin == std::string::npos) return false;
  const auto end = line.find_first_of(" \t=", begin);
  const auto key = line.substr(begin, end - begin);
  return key == "certificate" || key == "key" || key == "ca";
}

/// Puts the three lines into [service] of the configuration, in place of those that are there.
Status write_config(const std::string& path, const std::string& lines) {
  auto text = read_text(path);
  if (!text) return std::move(text.error());
  std::istringstream in(*text);
  std::string out;
  bool in_service = false, written = false;
  for (std::string line; std::getline(in, line);) {
    const auto begin = line.find_first_not_of(" \t");
    const bool is_table = begin != std::string::npos && line[begin] == '[';
    if (is_table) in_service = line.compare(begin, 9, "[service]") == 0;
    if (in_service && !is_table && is_ours(line)) continue;
    out += line + "\n";
    if (is_table && in_service && !std::exchange(written, true)) out += lines;
  }
  if (!written) out += "\n[service]\n" + lines;
  try {
    (void)toml::parse(out);
  } catch (const toml::parse_error& error) {
    return Error{ErrorCode::kInvalid, path + ": " + std::string(error.description()) +
                                          "; correct it, or write these lines into [service] "
                                          "yourself:\n" +
                                          lines};
  }
  return write_file(path, out, false);
}

/// Makes NAME.crt and NAME.key unless both are there.
Status make_own(const Authority& authority, const std::string& directory, const Subject& subject) {
  const auto path = directory + "/" + subject.name;
  std::error_code none;
  if (std::filesystem::exists(path + ".crt", none) && std::filesystem::exists(path + ".key", none))
    return ok();
  auto made = make_request(subject.name);
  if (!made) return std::move(made.error());
  auto certificate = authority.sign(made->request, subject);
  if (!certificate) return std::move(certificate.error());
  TANDEM_TRY(write_file(path + ".key", made->key, true));
  return write_file(path + ".crt", *certificate, false);
}

Status prepare(const PairOptions& options, Authority& authority) {
  std::error_code failed;
  std::filesystem::create_directories(options.directory, failed);
  if (failed)
    return Error{ErrorCode::kIo, "cannot make " + options.directory + ": " + failed.message()};
  auto opened = Authority::open(options.directory);
  if (!opened) return std::move(opened.error());
  authority = std::move(*opened);
  TANDEM_TRY(make_own(authority, options.directory, {options.name, options.addresses, ""}));
  for (const std::string who : kOperators) {
    const bool views = who == "viewer";
    TANDEM_TRY(
        make_own(authority, options.directory, {who, {}, views ? kViewerUnit : kOperatorUnit}));
  }
  return ok();
}

/// The first node's side of one request.
struct Host {
  const PairOptions& options;
  const Authority& authority;
  const Token& token;
  std::ostream& out;
  int wrong_secrets = 0;
  std::string joined;  // certificate

  std::string answer(const std::string& text, bool& done) {
    const auto refused = [](const std::string& why) { return Json{{"error", why}}.dump(); };
    const Json request = Json::parse(text, nullptr, false);
    const auto field = [&](const char* name) {
      return request.is_object() && request.contains(name) && request[name].is_string()
                 ? request[name].get<std::string>()
                 : std::string();
    };
    const auto secret = field("secret"), ours = hex(token.secret);
    if (secret.size() != ours.size() ||
        CRYPTO_memcmp(secret.data(), ours.data(), ours.size()) != 0) {
      done = ++wrong_secrets >= kWrongSecretsMax;
      return refused("the token is not the one of this node");
    }
    Subject subject{field("name"), {}, ""};
    for (const auto& address : request.value("addresses", Json::array()))
      if (address.is_string()) subject.addresses.push_back(address.get<std::string>());
    const bool taken = subject.name == options.name || subject.name == "ca" ||
                       std::any_of(std::begin(kOperators), std::end(kOperators),
                                   [&](const std::string& other) { return other == subject.name; });
    if (taken) return refused("the name " + subject.name + " is taken here; choose another");
    const auto certificate = authority.sign(field("request"), subject);
    if (!certificate) return refused(certificate.error().message);
    joined = *certificate;
    done = true;
    out << "Node " << subject.name << " joined; its certificate is\n  " << fingerprint(joined)
        << "\n";
    return Json{{"ca", authority.certificate()}, {"certificate", joined}, {"name", options.name}}
        .dump();
  }
};

Status finish_files(const PairOptions& options, std::ostream& out) {
  const auto lines = toml_lines(options.directory, options.name);
  if (options.config.empty()) {
    out << "\nIn [service] of this node's configuration:\n" << lines;
    return ok();
  }
  TANDEM_TRY(write_config(options.config, lines));
  out << "\n" << options.config << " names them now.\n";
  return ok();
}

Status join(const PairOptions& options, std::ostream& out) {
  const auto token = Token::parse(options.token);
  if (!token) return Error(token.error());
  auto made = make_request(options.name);
  if (!made) return std::move(made.error());
  const auto request = Json{
      {"secret", hex(token->secret)},
      {"name", options.name},
      {"addresses", options.addresses},
      {"request",
       made->request}}.dump();
  auto text = ask_to_pair(options.address, *token, request);
  if (!text) return std::move(text.error());
  const Json answer = Json::parse(*text, nullptr, false);
  if (!answer.is_object()) return Error{ErrorCode::kInvalid, "an answer that is none"};
  if (answer.contains("error"))
    return Error{ErrorCode::kRefused,
                 options.address + " refuses: " + answer.value("error", std::string())};
  const auto ca = answer.value("ca", std::string());
  const auto certificate = answer.value("certificate", std::string());
  if (certificate_digest(ca).empty() || certificate_digest(certificate).empty())
    return Error{ErrorCode::kInvalid, "an answer without certificates"};
  std::error_code failed;
  std::filesystem::create_directories(options.directory, failed);
  const auto own = options.directory + "/" + options.name;
  TANDEM_TRY(write_file(own + ".key", made->key, true));
  TANDEM_TRY(write_file(own + ".crt", certificate, false));
  TANDEM_TRY(write_file(options.directory + "/ca.crt", ca, false));
  out << "This node is " << options.name << " and trusts " << answer.value("name", std::string())
      << "'s authority\n  " << fingerprint(ca) << "\nIts own certificate is\n  "
      << fingerprint(certificate) << "\nBoth are in " << options.directory << ".\n";
  return finish_files(options, out);
}

}  // namespace

Exit run_pair_start(Context& context, PairOptions options) {
  options.directory = absolute(options.directory);
  Authority authority;
  if (const auto ready = prepare(options, authority); !ready)
    return fail(context, ready.error(), false);
  const auto own = options.directory + "/" + options.name;
  const auto certificate = read_text(own + ".crt");
  if (!certificate) return fail(context, certificate.error(), false);
  const auto token = Token::make(*certificate);
  if (!token) return fail(context, token.error(), false);
  auto& out = context.out;
  Host host{options, authority, *token, out, 0, {}};
  PairServer server{own + ".crt", own + ".key",
                    [&](const std::string& text, bool& done) { return host.answer(text, done); },
                    [&](const std::string& bound) {
                      out << "The authority of this pair is\n  "
                          << fingerprint(authority.certificate())
                          << "\nand this node's certificate\n  " << fingerprint(*certificate)
                          << "\n\nOn the other node, within " << duration_text(options.valid)
                          << ":\n  tandem pair join " << bound << " " << token->text()
                          << " --name NAME --address HOST\n\n"
                          << std::flush;
                    }};
  const auto served =
      serve_pairing(server, options.listen, std::chrono::steady_clock::now() + options.valid);
  if (!served) return fail(context, served.error(), served.error().code != ErrorCode::kInvalid);
  if (host.joined.empty())
    return refuse(context, "too many wrong tokens were tried; the token is void, start again");
  const auto finished = finish_files(options, out);
  return finished ? Exit::kOk : fail(context, finished.error(), false);
}

Exit run_pair_join(Context& context, PairOptions options) {
  options.directory = absolute(options.directory);
  const auto joined = join(options, context.out);
  if (joined) return Exit::kOk;
  const auto code = joined.error().code;
  return fail(context, joined.error(),
              code != ErrorCode::kInvalid && code != ErrorCode::kUnavailable);
}

}  // namespace tandem::ctl
