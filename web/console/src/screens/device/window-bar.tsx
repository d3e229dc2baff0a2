// What stands above the charts: which time they show, pause, and which metrics.
import { Button, SegmentedControl, Select, TextInput } from "@mantine/core";
import type { ReactNode } from "react";
import { windows, type Window } from "../../chart/series";
import { Icon } from "../../parts/icons";
import { absolute } from "../../text/time";

const choices = windows.map(({ id: value, label }) => ({ value, label }));

export function WindowBar({
  window,
  choose,
  zoom,
  unzoom,
  isPaused,
  pause,
  filter,
  children,
}: {
  window: Window;
  choose: (id: string) => void;
  zoom: [from: number, to: number] | null;
  unzoom: () => void;
  isPaused: boolean;
  pause: () => void;
  /** Absent where there are few metrics. */
  filter?: { value: string; onChange: (value: string) => void };
  children: ReactNode;
}) {
  return (
    <div className="filters">
      <SegmentedControl
        size="xs"
        visibleFrom="sm"
        data={choices}
        value={zoom ? "" : window.id}
        onChange={choose}
        data-testid="window"
      />
      <Select
        size="xs"
        hiddenFrom="sm"
        w={100}
        aria-label="Window"
        data={choices}
        value={window.id}
        onChange={(next) => next && choose(next)}
      />
      {zoom ? (
        <Button
          variant="default"
          onClick={unzoom}
          data-testid="zoom-reset"
          title={`${absolute(zoom[0])} to ${absolute(zoom[1])}`}
        >
          Zoomed in: back
        </Button>
      ) : (
        <Button
          variant="default"
          onClick={pause}
          leftSection={<Icon name={isPaused ? "play" : "pause"} size={13} />}
          data-testid="charts-pause"
        >
          {isPaused ? "Follow" : "Pause"}
        </Button>
      )}
      {filter && (
        <TextInput
          size="xs"
          w={180}
          placeholder="Metric"
          aria-label="Filter metrics"
          value={filter.value}
          onChange={(event) => filter.onChange(event.currentTarget.value)}
          leftSection={<Icon name="search" size={13} />}
          data-page-search
        />
      )}
      <span className="dim hide-sm" style={{ fontSize: "0.75rem", marginLeft: "auto" }}>
        {children}
      </span>
    </div>
  );
}
