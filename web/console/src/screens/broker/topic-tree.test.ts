import { describe, expect, it } from "vitest";
import type { TopicLevel } from "../../api/shapes";
import { rateOf, withSample, type Sample } from "./samples";
import { flatten, parentOf, pollMs, wanted, type Branch } from "./topic-tree";

function level(topic: string, children = 0): TopicLevel {
  const name = topic.slice(topic.lastIndexOf("/") + 1);
  return { level: name, topic, children, messages: 1, retained: 0, subscribers: children ? null : 1 };
}

function branch(items: TopicLevel[], total = items.length): Branch {
  return { items, total, samples: [] };
}

const branches = new Map<string, Branch>([
  ["", branch([level("", 1), level("d", 3), level("plant")])],
  ["/", branch([level("/x")])],
  ["d/", branch([level("d/a", 2)], 500)],
]);
const branchOf = (prefix: string) => branches.get(prefix);
const stateOf = (prefix: string) => {
  const found = branches.get(prefix);
  return found && { branch: found, failed: false };
};
const brief = (unfolded: string[], root = "") =>
  flatten(root, new Set(unfolded), stateOf).rows.map(({ kind, id, depth }) => `${"  ".repeat(depth)}${kind} ${id}`);

describe("topic tree", () => {
  it("shows one level until something is unfolded", () => {
    expect(brief([])).toEqual(["level /", "level d/", "level plant/"]);
  });
  it("puts what is unfolded below its level, also an empty one", () => {
    expect(brief(["/", "d/"])).toEqual([
      "level /",
      "  level /x/",
      "level d/",
      "  level d/a/",
      "  more more d/",
      "level plant/",
    ]);
  });
  it("holds the place of what is being loaded, or could not be", () => {
    expect(brief(["d/", "d/a/"])).toContain("    loading loading d/a/");
    const failing = flatten("d/a/", new Set(), () => ({ branch: undefined, failed: true })).rows;
    expect(failing.map(({ kind }) => kind)).toEqual(["failed"]);
  });
  it("says how many levels are not shown", () => {
    const more = flatten("d/", new Set(), stateOf).rows.at(-1)!;
    expect(more).toMatchObject({ kind: "more", hidden: 499, shown: 1 });
  });
  it("has another key when something is unfolded, loaded or longer, and the same when values change", () => {
    const key = (unfolded: string[], of = stateOf) => flatten("", new Set(unfolded), of).key;
    const changed = (prefix: string) => {
      const found = branches.get(prefix);
      return found && { branch: { ...found, items: [...found.items].reverse() }, failed: false };
    };
    expect(key(["d/"])).toBe(key(["d/"], changed));
    expect(key(["d/"])).not.toBe(key([]));
    expect(key(["d/"])).not.toBe(key(["d/", "d/a/"]));
  });
  it("asks for nothing that is not to be seen", () => {
    expect(wanted("", new Set(["d/", "d/a/", "gone/", "plant/"]), branchOf)).toEqual(["", "d/", "d/a/"]);
  });
  it("asks less often the more there is to ask for", () => {
    expect([1, 10, 50].map(pollMs)).toEqual([2_000, 2_000, 10_000]);
  });
  it("splits what is searched into whole levels and a beginning", () => {
    expect(["", "dev", "devices/", "devices/pu"].map(parentOf)).toEqual(["", "", "devices/", "devices/"]);
  });
});

describe("rates", () => {
  const sample = (at: number, count?: number): Sample => ({
    at,
    counts: new Map(count === undefined ? [] : [["a", count]]),
  });
  it("come from the oldest of a few samples", () => {
    let samples: Sample[] = [];
    for (let i = 0; i < 20; i++) samples = withSample(samples, sample(i * 2_000, i * i));
    expect(samples.map(({ at }) => at)).toEqual([28_000, 30_000, 32_000, 34_000, 36_000, 38_000]);
    expect(rateOf(samples, "a")).toBe((19 * 19 - 14 * 14) / 10);
  });
  it("are not made up", () => {
    expect(rateOf([], "a")).toBe(null);
    expect(rateOf([sample(0, 5)], "a")).toBe(null);
    expect(rateOf([sample(0, 5), sample(100, 9)], "a")).toBe(null);
    expect(rateOf([sample(0, 5), sample(2_000, 1)], "a")).toBe(null);
    expect(rateOf([sample(0), sample(2_000, 1), sample(4_000, 5)], "a")).toBe(2);
  });
});
