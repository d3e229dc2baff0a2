// What there is to know about a device, in one line under its name.
import { useState, type ReactNode } from "react";
import { Link } from "react-router";
import type { Device } from "../../api/shapes";
import { useLive } from "../../live/hooks";
import { Ago } from "../../parts/ago";
import { clip } from "../../text/clip";
import { duration } from "../../text/time";

export function Facts({ device }: { device: Device }) {
  const { firmware, target_firmware: target, link, address, profile, tags, clock_skew_ms: skew = null } = device;
  return (
    <div style={{ display: "flex", flexWrap: "wrap", gap: "4px 28px", fontSize: "0.8125rem" }}>
      <Fact name="Last seen">
        <LastSeen device={device} />
      </Fact>
      <Fact name="Firmware">
        {firmware ? (
          <Link
            className="plain mono"
            to={`/devices?firmware=${encodeURIComponent(firmware)}`}
            title={`Devices with ${clip(firmware, 128)}`}
            data-testid="device-firmware"
          >
            {clip(firmware, 40)}
          </Link>
        ) : (
          <span className="dim">not reported</span>
        )}
      </Fact>
      {target && target !== firmware && (
        <Fact name="Updating to">
          <span className="mono">{clip(target, 40)}</span>
        </Fact>
      )}
      <Fact name="Link">
        {link ? `${clip(link, 24)}${address ? ` from ${clip(address, 48)}` : ""}` : <span className="dim">–</span>}
      </Fact>
      {profile && (
        <Fact name="Profile">
          <Link className="plain mono" to={`/profiles/${encodeURIComponent(profile)}`} data-testid="device-profile">
            {clip(profile, 40)}
          </Link>
        </Fact>
      )}
      {tags.length > 0 && (
        <Fact name="Tags">
          {tags.slice(0, 12).map((tag, i) => (
            <span key={tag}>
              {i > 0 && ", "}
              <Link className="plain" to={`/devices?tag=${encodeURIComponent(tag)}`}>
                {clip(tag, 32)}
              </Link>
            </span>
          ))}
          {tags.length > 12 && <span className="dim"> +{tags.length - 12}</span>}
        </Fact>
      )}
      {skew !== null && Math.abs(skew) > 60_000 && (
        <Fact name="Clock">
          <span style={{ color: "var(--wait)" }} data-testid="device-clock">
            {duration(Math.abs(skew))} {skew > 0 ? "ahead" : "behind"}
          </span>
        </Fact>
      )}
      <Fact name="Refused">
        <Link className="plain" to={`/dead-letters?device=${encodeURIComponent(device.id)}`}>
          Dead letters
        </Link>
      </Fact>
      <Fact name="Added">
        <Ago at={device.created_at} />
      </Fact>
    </div>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <span style={{ minWidth: 0, overflowWrap: "anywhere" }}>
      <span className="dim">{name}</span>&ensp;{children}
    </span>
  );
}

/** Moves with the readings as they come: the device's record is asked for only now and then. */
function LastSeen({ device }: { device: Device }) {
  const [heardAt, setHeardAt] = useState(-Infinity);
  useLive("telemetry", device.id, (data) => {
    const series = (data as { series?: Record<string, { ts: number }> } | null)?.series ?? {};
    const newest = Math.max(...Object.values(series).map(({ ts }) => ts));
    // A device's clock may be ahead; nobody was seen in the future.
    setHeardAt((before) => Math.max(before, Math.min(newest, Date.now())));
  });
  const recorded = device.last_seen === null ? -Infinity : Date.parse(device.last_seen);
  const at = Math.max(heardAt, recorded);
  return (
    <span data-testid="last-seen">
      <Ago at={Number.isFinite(at) ? at : null} />
    </span>
  );
}
