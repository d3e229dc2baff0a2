// Where devices reach this server, for the commands that the console shows.
import { useQuery } from "@tanstack/react-query";
import { endpointOf, type Endpoint } from "../text/endpoint";
import { getOverview } from "./calls";

export function useEndpoint(): { at: Endpoint | undefined; error: unknown; retry: () => void } {
  const overview = useQuery({ queryKey: ["overview"], queryFn: getOverview });
  const endpoints = overview.data?.endpoints;
  return {
    at: endpoints && endpointOf(endpoints, location.hostname),
    error: overview.error,
    retry: () => void overview.refetch(),
  };
}
