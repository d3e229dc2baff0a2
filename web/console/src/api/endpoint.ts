// Where devices reach this server, for the commands that the console shows.
import type { Endpoint } from "../text/snippets";

export function useEndpoint(): Endpoint {
  return { host: location.hostname, mqttPort: 1883, httpPort: 8081 };
}
