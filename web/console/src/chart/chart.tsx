// One metric over time, drawn by uPlot. The page owns the time range; all charts of a page share their crosshair.
import "uplot/dist/uPlot.min.css";
import { useComputedColorScheme } from "@mantine/core";
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import { clip } from "../text/clip";
import { reading } from "../text/numbers";
import { clock, stamp, tickText } from "../text/time";
import type { Banded, Plot } from "./series";

export interface Mark { at: number; text: string; tone: "bad" | "busy" | "off" }

interface Props {
  metric: string;
  plot: Plot;
  data: Banded;
  range: [start: number, end: number];
  marks: Mark[];
  stale: boolean;
  onZoom: (start: number, end: number) => void;
  onReset: () => void;
}

function ink(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function Chart({ metric, plot, data, range, marks, stale, onZoom, onReset }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const output = useRef<HTMLOutputElement>(null);
  const chart = useRef<uPlot | null>(null);
  const now = useRef({ range, marks, onZoom, onReset, data, plot });
  now.current = { range, marks, onZoom, onReset, data, plot };
  const scheme = useComputedColorScheme("light");

  useEffect(() => {
    const holder = box.current!;
    const drawn = new uPlot(options(holder, metric, now, (text) => { if (output.current) output.current.textContent = text; }), [[], [], [], []], holder);
    chart.current = drawn;
    const observer = new ResizeObserver(() => drawn.setSize({ width: holder.clientWidth, height: holder.clientHeight }));
    observer.observe(holder);
    return () => { observer.disconnect(); drawn.destroy(); chart.current = null; };
  }, [metric, plot]);

  useEffect(() => {
    const drawn = chart.current;
    if (!drawn) return;
    const empty = data.t.length ? new Array<null>(data.t.length).fill(null) : [];
    drawn.batch(() => {
      drawn.setData([data.t, data.low ?? empty, data.high ?? empty, data.v], false);
      drawn.setScale("x", { min: range[0], max: range[1] });
    });
    if (output.current && (drawn.cursor.left ?? -1) < 0) output.current.textContent = lastText(data, plot);
  }, [data, range[0], range[1], metric, plot]);

  useEffect(() => { chart.current?.redraw(false, true); }, [scheme, marks]);

  const points = data.v.reduce<number>((sum, value, i) => sum + (value !== null && data.t[i]! >= range[0] && data.t[i]! <= range[1] ? 1 : 0), 0);
  return (
    <figure className="chart" style={{ margin: 0 }} data-testid="chart" data-metric={metric} data-points={points}>
      <figcaption className="chart-head">
        <b className="cut" title={clip(metric, 128)}>{clip(metric, 48)}</b>
        {stale && <span className="dim">stale</span>}
        <output ref={output} />
      </figcaption>
      <div className="chart-box">
        <div ref={box} style={{ position: "absolute", inset: 0 }} role="img" aria-label={`${clip(metric, 48)}: ${points} points, last ${lastText(data, plot)}`} />
        {points === 0 && <div className="dim" style={{ position: "absolute", inset: 0, display: "grid", placeItems: "center", pointerEvents: "none", fontSize: "0.8125rem" }}>No readings in this window</div>}
      </div>
    </figure>
  );
}

function show(value: number, plot: Plot): string {
  return plot === "steps" ? String(value >= 0.5) : reading(value);
}

function lastText(data: Banded, plot: Plot): string {
  const last = data.v.findLast((value) => value !== null);
  return last === undefined || last === null ? "–" : show(last, plot);
}

function options(
  holder: HTMLElement, metric: string,
  now: { current: { range: [number, number]; marks: Mark[]; onZoom: (a: number, b: number) => void; onReset: () => void; data: Banded; plot: Plot } },
  say: (text: string) => void,
): uPlot.Options {
  const steps = now.current.plot === "steps";
  const axis = { stroke: () => ink("--off"), grid: { stroke: () => ink("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width: holder.clientWidth, height: holder.clientHeight, ms: 1, legend: { show: false }, padding: [6, 8, 0, 0],
    cursor: {
      sync: { key: "page", setSeries: false }, drag: { x: true, y: false, setScale: false }, points: { size: 6 },
      bind: { dblclick: () => () => { now.current.onReset(); return null; } },
    },
    scales: {
      x: { time: true, range: () => now.current.range },
      y: { range: (_, low, high) => (steps ? [-0.15, 1.15] : padded(low, high)) },
    },
    axes: [
      { ...axis, space: 70, size: 24, values: (_, splits, __, ___, step) => splits.map((at) => tickText(at, step ?? 0)) },
      {
        ...axis, size: 52, space: 28, ...(steps ? { splits: () => [0, 1] } : {}),
        values: (_, splits) => splits.map((value) => (steps ? String(value === 1) : short(value))),
      },
    ],
    series: [
      {},
      { label: "least", stroke: "transparent", points: { show: false } },
      { label: "most", stroke: "transparent", points: { show: false } },
      { label: metric, stroke: () => ink("--chart"), width: 1.5, ...(steps ? { paths: uPlot.paths.stepped!({ align: 1 }) } : {}), points: { size: 4, fill: () => ink("--chart") } },
    ],
    bands: [{ series: [2, 1], fill: () => ink("--chart-band") }],
    hooks: {
      setSelect: [(plot) => {
        const { left, width } = plot.select;
        if (width < 6) return;
        const [start, end] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
        plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        now.current.onZoom(Math.round(start), Math.round(end));
      }],
      setCursor: [(plot) => {
        const { idx, left } = plot.cursor;
        const { data, marks, plot: kind } = now.current;
        if (left === undefined || left === null || left < 0) return say(lastText(data, kind));
        const near = marks.find(({ at }) => Math.abs(plot.valToPos(at, "x") - left) < 5);
        const value = idx === null || idx === undefined ? null : data.v[idx];
        const at = idx === null || idx === undefined ? plot.posToVal(left, "x") : data.t[idx]!;
        const span = now.current.range[1] - now.current.range[0];
        const when = span > 43_200_000 ? stamp(at, 0) : clock(at);
        const band = value !== null && value !== undefined && data.low && data.high && data.low[idx!] !== data.high[idx!]
          ? ` (${show(data.low[idx!]!, kind)} to ${show(data.high[idx!]!, kind)})` : "";
        say(near ? `${clip(near.text, 60)} · ${stamp(near.at, Date.now())}` : value === null || value === undefined ? `no reading · ${when}` : `${show(value, kind)}${band} · ${when}`);
      }],
      drawAxes: [(plot) => {
        const { ctx, bbox } = plot;
        ctx.save();
        ctx.setLineDash([3 * uPlot.pxRatio, 3 * uPlot.pxRatio]);
        ctx.lineWidth = uPlot.pxRatio;
        // Behind the line, and never so close that they become a wall.
        ctx.globalAlpha = 0.55;
        let drawnAt = Infinity;
        for (const { at, tone } of now.current.marks) {
          if (at < now.current.range[0] || at > now.current.range[1]) continue;
          const x = Math.round(plot.valToPos(at, "x", true));
          if (Math.abs(drawnAt - x) < 6 * uPlot.pxRatio && tone !== "bad") continue;
          drawnAt = x;
          ctx.strokeStyle = ctx.fillStyle = ink(`--${tone}`);
          ctx.beginPath();
          ctx.moveTo(x, bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
          ctx.fillRect(x - 2 * uPlot.pxRatio, bbox.top, 4 * uPlot.pxRatio, 4 * uPlot.pxRatio);
        }
        ctx.restore();
      }],
    },
  };
}

function padded(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  if (low === high) { const room = Math.abs(low) * 0.1 || 1; return [low - room, high + room]; }
  const room = (high - low) * 0.08;
  return [low - room, high + room];
}

function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential(1);
  if (size >= 10_000) return `${Number((value / 1000).toFixed(1))}k`;
  return String(Number(value.toPrecision(6)));
}
