#include "ctl/history_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "ctl/format.h"

namespace tandem::ctl {
namespace {

constexpr std::size_t kColumns = 60;

std::uint64_t past(std::uint64_t now, std::uint64_t then) { return now > then ? now - then : 0; }

/// What happened at a position.
struct Marker {
  UtcNs utc;
  Lsn lsn;
  // history | snapshot | branch | point | promotion | create | resize | delete (of a volume) | now
  std::string kind;
  std::string name;
  std::string text;
  std::optional<std::uint64_t> payload_bytes{};  // where it is known
  std::string consistency{};                     // of a kept state
  const VolumeChange* change = nullptr;
};

std::string state_text(const SnapshotStatus& s) {
  std::string text = s.kind + " " + s.name;
  if (s.kind == "snapshot") text += ", " + s.consistency;
  if (s.kind == "branch") text += ": the end of what was abandoned";
  return text + (s.label.empty() ? "" : " (" + s.label + ")");
}

Marker marker_of(const VolumeChange& change) {
  Marker m{change.at.utc, change.at.lsn, "", change.volume, "", change.at.payload_bytes, "",
           &change};
  switch (change.kind) {
    case VolumeChange::Kind::kCreated:
      m.kind = "create";
      m.text = "volume " + m.name + " created, " + size_text(change.new_bytes);
      break;
    case VolumeChange::Kind::kResized:
      m.kind = "resize";
      m.text = "volume " + m.name + " resized from " + size_text(change.old_bytes) + " to " +
               size_text(change.new_bytes);
      break;
    case VolumeChange::Kind::kDeleted:
      m.kind = "delete";
      m.text = "volume " + m.name + " deleted, it had " + size_text(change.old_bytes);
      break;
  }
  return m;
}

std::vector<Marker> markers(const HistoryView& view) {
  std::vector<Marker> all;
  for (const auto& s : view.group->snapshots)
    all.push_back({s.utc, s.lsn, s.kind, s.name, state_text(s), s.payload_bytes, s.consistency});
  for (const auto& fork : view.group->history) {
    if (fork.timeline <= Timeline{1}) continue;  // the beginning of all
    const std::string number = std::to_string(fork.timeline.value);
    all.push_back({fork.utc, fork.fork.next(), "promotion", number,
                   "promotion: timeline " + number + " begins", std::nullopt});
  }
  const auto& h = view.history;
  for (const auto& change : h.volume_changes) all.push_back(marker_of(change));
  if (h.start)
    all.push_back(
        {h.start->utc, h.start->lsn, "history", "", "the history begins", h.start->payload_bytes});
  all.push_back({h.head.utc, h.head.lsn, "now", "", "the last record", h.head.payload_bytes});
  std::erase_if(all, [&](const Marker& m) { return m.utc < view.from || m.utc > view.to; });
  std::stable_sort(all.begin(), all.end(), [](const Marker& a, const Marker& b) {
    return std::tie(a.lsn, a.utc) < std::tie(b.lsn, b.utc);
  });
  return all;
}

std::string clock_text(UtcNs time) { return time_text(time).substr(11, 8); }

/// With what was written since the row before, where both know it.
std::string markers_text(const HistoryView& view) {
  Table table({"TIME", "RECORD", "WRITTEN SINCE", "WHAT"});
  std::optional<std::uint64_t> before;
  for (const auto& m : markers(view)) {
    std::string written;
    if (m.payload_bytes && before) written = size_text(past(*m.payload_bytes, *before));
    if (m.payload_bytes) before = m.payload_bytes;
    table.row({time_text(m.utc), std::to_string(m.lsn.value), written, m.text});
  }
  return table.empty() ? "" : table.text();
}

std::string rate_text(const HistoryView& view) {
  const auto all = samples(view);
  if (all.size() < 2) return "";
  const auto values = columns_of(all, kColumns);
  const std::uint64_t ns = past(all.back().utc.value, all.front().utc.value);
  if (ns == 0) return "";
  const double column = static_cast<double>(ns) / 1e9 / kColumns;
  const auto most = static_cast<double>(*std::max_element(values.begin(), values.end()));
  std::string out = "  " + clock_text(all.front().utc) + " " + sparkline(values) + " " +
                    clock_text(all.back().utc) + "\n";
  out += "  " + size_text(past(all.back().payload_bytes, all.front().payload_bytes)) +
         " written; each column is " +
         duration_text(std::chrono::nanoseconds(static_cast<std::int64_t>(ns / kColumns))) +
         ", the highest " + size_text(static_cast<std::uint64_t>(most / column)) + " a second\n";
  return out;
}

}  // namespace

std::vector<Sample> samples(const HistoryView& view) {
  std::vector<Sample> all;
  const auto& h = view.history;
  const auto add = [&](UtcNs utc, const LogPoint& at) {
    if (utc < view.from || utc > view.to) return;
    Sample sample{utc, at.lsn, at.payload_bytes};
    if (!all.empty()) {
      if (utc == all.back().utc && at.lsn == all.back().lsn) return;
      if (utc < all.back().utc || at.lsn < all.back().lsn) return;
      sample.bytes = past(at.payload_bytes, all.back().payload_bytes);
      const std::uint64_t ns = past(utc.value, all.back().utc.value);
      if (ns != 0)
        sample.bytes_per_second = static_cast<double>(sample.bytes) / static_cast<double>(ns) * 1e9;
    }
    all.push_back(sample);
  };
  if (!h.start) return all;
  add(h.start->utc, *h.start);
  for (const auto& mark : h.marks) add(mark.utc, mark);
  add(h.head.utc, h.head);
  if (h.now > h.head.utc) add(h.now, h.head);  // nothing was written since
  return all;
}

std::vector<std::uint64_t> columns_of(const std::vector<Sample>& samples, std::size_t columns) {
  std::vector<std::uint64_t> values(columns);
  if (samples.size() < 2) return values;
  const std::uint64_t begin = samples.front().utc.value;
  const auto width =
      static_cast<double>(samples.back().utc.value - begin) / static_cast<double>(columns);
  const auto column_of = [&](std::uint64_t utc) {
    const double at = width == 0 ? 0 : static_cast<double>(utc - begin) / width;
    return std::min(at, static_cast<double>(columns));
  };
  for (std::size_t i = 1; i < samples.size(); ++i) {
    // Evenly over the time between the two.
    const double from = column_of(samples[i - 1].utc.value), to = column_of(samples[i].utc.value);
    const auto bytes = static_cast<double>(samples[i].bytes);
    auto column = std::min(static_cast<std::size_t>(from), columns - 1);
    if (to <= from) {
      values[column] += samples[i].bytes;
      continue;
    }
    for (; column < columns && static_cast<double>(column) < to; ++column) {
      const double left = std::max(from, static_cast<double>(column));
      const double right = std::min(to, static_cast<double>(column + 1));
      values[column] += static_cast<std::uint64_t>(bytes * (right - left) / (to - from));
    }
  }
  return values;
}

std::string sparkline(const std::vector<std::uint64_t>& values) {
  constexpr const char* kHeights[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const std::uint64_t most = values.empty() ? 0 : *std::max_element(values.begin(), values.end());
  std::string out;
  for (const auto value : values) {
    if (value == 0) {
      out += ".";
      continue;
    }
    const double part = static_cast<double>(value) / static_cast<double>(most);
    out += kHeights[std::min<std::size_t>(static_cast<std::size_t>(part * 8), 7)];
  }
  return out;
}

std::string history_text(const HistoryView& view) {
  const auto& h = view.history;
  std::string out = "History of group " + view.group->name + " on node " + view.node + "\n";
  const auto line = [&](std::string name, const std::string& value) {
    name.resize(14, ' ');
    out += "  " + name + value + "\n";
  };
  if (h.start) {
    line("from", "record " + std::to_string(h.start->lsn.value) + " of " + time_text(h.start->utc) +
                     ", " + age_text(h.start->utc, h.now));
    line("to", "record " + std::to_string(h.head.lsn.value) + " of " + time_text(h.head.utc) +
                   ", " + age_text(h.head.utc, h.now));
    line("cost", size_text(h.bytes));
  } else {
    line("kept", h.window == "off"
                     ? "none: 'tandem group set " + view.group->name + " history=6h' keeps one"
                     : "none yet");
  }
  line("settings", "history=" + h.window + ", history.bytes=" + h.bytes_max);
  const std::string rate = rate_text(view);
  if (!rate.empty()) out += "\n" + rate;
  const std::string table = markers_text(view);
  if (!table.empty()) out += "\n" + table;
  return out;
}

Json to_json(const HistoryView& view) {
  const auto& h = view.history;
  Json out = {{"node", view.node},
              {"group", view.group->name},
              {"now_utc_ns", h.now.value},
              {"history", h.window},
              {"history.bytes", h.bytes_max},
              {"start", nullptr},
              {"head", to_json(h.head)},
              {"bytes", h.bytes},
              {"samples", Json::array()},
              {"markers", Json::array()}};
  if (h.start) out["start"] = to_json(*h.start);
  for (const auto& s : samples(view)) {
    out["samples"].push_back({{"utc_ns", s.utc.value},
                              {"lsn", s.lsn.value},
                              {"payload_bytes", s.payload_bytes},
                              {"bytes", s.bytes},
                              {"bytes_per_second", s.bytes_per_second}});
  }
  for (const auto& m : markers(view)) {
    out["markers"].push_back({{"utc_ns", m.utc.value},
                              {"lsn", m.lsn.value},
                              {"kind", m.kind},
                              {"name", m.name},
                              {"text", m.text}});
    auto& marker = out["markers"].back();
    if (!m.consistency.empty()) marker["consistency"] = m.consistency;
    if (m.change == nullptr) continue;
    marker["old_bytes"] = m.change->old_bytes;
    marker["new_bytes"] = m.change->new_bytes;
  }
  return out;
}

}  // namespace tandem::ctl
