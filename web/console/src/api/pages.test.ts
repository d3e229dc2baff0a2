import { describe, expect, it } from "vitest";
import { upsert } from "./pages";

const at = (second: number): string => new Date(1_800_000_000_000 + second * 1000).toISOString();
const entry = (id: string, second = 0) => ({ id, updated_at: at(second) });
const page = (...ids: string[]) => ({ items: ids.map((id) => entry(id)), next_cursor: null, total: ids.length });

describe("a page that changes while it is shown", () => {
  it("counts what is added", () => {
    const first = upsert(page(), entry("01A"), true);
    expect([first.items.length, first.total]).toEqual([1, 1]);
    const second = upsert(first, entry("01B"), true);
    expect([second.items.map(({ id }) => id), second.total]).toEqual([["01B", "01A"], 2]);
    expect(upsert({ ...page("01A"), total: null }, entry("01B"), true).total).toBeNull();
  });
  it("takes a change in place, unless it has a newer one", () => {
    const changed = upsert(page("01B", "01A"), entry("01A", 5), true);
    expect([changed.items[1], changed.total]).toEqual([entry("01A", 5), 2]);
    expect(upsert(changed, entry("01A", 3), true).items[1]).toEqual(entry("01A", 5));
  });
  it("leaves alone what is on another page", () => {
    expect(upsert(page("01C", "01B"), entry("01A"), true)).toEqual(page("01C", "01B"));
    expect(upsert(page("01A"), entry("01B"), false)).toEqual(page("01A"));
  });
});
