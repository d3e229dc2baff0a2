// Search everything: places, devices by id or name, and what to do next.
import { Spotlight, spotlight, type SpotlightActionData } from "@mantine/spotlight";
import { useDebouncedValue } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { useNavigate } from "react-router";
import { listDevices } from "../api/calls";
import { useMay } from "../api/session";
import { Icon } from "../parts/icons";
import { wordOf } from "../parts/status";
import { clip } from "../text/clip";

export const openSearch = (): void => spotlight.open();

export function Search() {
  const navigate = useNavigate();
  const [query, setQuery] = useState("");
  const [asked] = useDebouncedValue(query.trim(), 200);
  const mayAct = useMay("operator");
  const found = useQuery({
    queryKey: ["devices", "search", asked],
    queryFn: () => listDevices({ q: asked, limit: 8 }),
    enabled: asked !== "",
  });
  const go = (to: string) => () => void navigate(to);
  const word = query.trim().toLowerCase();
  const places: SpotlightActionData[] = [
    { id: "overview", label: "Overview", onClick: go("/") },
    { id: "devices", label: "Devices", onClick: go("/devices") },
    { id: "offline", label: "Devices that are offline", onClick: go("/devices?status=offline") },
    { id: "profiles", label: "Profiles", onClick: go("/profiles") },
    { id: "firmware", label: "Firmware", onClick: go("/firmware") },
    { id: "campaigns", label: "Updates", onClick: go("/campaigns") },
    { id: "broker", label: "Broker sessions", onClick: go("/broker") },
    { id: "topics", label: "Broker topics", onClick: go("/broker?tab=topics") },
    { id: "metrics", label: "Broker metrics", onClick: go("/broker?tab=metrics") },
    { id: "dead-letters", label: "Dead letters", onClick: go("/dead-letters") },
    { id: "audit", label: "Audit", onClick: go("/audit") },
    { id: "settings", label: "Settings", onClick: go("/settings") },
    ...(mayAct
      ? [
          { id: "add", label: "Add a device", onClick: go("/devices?add=1") },
          { id: "update", label: "Update devices", onClick: go("/campaigns/new") },
        ]
      : []),
  ].filter(({ label }) => label.toLowerCase().includes(word));
  const devices: SpotlightActionData[] = (asked && found.data?.items ? found.data.items : []).map((device) => ({
    id: `device ${device.id}`,
    label: device.id,
    onClick: go(`/devices/${encodeURIComponent(device.id)}`),
    description: `${wordOf(device.status)}${device.name === device.id ? "" : ` · ${clip(device.name, 60)}`}`,
    leftSection: <Icon name="devices" />,
  }));
  // Answers come after the typing, which already picked its first action: the first answer is what Enter opens.
  const first = devices[0]?.id ?? places[0]?.id;
  useEffect(() => {
    if (word === "") return;
    const frame = requestAnimationFrame(() => {
      const list = document.querySelector("[role=dialog] [role=listbox]") ?? document;
      if (!list.querySelector("[data-action][data-selected]"))
        list.querySelector("[data-action]")?.setAttribute("data-selected", "true");
    });
    return () => cancelAnimationFrame(frame);
  }, [first, word]);
  const groups = [
    ...(devices.length ? [{ group: "Devices", actions: devices }] : []),
    ...(places.length ? [{ group: "Go to", actions: places }] : []),
  ];
  return (
    <Spotlight
      actions={groups}
      query={query}
      onQueryChange={setQuery}
      filter={(_, actions) => actions}
      shortcut="mod + K"
      clearQueryOnClose
      nothingFound={found.isFetching ? "Searching…" : "Nothing found"}
      limit={20}
      scrollable
      overlayProps={{ backgroundOpacity: 0.4, blur: 0 }}
      maxHeight={420}
      searchProps={{
        leftSection: <Icon name="search" />,
        placeholder: "Device, place, action",
        "aria-label": "Search everything",
      }}
    />
  );
}
