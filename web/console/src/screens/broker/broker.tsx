// The MQTT broker in this server: who is connected, what is published, how it does.
import { Tabs } from "@mantine/core";
import { useAddress } from "../../parts/address";
import { Metrics } from "./metrics";
import { Sessions } from "./sessions";
import { Topics } from "./topics";

const tabs = [
  ["sessions", "Sessions"],
  ["topics", "Topics"],
  ["metrics", "Metrics"],
] as const;
const tabNames = tabs.map(([name]) => name);

export default function Broker() {
  const address = useAddress();
  return (
    <>
      <div className="head">
        <h1>Broker</h1>
      </div>
      <Tabs
        value={address.pick("tab", tabNames) || tabNames[0]}
        onChange={(next) => address.set({ tab: next === tabNames[0] ? null : next, q: null, prefix: null })}
        keepMounted={false}
      >
        <Tabs.List className="tabs-scroll" mb={16}>
          {tabs.map(([name, label]) => (
            <Tabs.Tab key={name} value={name} data-testid={`tab-${name}`}>
              {label}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        <Tabs.Panel value="sessions">
          <Sessions />
        </Tabs.Panel>
        <Tabs.Panel value="topics">
          <Topics />
        </Tabs.Panel>
        <Tabs.Panel value="metrics">
          <Metrics />
        </Tabs.Panel>
      </Tabs>
    </>
  );
}
