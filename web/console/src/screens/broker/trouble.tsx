// What a tab shows when there is nothing to show: also that the broker is somebody else's, which no retry will change.
import { Button } from "@mantine/core";
import { Link } from "react-router";
import { asProblem } from "../../api/problem";
import { useMay } from "../../api/session";
import { Empty, Failure } from "../../parts/states";
import { clip } from "../../text/clip";

/** The broker is in another process, or its engine does not tell. */
export function isElsewhere(error: unknown): boolean {
  return error !== null && asProblem(error).status === 409;
}

/** How often to ask again; never, where the answer stays the same. */
export function unlessElsewhere(ms: number) {
  return (query: { state: { error: unknown } }): number | false => (isElsewhere(query.state.error) ? false : ms);
}

export function Trouble({ what, error, retry }: { what: string; error: unknown; retry: () => void }) {
  if (!isElsewhere(error)) return <Failure what={what} error={error} retry={retry} />;
  return (
    <Empty title="Not known here">
      {sentence(clip(asProblem(error).message, 300))} With <span className="mono nowrap">broker.engine = "native"</span>{" "}
      in the settings, this server runs a broker of its own, and this page shows all of it.
    </Empty>
  );
}

/** The way on where no device has spoken yet; for those who may take it. */
export function Connect() {
  return useMay("operator") ? (
    <Button component={Link} to="/devices?add=1">
      Add a device
    </Button>
  ) : null;
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
}
