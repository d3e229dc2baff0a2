// The rows of the topic tree: what is unfolded, with what is there of it. Pure.
import type { TopicLevel } from "../../api/shapes";
import { rateOf, type Sample } from "./samples";

/** One level of the tree as it was asked for last. */
export interface Branch {
  items: readonly TopicLevel[];
  total: number;
  samples: readonly Sample[];
}

export interface BranchState {
  branch: Branch | undefined;
  failed: boolean;
}

export type TopicRow =
  | {
      kind: "level";
      id: string;
      depth: number;
      level: TopicLevel;
      rate: number | null;
      unfolded: boolean;
      path: string;
    }
  | { kind: "loading"; id: string; depth: number; prefix: string }
  | { kind: "failed"; id: string; depth: number; prefix: string }
  | { kind: "more"; id: string; depth: number; prefix: string; hidden: number; shown: number };

/** What the levels below a level continue. Topics may have empty levels, so this alone tells two levels apart. */
export function prefixOf(level: TopicLevel): string {
  return `${level.topic}/`;
}

/** The part of a prefix that is whole levels. */
export function parentOf(prefix: string): string {
  return prefix.slice(0, prefix.lastIndexOf("/") + 1);
}

/**
 * Rows of the levels that continue `root`, each unfolded one with those below it. The key changes with what is unfolded
 * and loaded: between two changes of it, rows that come or go do so by themselves.
 */
export function flatten(
  root: string,
  unfolded: ReadonlySet<string>,
  stateOf: (prefix: string) => BranchState | undefined,
): { rows: TopicRow[]; key: string } {
  const rows: TopicRow[] = [];
  const key: unknown[] = [];
  const add = (prefix: string, depth: number): void => {
    const state = stateOf(prefix);
    const branch = state?.branch;
    if (!branch) {
      const kind = state?.failed ? "failed" : "loading";
      key.push([prefix, kind]);
      rows.push({ kind, id: `${kind} ${prefix}`, depth, prefix });
      return;
    }
    key.push([prefix, branch.items.length >= branch.total ? "all" : branch.items.length]);
    for (const level of branch.items) {
      const path = prefixOf(level);
      const isUnfolded = level.children > 0 && unfolded.has(path);
      rows.push({
        kind: "level",
        id: path,
        depth,
        level,
        rate: rateOf(branch.samples, level.topic),
        unfolded: isUnfolded,
        path,
      });
      if (isUnfolded) add(path, depth + 1);
    }
    const hidden = branch.total - branch.items.length;
    if (hidden > 0)
      rows.push({ kind: "more", id: `more ${prefix}`, depth, prefix, hidden, shown: branch.items.length });
  };
  add(root, 0);
  return { rows, key: JSON.stringify(key) };
}

/** The prefixes that have to be asked for: the root, and what is unfolded in what is there. */
export function wanted(
  root: string,
  unfolded: ReadonlySet<string>,
  branchOf: (prefix: string) => Branch | undefined,
): string[] {
  const found: string[] = [];
  const add = (prefix: string): void => {
    found.push(prefix);
    for (const level of branchOf(prefix)?.items ?? []) {
      const path = prefixOf(level);
      if (level.children > 0 && unfolded.has(path)) add(path);
    }
  };
  add(root);
  return found;
}

/** Milliseconds between two questions for each of `branches` levels: five a second in all, at most. */
export function pollMs(branches: number): number {
  return Math.max(2_000, branches * 200);
}
