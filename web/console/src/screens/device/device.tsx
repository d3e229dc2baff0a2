// One device: what it is, and a tab for each thing one does with it.
import { Button, Group, Tabs } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense } from "react";
import { Link, useParams } from "react-router";
import { getDevice } from "../../api/calls";
import { asProblem } from "../../api/problem";
import { useMay } from "../../api/session";
import type { Device as DeviceData, DeviceStatus } from "../../api/shapes";
import { useLive } from "../../live/hooks";
import { useAddress } from "../../parts/address";
import { Ago } from "../../parts/ago";
import { CopyButton } from "../../parts/copy";
import { Failure, Lines } from "../../parts/states";
import { Status } from "../../parts/status";
import { clip } from "../../text/clip";
import { Actions } from "./actions";
import { Commands } from "./commands";
import { Credentials } from "./credentials";
import { Facts } from "./facts";
import { Timeline } from "./timeline";
import { Twin } from "./twin";

const Telemetry = lazy(() => import("./telemetry"));

const tabs = [
  ["summary", "Telemetry"],
  ["twin", "Twin"],
  ["commands", "Commands"],
  ["timeline", "Timeline"],
  ["credentials", "Credentials"],
] as const;
const tabNames = tabs.map(([name]) => name);

export default function Device() {
  const id = useParams().id!;
  const queries = useQueryClient();
  const device = useQuery({ queryKey: ["devices", "one", id], queryFn: () => getDevice(id), refetchInterval: 15_000 });
  useLive("presence", id, (data) => {
    const change = data as { status?: DeviceStatus; at?: string };
    if (!change.status) return;
    queries.setQueryData<DeviceData>(
      ["devices", "one", id],
      (before) => before && { ...before, status: change.status!, since: change.at ?? before.since },
    );
    void queries.invalidateQueries({ queryKey: ["devices", "one", id] });
  });
  if (device.isError && !device.data) {
    return asProblem(device.error).status === 404 ? (
      <div className="empty">
        <h2>There is no device “{clip(id, 64)}”</h2>
        <p>It may have been deleted.</p>
        <Button component={Link} to="/devices">
          All devices
        </Button>
      </div>
    ) : (
      <Failure what="The device could not be loaded" error={device.error} retry={() => void device.refetch()} />
    );
  }
  if (!device.data)
    return (
      <>
        <div className="head">
          <h1 className="mono">{clip(id, 64)}</h1>
        </div>
        <Lines rows={10} />
      </>
    );
  return (
    <>
      <Head device={device.data} />
      <Facts device={device.data} />
      <DeviceTabs device={device.data} />
    </>
  );
}

function Head({ device }: { device: DeviceData }) {
  const mayAct = useMay("operator");
  return (
    <div className="head" style={{ marginBottom: 8 }}>
      <div>
        <h1>
          <span className="mono">{device.id}</span> <CopyButton text={device.id} label="Copy the id" />
        </h1>
        {device.name !== device.id && (
          <div className="dim" style={{ overflowWrap: "anywhere" }} data-testid="device-name">
            {clip(device.name, 128)}
          </div>
        )}
      </div>
      <Group gap="sm">
        <Status state={device.status} testid="device-status" quiet={false} />
        {device.status !== "never_seen" && (
          <span className="dim" style={{ fontSize: "0.8125rem" }}>
            since <Ago at={device.since} />
          </span>
        )}
        {mayAct && <Actions device={device} />}
      </Group>
    </div>
  );
}

function DeviceTabs({ device }: { device: DeviceData }) {
  const address = useAddress();
  const { id } = device;
  return (
    <Tabs
      value={address.pick("tab", tabNames) || tabNames[0]}
      onChange={(next) => address.set({ tab: next === tabNames[0] ? null : next, cursor: null })}
      keepMounted={false}
      mt={14}
    >
      <Tabs.List className="tabs-scroll" mb={16}>
        {tabs.map(([name, label]) => (
          <Tabs.Tab key={name} value={name} data-testid={`tab-${name}`}>
            {label}
          </Tabs.Tab>
        ))}
      </Tabs.List>
      <Tabs.Panel value="summary">
        <Suspense fallback={<Lines rows={8} />}>
          <Telemetry id={id} />
        </Suspense>
      </Tabs.Panel>
      <Tabs.Panel value="twin">
        <Twin id={id} />
      </Tabs.Panel>
      <Tabs.Panel value="commands">
        <Commands id={id} online={device.status === "online"} />
      </Tabs.Panel>
      <Tabs.Panel value="timeline">
        <Timeline id={id} />
      </Tabs.Panel>
      <Tabs.Panel value="credentials">
        <Credentials id={id} />
      </Tabs.Panel>
    </Tabs>
  );
}
