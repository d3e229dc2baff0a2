// The commands that make a device speak, with this server's address and the device's own token.
import { Tabs } from "@mantine/core";
import { useEndpoint } from "../api/endpoint";
import { Snippet } from "../parts/copy";
import { Failure, Lines } from "../parts/states";
import { curl, mosquitto, python } from "../text/snippets";

export function Snippets({ id, token }: { id: string; token: string }) {
  const { at, error, retry } = useEndpoint();
  if (!at && error) return <Failure what="The server's address could not be loaded" error={error} retry={retry} />;
  if (!at) return <Lines rows={3} />;
  return (
    <Tabs defaultValue={at.mqtt ? "mqtt" : "http"}>
      <Tabs.List mb={8}>
        {at.mqtt && <Tabs.Tab value="mqtt">MQTT</Tabs.Tab>}
        <Tabs.Tab value="http">HTTP</Tabs.Tab>
        {at.mqtt && <Tabs.Tab value="python">Python</Tabs.Tab>}
      </Tabs.List>
      <Tabs.Panel value="http">
        <Snippet text={curl(at.http, token)} testid="snippet-http" />
      </Tabs.Panel>
      {at.mqtt && (
        <>
          <Tabs.Panel value="mqtt">
            <Snippet text={mosquitto(at.mqtt, id, token)} testid="snippet-mqtt" />
          </Tabs.Panel>
          <Tabs.Panel value="python">
            <Snippet text={python(at.mqtt, id, token)} testid="snippet-python" />
          </Tabs.Panel>
        </>
      )}
    </Tabs>
  );
}
