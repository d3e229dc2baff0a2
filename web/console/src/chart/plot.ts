// How uPlot draws one metric: axes, band, crosshair and marks. What changes between drawings is read from `now`.
import uPlot from "uplot";
import { clip } from "../text/clip";
import { reading } from "../text/numbers";
import { clock, stamp, tickText } from "../text/time";
import type { Banded, Plot } from "./series";
import { padded, tickLabels } from "./ticks";

export interface Mark {
  at: number;
  text: string;
  tone: "bad" | "busy" | "off";
}

export interface Drawn {
  data: Banded;
  plot: Plot;
  range: [start: number, end: number];
  marks: Mark[];
  onZoom: (start: number, end: number) => void;
  onReset: () => void;
}

function ink(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function show(value: number, plot: Plot): string {
  return plot === "steps" ? String(value >= 0.5) : reading(value);
}

export function lastText(data: Banded, plot: Plot): string {
  const last = data.v.findLast((value) => value !== null);
  return last === undefined || last === null ? "–" : show(last, plot);
}

export function options(
  holder: HTMLElement,
  metric: string,
  now: { current: Drawn },
  say: (text: string) => void,
): uPlot.Options {
  const steps = now.current.plot === "steps";
  const axis = {
    stroke: () => ink("--off"),
    grid: { stroke: () => ink("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  return {
    width: holder.clientWidth,
    height: holder.clientHeight,
    ms: 1,
    legend: { show: false },
    padding: [6, 8, 0, 0],
    cursor: {
      sync: { key: "page", setSeries: false },
      drag: { x: true, y: false, setScale: false },
      points: { size: 6 },
      bind: {
        dblclick: () => () => {
          now.current.onReset();
          return null;
        },
      },
    },
    scales: {
      x: { time: true, range: () => now.current.range },
      y: { range: (_, low, high) => (steps ? [-0.15, 1.15] : padded(low, high)) },
    },
    axes: [
      {
        ...axis,
        space: 70,
        size: 24,
        values: (_, splits, __, ___, step) => splits.map((at) => tickText(at, step ?? 0)),
      },
      {
        ...axis,
        // Charts below each other line up, unless one needs the room.
        size: (_, labels) => Math.max(52, 14 + 6.5 * Math.max(0, ...(labels ?? []).map(({ length }) => length))),
        space: 28,
        ...(steps ? { splits: () => [0, 1] } : {}),
        values: (_, splits, __, ___, step) =>
          steps ? splits.map((value) => String(value === 1)) : tickLabels(splits, step ?? 0),
      },
    ],
    series: [
      {},
      { label: "least", stroke: "transparent", points: { show: false } },
      { label: "most", stroke: "transparent", points: { show: false } },
      {
        label: metric,
        stroke: () => ink("--chart"),
        width: 1.5,
        ...(steps ? { paths: uPlot.paths.stepped!({ align: 1 }) } : {}),
        points: { size: 4, fill: () => ink("--chart") },
      },
    ],
    bands: [{ series: [2, 1], fill: () => ink("--chart-band") }],
    hooks: {
      setSelect: [(plot) => zoomToSelection(plot, now.current)],
      setCursor: [(plot) => say(underCursor(plot, now.current))],
      drawAxes: [(plot) => drawMarks(plot, now.current)],
    },
  };
}

function zoomToSelection(plot: uPlot, { onZoom }: Drawn): void {
  const { left, width } = plot.select;
  if (width < 6) return;
  const [start, end] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
  plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  onZoom(Math.round(start), Math.round(end));
}

/** What the crosshair is at: a mark, else a reading with its time. Without a crosshair, the last reading. */
function underCursor(plot: uPlot, { data, marks, plot: kind, range }: Drawn): string {
  const { idx, left } = plot.cursor;
  if (left === undefined || left < 0) return lastText(data, kind);
  const near = marks.find(({ at }) => Math.abs(plot.valToPos(at, "x") - left) < 5);
  if (near) return `${clip(near.text, 60)} · ${stamp(near.at, Date.now())}`;
  const at = idx === null || idx === undefined ? plot.posToVal(left, "x") : data.t[idx]!;
  const when = range[1] - range[0] > 43_200_000 ? stamp(at, 0) : clock(at);
  const value = idx === null || idx === undefined ? null : data.v[idx];
  if (value === null || value === undefined) return `no reading · ${when}`;
  const low = data.low?.[idx!] ?? value;
  const high = data.high?.[idx!] ?? value;
  const band = low === high ? "" : ` (${show(low, kind)} to ${show(high, kind)})`;
  return `${show(value, kind)}${band} · ${when}`;
}

/** Behind the line, and never so close that they become a wall. */
function drawMarks(plot: uPlot, { marks, range }: Drawn): void {
  const { ctx, bbox } = plot;
  const dot = uPlot.pxRatio;
  ctx.save();
  ctx.setLineDash([3 * dot, 3 * dot]);
  ctx.lineWidth = dot;
  ctx.globalAlpha = 0.55;
  let drawnAt = Infinity;
  for (const { at, tone } of marks) {
    if (at < range[0] || at > range[1]) continue;
    const x = Math.round(plot.valToPos(at, "x", true));
    if (Math.abs(drawnAt - x) < 6 * dot && tone !== "bad") continue;
    drawnAt = x;
    ctx.strokeStyle = ctx.fillStyle = ink(`--${tone}`);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillRect(x - 2 * dot, bbox.top, 4 * dot, 4 * dot);
  }
  ctx.restore();
}
