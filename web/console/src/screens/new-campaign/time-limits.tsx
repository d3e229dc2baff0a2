// How long each step of an update may take.
import { Anchor, Collapse, Group, NumberInput } from "@mantine/core";
import { useState } from "react";
import type { Timeouts } from "../../api/shapes";

const steps: [keyof Timeouts, string][] = [
  ["offered_s", "Offered"],
  ["downloading_s", "Downloading"],
  ["verifying_s", "Verifying"],
  ["installing_s", "Installing"],
  ["rebooting_s", "Rebooting"],
];

export function TimeLimits({
  timeouts,
  change,
}: {
  timeouts: Partial<Timeouts>;
  change: (next: Partial<Timeouts>) => void;
}) {
  const [opened, setOpened] = useState(false);
  return (
    <div style={{ marginTop: 12 }}>
      <Anchor component="button" type="button" size="sm" onClick={() => setOpened(!opened)} aria-expanded={opened}>
        Time limits of the steps
      </Anchor>
      <Collapse expanded={opened}>
        <Group gap="sm" mt="xs">
          {steps.map(([key, label]) => (
            <NumberInput
              key={key}
              label={`${label} (s)`}
              placeholder="default"
              w={112}
              min={1}
              max={2_592_000}
              value={timeouts[key] ?? ""}
              allowDecimal={false}
              onChange={(value) => {
                const next = { ...timeouts };
                if (typeof value === "number") next[key] = value;
                else delete next[key];
                change(next);
              }}
            />
          ))}
        </Group>
      </Collapse>
    </div>
  );
}
