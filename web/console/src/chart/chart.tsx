// One metric over time, drawn by uPlot. The page owns the time range; all charts of a page share their crosshair.
import "uplot/dist/uPlot.min.css";
import { useComputedColorScheme } from "@mantine/core";
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import { clip } from "../text/clip";
import { lastText, options, type Drawn } from "./plot";

interface Props extends Drawn {
  metric: string;
  stale: boolean;
}

export function Chart({ metric, plot, data, range, marks, stale, onZoom, onReset }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const output = useRef<HTMLOutputElement>(null);
  const chart = useRef<uPlot | null>(null);
  const now = useRef<Drawn>({ range, marks, onZoom, onReset, data, plot });
  now.current = { range, marks, onZoom, onReset, data, plot };
  const scheme = useComputedColorScheme("light");

  useEffect(() => {
    const holder = box.current!;
    const drawn = new uPlot(
      options(holder, metric, now, (text) => {
        if (output.current) output.current.textContent = text;
      }),
      [[], [], [], []],
      holder,
    );
    chart.current = drawn;
    const observer = new ResizeObserver(() =>
      drawn.setSize({ width: holder.clientWidth, height: holder.clientHeight }),
    );
    observer.observe(holder);
    return () => {
      observer.disconnect();
      drawn.destroy();
      chart.current = null;
    };
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

  useEffect(() => {
    chart.current?.redraw(false, true);
  }, [scheme, marks]);

  const points = data.v.reduce<number>(
    (sum, value, i) => sum + (value !== null && data.t[i]! >= range[0] && data.t[i]! <= range[1] ? 1 : 0),
    0,
  );
  return (
    <figure className="chart" style={{ margin: 0 }} data-testid="chart" data-metric={metric} data-points={points}>
      <figcaption className="chart-head">
        <b className="cut" title={clip(metric, 128)}>
          {clip(metric, 48)}
        </b>
        {stale && <span className="dim">stale</span>}
        <output ref={output} />
      </figcaption>
      <div className="chart-box">
        <div
          ref={box}
          style={{ position: "absolute", inset: 0 }}
          role="img"
          aria-label={`${clip(metric, 48)}: ${points} points, last ${lastText(data, plot)}`}
        />
        {points === 0 && (
          <div
            className="dim"
            style={{
              position: "absolute",
              inset: 0,
              display: "grid",
              placeItems: "center",
              pointerEvents: "none",
              fontSize: "0.8125rem",
            }}
          >
            No readings in this window
          </div>
        )}
      </div>
    </figure>
  );
}
