// The server's parts, a row each: how it does, and what there is to say about it.
import type { Overview } from "../api/shapes";
import { Status } from "../parts/status";
import { clip } from "../text/clip";
import { bytes, plural } from "../text/numbers";

export function PartFacts({ overview }: { overview: Overview }) {
  return overview.parts.map(({ name, state, detail }) => {
    const more = [detail, ...figures(name, overview)].filter((text) => text !== "");
    return [
      <dt key={`${name} t`}>{clip(name.charAt(0).toUpperCase() + name.slice(1), 40)}</dt>,
      <dd key={`${name} d`} data-testid="part" data-part={name}>
        <Status state={state} testid="part-status" />
        {more.length > 0 && <span className="dim">&ensp;{clip(more.join(" · "), 240)}</span>}
      </dd>,
    ];
  });
}

function figures(part: string, { journal, store }: Overview): string[] {
  if (part === "journal") return [plural(journal.batches, "batch", "batches"), bytes(journal.bytes)];
  if (part !== "store") return [];
  return [
    store.kind,
    ...(store.points === null ? [] : [plural(store.points, "reading")]),
    ...(store.size_bytes === null ? [] : [bytes(store.size_bytes)]),
  ];
}
