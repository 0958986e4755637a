#include "daemon/config_reader.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

#include "daemon/config.h"

namespace tandem::daemon {
namespace {

std::string quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

/// Levenshtein's distance, for "did you mean".
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

std::optional<std::string> nearest(const std::string& wrong, const std::set<std::string>& known) {
  std::optional<std::string> best;
  std::size_t best_distance = 4;  // further away is no hint
  for (const auto& candidate : known) {
    const auto d = distance(wrong, candidate);
    if (d < best_distance) {
      best_distance = d;
      best = candidate;
    }
  }
  return best;
}

std::string a_type(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "a number";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "true or false";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::table:
      return "a table";
    default:
      return "a date or time";
  }
}

}  // namespace

struct ConfigReader::Document {
  toml::table root;
  const toml::node* find(std::string_view key) const { return root.at_path(key).node(); }
};

ConfigReader::ConfigReader(std::string_view text, std::string path)
    : path_(std::move(path)), document_(std::make_unique<Document>()) {
  auto parsed = toml::parse(text, path_);
  if (!parsed) {
    const auto& at = parsed.error().source().begin;
    add(at.line, at.column,
        std::string(parsed.error().description()) + "; correct the TOML syntax there");
    return;
  }
  document_->root = std::move(parsed).table();
  parsed_ = true;
}

ConfigReader::~ConfigReader() = default;

bool ConfigReader::has(std::string_view key) const { return document_->find(key) != nullptr; }

void ConfigReader::add(std::uint32_t line, std::uint32_t column, std::string text) {
  mistakes_.push_back({line, column, std::move(text)});
}

void ConfigReader::complain(std::string_view key, const std::string& what_and_cure) {
  const toml::node* node = document_->find(key);
  if (node == nullptr) node = document_->find(key.substr(0, key.find('.')));
  const auto at = node != nullptr ? node->source().begin : toml::source_position{1, 1};
  add(at.line, at.column, std::string(key) + ": " + what_and_cure);
}

std::size_t ConfigReader::count_tables(std::string_view name,
                                       std::initializer_list<const char*> keys) {
  lists_.emplace(name);
  for (const char* key : keys) known_.insert(std::string(name) + "." + key);
  const toml::node* node = document_->find(name);
  if (node == nullptr) return 0;
  if (node->is_array_of_tables()) return node->as_array()->size();
  complain(name, "is " + a_type(*node) + "; write [[" + std::string(name) + "]] for each");
  return 0;
}

void ConfigReader::know(std::string_view key) {
  if (key.find('[') == std::string_view::npos) known_.emplace(key);
}

bool ConfigReader::take_string(std::string_view key, std::string& out) {
  know(key);
  const toml::node* node = document_->find(key);
  if (node == nullptr) return false;
  if (!node->is_string()) {
    complain(key, "is " + a_type(*node) + "; write a string in quotes");
    return false;
  }
  out = node->as_string()->get();
  return true;
}

bool ConfigReader::take_strings(std::string_view key, std::vector<std::string>& out) {
  know(key);
  const toml::node* node = document_->find(key);
  if (node == nullptr) return false;
  const toml::array* list = node->as_array();
  if (list == nullptr || !std::all_of(list->begin(), list->end(),
                                      [](const toml::node& item) { return item.is_string(); })) {
    complain(key, "is not a list of strings; write [\"one\", \"two\"]");
    return false;
  }
  out.clear();
  for (const toml::node& item : *list) out.push_back(item.as_string()->get());
  return true;
}

bool ConfigReader::take_bool(std::string_view key, bool& out) {
  know(key);
  const toml::node* node = document_->find(key);
  if (node == nullptr) return false;
  if (!node->is_boolean()) {
    complain(key, "is " + a_type(*node) + "; write true or false, without quotes");
    return false;
  }
  out = node->as_boolean()->get();
  return true;
}

bool ConfigReader::take_integer(std::string_view key, std::int64_t least, std::int64_t most,
                                std::int64_t& out) {
  know(key);
  const toml::node* node = document_->find(key);
  if (node == nullptr) return false;
  const auto range = "write a whole number from " + std::to_string(least) + " to " +
                     std::to_string(most) + ", without quotes";
  if (!node->is_integer()) {
    complain(key, "is " + a_type(*node) + "; " + range);
    return false;
  }
  const std::int64_t value = node->as_integer()->get();
  if (value < least || value > most) {
    complain(key, std::to_string(value) + " is out of range; " + range);
    return false;
  }
  out = value;
  return true;
}

namespace {

std::string size_text(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  while (unit + 1 < std::size(kUnits) && bytes != 0 && bytes % 1024 == 0) {
    bytes /= 1024;
    ++unit;
  }
  return std::to_string(bytes) + kUnits[unit];
}

std::string duration_text(Nanoseconds d) {
  if (d.count() % 1'000'000'000 == 0) return std::to_string(d.count() / 1'000'000'000) + "s";
  if (d.count() % 1'000'000 == 0) return std::to_string(d.count() / 1'000'000) + "ms";
  return std::to_string(d.count() / 1'000) + "us";
}

}  // namespace

bool ConfigReader::take_size(std::string_view key, std::uint64_t least, std::uint64_t most,
                             std::uint64_t& out) {
  know(key);
  const toml::node* node = document_->find(key);
  if (node == nullptr) return false;
  std::string text;
  if (node->is_string()) {
    text = node->as_string()->get();
  } else if (node->is_integer() && node->as_integer()->get() >= 0) {
    text = std::to_string(node->as_integer()->get());
  } else {
    complain(key, "is " + a_type(*node) + "; write a size in quotes, such as \"16MiB\"");
    return false;
  }
  auto bytes = parse_size(text);
  if (!bytes) {
    complain(key, bytes.error().message);
    return false;
  }
  if (*bytes < least || *bytes > most) {
    complain(key, quoted(text) + " is out of range; write a size from \"" + size_text(least) +
                      "\" to \"" + size_text(most) + "\"");
    return false;
  }
  out = *bytes;
  return true;
}

bool ConfigReader::take_duration(std::string_view key, Nanoseconds least, Nanoseconds most,
                                 Nanoseconds& out) {
  know(key);
  const toml::node* node = document_->find(key);
  if (node == nullptr) return false;
  if (!node->is_string()) {
    complain(key, "is " + a_type(*node) + "; write a time in quotes, such as \"10s\"");
    return false;
  }
  const std::string& text = node->as_string()->get();
  auto duration = parse_duration(text);
  if (!duration) {
    complain(key, duration.error().message);
    return false;
  }
  if (*duration < least || *duration > most) {
    complain(key, quoted(text) + " is out of range; write a time from \"" + duration_text(least) +
                      "\" to \"" + duration_text(most) + "\"");
    return false;
  }
  out = *duration;
  return true;
}

void ConfigReader::find_unknown() {
  std::set<std::string> tables;
  for (const auto& key : known_) tables.insert(key.substr(0, key.find('.')));
  const auto hint = [](const std::optional<std::string>& meant) {
    return meant ? "; did you mean " + *meant + "?" : std::string("; remove it");
  };
  for (const auto& [name, node] : document_->root) {
    const std::string table(name.str());
    const auto& at = name.source().begin;
    if (!tables.contains(table)) {
      // A key that was written above its [table] is found under that name.
      std::optional<std::string> meant = nearest(table, tables);
      for (const auto& key : known_) {
        if (!meant && key.substr(key.find('.') + 1) == table) meant = key;
      }
      add(at.line, at.column,
          table + ": nobody knows this " + (node.is_table() ? "table" : "key") + hint(meant));
      continue;
    }
    if (is_list(table)) continue;
    const toml::table* entries = node.as_table();
    if (entries == nullptr) {
      add(at.line, at.column, table + ": is " + a_type(node) + "; write a table: [" + table + "]");
      continue;
    }
    for (const auto& [entry, value] : *entries) {
      const std::string key = table + "." + std::string(entry.str());
      if (known_.contains(key)) continue;
      const auto& where = entry.source().begin;
      add(where.line, where.column, key + ": nobody knows this key" + hint(nearest(key, known_)));
    }
  }
}

void ConfigReader::find_unknown_lists() {
  for (const auto& name : lists_) {
    const toml::node* node = document_->find(name);
    if (node == nullptr || !node->is_array_of_tables()) continue;  // complained of already
    for (const toml::node& table : *node->as_array()) {
      for (const auto& [entry, value] : *table.as_table()) {
        const std::string key = name + "." + std::string(entry.str());
        if (known_.contains(key)) continue;
        const auto& where = entry.source().begin;
        const auto meant = nearest(key, known_);
        add(where.line, where.column,
            key + ": nobody knows this key" +
                (meant ? "; did you mean " + *meant + "?" : "; remove it"));
      }
    }
  }
}

Status ConfigReader::finish() {
  find_unknown();
  find_unknown_lists();
  if (mistakes_.empty()) return ok();
  std::stable_sort(mistakes_.begin(), mistakes_.end(), [](const Mistake& a, const Mistake& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  std::string message;
  for (const auto& mistake : mistakes_) {
    if (!message.empty()) message += "\n";
    message += path_ + ":" + std::to_string(mistake.line) + ":" + std::to_string(mistake.column) +
               ": " + mistake.text;
  }
  return Error{ErrorCode::kInvalid, message};
}

}  // namespace tandem::daemon
