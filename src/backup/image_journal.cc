#include "backup/image_journal.h"

#include <nlohmann/json.hpp>

#include "backup/files.h"

namespace tandem::backup {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "tandem-restore";
constexpr std::uint32_t kVersion = 1;
/// Enough that no two restores to one file meet, and short beside the file's own name.
constexpr std::size_t kSuffixDigits = 8;

std::uint64_t number(const Json& j, const char* key) {
  return j.at(key).get_ref<const Json::number_unsigned_t&>();
}

std::string line_of(const Json& j) {
  return j.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json to_json(const ImageIdentity& i) {
  return {{"group_id", i.group_id},
          {"point", i.point},
          {"manifest_sha256", i.manifest_sha256},
          {"volume", i.volume},
          {"size_bytes", i.size_bytes}};
}

ImageJournal journal_from(const Json& j) {
  const auto& i = j.at("identity");
  return {{i.at("group_id").get<std::string>(), static_cast<std::uint32_t>(number(i, "point")),
           i.at("manifest_sha256").get<std::string>(), i.at("volume").get<std::string>(),
           number(i, "size_bytes")},
          number(j, "durable_bytes"),
          Digest(number(j, "front"))};
}

}  // namespace

std::string partial_suffix(const ImageIdentity& identity) {
  return ".point-" + std::to_string(identity.point) + "." +
         sha256_of(line_of(to_json(identity))).substr(0, kSuffixDigits) + ".partial";
}

std::string to_text(const ImageJournal& journal) {
  const std::string line = line_of({{"format", kFormat},
                                    {"version", kVersion},
                                    {"identity", to_json(journal.identity)},
                                    {"durable_bytes", journal.durable_bytes},
                                    {"front", journal.front.value}});
  return line + sha256_of(line) + "\n";
}

Result<ImageJournal> parse_image_journal(const std::string& text) {
  const auto end = text.find('\n');
  const std::string line = text.substr(0, end == std::string::npos ? 0 : end + 1);
  if (line.empty() || text != line + sha256_of(line) + "\n")
    return Error{ErrorCode::kCorrupt, "its journal is damaged"};
  try {
    const Json j = Json::parse(line);
    if (j.at("format") != kFormat || number(j, "version") != kVersion)
      return Error{ErrorCode::kCorrupt, "its journal is of another version"};
    return journal_from(j);
  } catch (const Json::exception&) {
    return Error{ErrorCode::kCorrupt, "its journal is none"};
  }
}

}  // namespace tandem::backup
