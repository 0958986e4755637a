// Volumes: making, growing, deleting.
#include "ctl/commands.h"
#include "ctl/format.h"

namespace tandem::ctl {

Exit run_volume_create(Context& context, const CreateVolume& request) {
  // A volume of an existing group belongs where the group is served; a new group to the first node.
  const auto wanted = request.group.empty() ? request.name : request.group;
  auto& nodes = context.settings.nodes;
  if (request.group.empty() && nodes.size() > 1) nodes.resize(1);
  auto chosen = choose(context, context.settings.timeout, "group " + wanted + " as primary",
                       holds_group(wanted, Role::kPrimary));
  if (!chosen.client) return chosen.exit;
  const auto status = chosen.client->create_volume(request);
  return finish(context, *chosen.client, status,
                "Volume " + request.name + " of " + size_text(request.size_bytes) +
                    " was created in group " + wanted + " at " + chosen.client->address() + ".");
}

Exit run_volume_resize(Context& context, const std::string& name, std::uint64_t size_bytes) {
  auto chosen = choose(context, context.settings.timeout, "volume " + name + " as primary",
                       serves_volume(name));
  if (!chosen.client) return chosen.exit;
  const auto status = chosen.client->resize_volume(name, size_bytes);
  return finish(context, *chosen.client, status,
                "Volume " + name + " has " + size_text(size_bytes) +
                    " now. Clients see it when they connect again.");
}

Exit run_volume_delete(Context& context, const std::string& name, bool yes) {
  auto chosen = choose(context, context.settings.timeout, "volume " + name + " as primary",
                       serves_volume(name));
  if (!chosen.client) return chosen.exit;
  if (!confirmed(context, yes,
                 "This deletes volume " + name + " and all its data, on the mirrors too.", name))
    return Exit::kRefused;
  const auto status = chosen.client->delete_volume(name);
  return finish(context, *chosen.client, status, "Volume " + name + " was deleted.");
}

}  // namespace tandem::ctl
