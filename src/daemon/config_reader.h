// ConfigReader: takes typed values out of a TOML document and collects what is wrong with it.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/base/result.h"
#include "tandem/port/executor.h"

namespace tandem::daemon {

/// Each take_*() names "table.key"; it returns false and leaves `out` alone when the key is absent
/// or wrong. finish() then reports the keys that nobody took.
class ConfigReader {
 public:
  ConfigReader(std::string_view text, std::string path);
  ~ConfigReader();
  ConfigReader(const ConfigReader&) = delete;
  ConfigReader& operator=(const ConfigReader&) = delete;

  bool take_string(std::string_view key, std::string& out);
  bool take_strings(std::string_view key, std::vector<std::string>& out);
  bool take_bool(std::string_view key, bool& out);
  bool take_integer(std::string_view key, std::int64_t least, std::int64_t most, std::int64_t& out);
  bool take_size(std::string_view key, std::uint64_t least, std::uint64_t most, std::uint64_t& out);
  bool take_duration(std::string_view key, Nanoseconds least, Nanoseconds most, Nanoseconds& out);

  /// How many [[name]] there are; the keys of each are taken as "name[0].key", and may be `keys`.
  std::size_t count_tables(std::string_view name, std::initializer_list<const char*> keys);

  /// False: the text is not TOML, and finish() says where.
  bool parsed() const { return parsed_; }
  bool has(std::string_view key) const;
  /// Adds a mistake at the place of `key`, or of its table when the key is absent.
  void complain(std::string_view key, const std::string& what_and_cure);
  /// kInvalid with one line for each mistake, in the order of the file.
  Status finish();
  const std::set<std::string>& known() const { return known_; }

 private:
  struct Document;
  struct Mistake {
    std::uint32_t line = 0, column = 0;
    std::string text;
  };
  void know(std::string_view key);
  void find_unknown();
  void find_unknown_lists();
  bool is_list(const std::string& table) const { return lists_.count(table) != 0; }
  void add(std::uint32_t line, std::uint32_t column, std::string text);

  std::string path_;
  bool parsed_ = false;
  std::unique_ptr<Document> document_;
  std::set<std::string> known_;
  std::set<std::string> lists_;  // tables that are written as [[name]]
  std::vector<Mistake> mistakes_;
};

}  // namespace tandem::daemon
