// Pages of a list, newest first, that change while they are shown. Pure.
import type { Page } from "./shapes";

interface Entry {
  id: string;
  updated_at: string;
}

/** Put a changed entry in its place; a new one at the top of the first page, where the total then counts it. */
export function upsert<T extends Entry>(page: Page<T>, entry: T, isFirst: boolean): Page<T> {
  if (page.items.some(({ id }) => id === entry.id))
    return { ...page, items: page.items.map((each) => (each.id === entry.id ? newer(each, entry) : each)) };
  // Ids grow with time: an older one that is not here belongs to a later page.
  const top = page.items[0];
  if (!isFirst || (top && top.id > entry.id)) return page;
  return { ...page, items: [entry, ...page.items], total: page.total === null ? null : page.total + 1 };
}

/** The answer to a request may come after the event that followed it. */
function newer<T extends Entry>(a: T, b: T): T {
  return Date.parse(b.updated_at) >= Date.parse(a.updated_at) ? b : a;
}
