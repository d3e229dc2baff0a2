// The one table: dense rows, headers that sort, keys to walk it, and only the visible rows drawn when there are many.
// The server sorts where `sort` and `onSort` are given; otherwise the table sorts what it has.
import { Checkbox, VisuallyHidden } from "@mantine/core";
import {
  createSortedRowModel,
  rowSortingFeature,
  sortFns,
  tableFeatures,
  useTable,
  type ColumnDef,
  type SortingState,
} from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useMemo, useRef, useState, type ReactNode } from "react";

export interface Column<Row> {
  id: string;
  header: string;
  cell: (row: Row) => ReactNode;
  /** What the table sorts by, where the server does not; with the server, give `sortable`. */
  value?: (row: Row) => string | number | boolean | null;
  sortable?: boolean;
  align?: "right";
  width?: number | string;
  hide?: "sm" | "md";
  /** Holds buttons: never cut. */
  free?: boolean;
}

interface Props<Row> {
  columns: Column<Row>[];
  rows: Row[];
  rowId: (row: Row) => string;
  label: string;
  testid: string;
  rowData?: (row: Row) => Record<string, string>;
  onOpen?: (row: Row) => void;
  sort?: string;
  onSort?: (sort: string) => void;
  picked?: ReadonlySet<string>;
  onPick?: (ids: string[], picked: boolean) => void;
  maxHeight?: number | string;
  /** Pixels of the page above and below the table, when that has so many rows that it scrolls by itself. */
  around?: number;
  tree?: Tree<Row>;
}

/** Makes the table a tree: → and ← unfold and fold the row they are pressed on. */
export interface Tree<Row> {
  depth: (row: Row) => number;
  /** Undefined: there is nothing below. */
  unfolded: (row: Row) => boolean | undefined;
  fold: (row: Row, unfolded: boolean) => void;
}

const features = tableFeatures({ rowSortingFeature, sortedRowModel: createSortedRowModel(), sortFns });
type Features = typeof features;
const VIRTUAL_FROM = 150;
const ROW_HEIGHT = 36;

export function DataTable<Row extends object>({
  columns,
  rows,
  rowId,
  label,
  testid,
  rowData,
  onOpen,
  sort,
  onSort,
  picked,
  onPick,
  maxHeight,
  around = 220,
  tree,
}: Props<Row>) {
  const [ownSorting, setOwnSorting] = useState<SortingState>([]);
  const serverSorts = onSort !== undefined;
  const sorting: SortingState = serverSorts
    ? sort
      ? [{ id: sort.replace(/^-/, ""), desc: sort.startsWith("-") }]
      : []
    : ownSorting;
  const definitions = useMemo<ColumnDef<Features, Row>[]>(
    () =>
      columns.map((column) => ({
        id: column.id,
        accessorFn: column.value ?? (() => null),
        enableSorting: serverSorts ? column.sortable === true : column.value !== undefined,
      })),
    [columns, serverSorts],
  );
  const table = useTable<Features, Row>({
    features,
    columns: definitions,
    data: rows,
    getRowId: rowId,
    manualSorting: serverSorts,
    state: { sorting },
    onSortingChange: (change) => setOwnSorting(typeof change === "function" ? change(sorting) : change),
  });
  const shown = table.getRowModel().rows;
  const box = useRef<HTMLDivElement>(null);
  const isVirtual = shown.length > VIRTUAL_FROM;
  const virtual = useVirtualizer({
    count: shown.length,
    getScrollElement: () => box.current,
    estimateSize: () => ROW_HEIGHT,
    overscan: 12,
    enabled: isVirtual,
  });
  const items = isVirtual ? virtual.getVirtualItems() : null;
  const visible = items ? items.map((item) => shown[item.index]!) : shown;
  const above = items?.length ? items[0]!.start : 0;
  const below = items?.length ? virtual.getTotalSize() - items.at(-1)!.end : 0;
  useWalk(box, onOpen !== undefined);

  const turn = (id: string): void => {
    const current = sorting[0]?.id === id ? sorting[0] : undefined;
    const next = !current ? { id, desc: false } : { id, desc: !current.desc };
    if (onSort) onSort((next.desc ? "-" : "") + next.id);
    else setOwnSorting([next]);
  };
  const allPicked = rows.length > 0 && rows.every((row) => picked?.has(rowId(row)));
  const somePicked = rows.some((row) => picked?.has(rowId(row)));
  return (
    <div
      className="table-box"
      ref={box}
      style={{ maxHeight: maxHeight ?? (isVirtual ? `calc(100dvh - ${around}px)` : undefined) }}
    >
      <table
        className="rows"
        role={tree && "treegrid"}
        aria-label={label}
        data-testid={testid}
        aria-rowcount={shown.length}
      >
        <thead>
          <tr>
            {onPick && (
              <th style={{ width: 34 }}>
                <Checkbox
                  size="xs"
                  aria-label="Pick all shown"
                  checked={allPicked}
                  indeterminate={somePicked && !allPicked}
                  onChange={(event) => onPick(rows.map(rowId), event.currentTarget.checked)}
                  data-testid="pick-all"
                />
              </th>
            )}
            {columns.map((column) => {
              const order = sorting[0]?.id === column.id ? (sorting[0].desc ? "descending" : "ascending") : undefined;
              const canSort = serverSorts ? column.sortable : column.value;
              return (
                <th key={column.id} className={classes(column)} style={{ width: column.width }} aria-sort={order}>
                  {canSort ? (
                    <button type="button" onClick={() => turn(column.id)} data-testid={`sort-${column.id}`}>
                      {column.header}
                      {order === "ascending" ? " ↑" : order === "descending" ? " ↓" : ""}
                    </button>
                  ) : (
                    column.header || <VisuallyHidden>Actions</VisuallyHidden>
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {above > 0 && (
            <tr className="spacer">
              <td style={{ height: above }} />
            </tr>
          )}
          {visible.map((tableRow) => {
            const row = tableRow.original;
            const id = rowId(row);
            return (
              <TableRow
                key={id}
                id={id}
                row={row}
                columns={columns}
                data={rowData?.(row)}
                onOpen={onOpen}
                picked={picked?.has(id) ?? false}
                onPick={onPick}
                tree={tree}
              />
            );
          })}
          {below > 0 && (
            <tr className="spacer">
              <td style={{ height: below }} />
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

interface RowProps<Row> extends Pick<Props<Row>, "columns" | "onOpen" | "onPick" | "tree"> {
  id: string;
  row: Row;
  data: Record<string, string> | undefined;
  picked: boolean;
}

function TableRow<Row>({ id, row, columns, data, onOpen, picked, onPick, tree }: RowProps<Row>) {
  return (
    <tr
      tabIndex={-1}
      data-row={id}
      aria-level={tree && tree.depth(row) + 1}
      aria-expanded={tree?.unfolded(row)}
      {...data}
      data-open={onOpen ? "" : undefined}
      onClick={
        onOpen &&
        ((event) => {
          if (!isControl(event.target)) onOpen(row);
        })
      }
      onKeyDown={
        onOpen &&
        ((event) => {
          if (event.target !== event.currentTarget) return;
          if (event.key === "Enter") onOpen(row);
          else if (tree && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
            const unfold = event.key === "ArrowRight";
            event.preventDefault();
            if (tree.unfolded(row) === !unfold) tree.fold(row, unfold);
            else if (!unfold) parentRow(event.currentTarget)?.focus();
          }
        })
      }
    >
      {onPick && (
        <td>
          <Checkbox
            size="xs"
            aria-label={`Pick ${id.slice(0, 64)}`}
            checked={picked}
            data-testid="pick"
            onChange={(event) => onPick([id], event.currentTarget.checked)}
          />
        </td>
      )}
      {columns.map((column) => (
        <td key={column.id} className={classes(column)}>
          {column.cell(row)}
        </td>
      ))}
    </tr>
  );
}

function classes(column: { align?: "right"; hide?: string; free?: boolean }): string | undefined {
  return (
    [column.align === "right" && "num", column.free && "free", column.hide && `hide-${column.hide}`]
      .filter(Boolean)
      .join(" ") || undefined
  );
}

/** The row above that this one is below of in the tree. */
function parentRow(row: HTMLElement): HTMLElement | null {
  const level = Number(row.ariaLevel);
  let above = row.previousElementSibling;
  while (above && !(Number(above.ariaLevel) < level && above.ariaLevel)) above = above.previousElementSibling;
  return above as HTMLElement | null;
}

function isControl(target: EventTarget): boolean {
  return target instanceof Element && target.closest("a, button, input, label") !== null;
}

const steps: Record<string, number> = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 };

/** j and k walk the rows, from wherever the page is; the arrows do once a row has the focus. */
function useWalk(box: React.RefObject<HTMLDivElement | null>, active: boolean): void {
  useEffect(() => {
    if (!active) return;
    const walk = (event: KeyboardEvent): void => {
      const step = steps[event.key];
      if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      const at = event.target as HTMLElement;
      if (
        at.closest("input, textarea, select, [contenteditable], [role=dialog]") ||
        document.querySelector("[role=dialog]")
      )
        return;
      const rows = [...(box.current?.querySelectorAll<HTMLElement>("tbody tr[data-row]") ?? [])];
      const here = rows.indexOf(document.activeElement as HTMLElement);
      if (here < 0 && event.key.startsWith("Arrow")) return;
      const next = rows[here < 0 ? 0 : here + step];
      if (!next) return;
      event.preventDefault();
      next.focus();
      next.scrollIntoView({ block: "nearest" });
    };
    document.addEventListener("keydown", walk);
    return () => document.removeEventListener("keydown", walk);
  }, [box, active]);
}
