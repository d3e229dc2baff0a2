// A JSON value or a text as it is, cut to a length: a payload may be huge, and is always text.
import { Anchor } from "@mantine/core";
import { useMemo, useState } from "react";
import { visible } from "../text/clip";
import { bytes } from "../text/numbers";
import { CopyButton } from "./copy";

const SHORT = 2_000;
const LONG = 100_000;

export function pretty(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? "");
}

export function Payload({ value, testid }: { value: unknown; testid?: string }) {
  const [all, setAll] = useState(false);
  const text = useMemo(() => visible(pretty(value)), [value]);
  const limit = all ? LONG : SHORT;
  return (
    <div style={{ position: "relative" }}>
      <pre className="payload" data-testid={testid} tabIndex={0}>
        {text.length > limit ? `${text.slice(0, limit)}…` : text}
      </pre>
      <span style={{ position: "absolute", right: 6, top: 6 }}>
        <CopyButton text={pretty(value)} />
      </span>
      {text.length > SHORT && (
        <Anchor component="button" type="button" size="xs" onClick={() => setAll(!all)}>
          {all
            ? "Show less"
            : `Show ${text.length > LONG ? `the first ${bytes(LONG)} of ` : "all "}${bytes(text.length)}`}
        </Anchor>
      )}
    </div>
  );
}
