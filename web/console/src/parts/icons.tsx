// The few icons of the console, drawn here: 16 x 16, one stroke.
import type { ReactNode } from "react";

const drawings: Record<string, ReactNode> = {
  overview: (
    <>
      <rect x="2" y="2" width="5" height="6" />
      <rect x="9" y="2" width="5" height="3.5" />
      <rect x="2" y="10.5" width="5" height="3.5" />
      <rect x="9" y="8" width="5" height="6" />
    </>
  ),
  devices: (
    <>
      <rect x="4" y="4" width="8" height="8" rx="1" />
      <path d="M6 4V1.5M10 4V1.5M6 14.5V12M10 14.5V12M4 6H1.5M4 10H1.5M14.5 6H12M14.5 10H12" />
    </>
  ),
  profiles: (
    <path d="M5.500 2C3.500 2 4.500 5 4.500 6.500S3 8 2.500 8c.5 0 2 0 2 1.500S3.500 14 5.500 14M10.500 2c2 0 1 3 1 4.500S13 8 13.500 8c-.5 0-2 0-2 1.500s1 4.500-1 4.500" />
  ),
  firmware: (
    <>
      <path d="M8 1.5 14 4.5v7L8 14.5l-6-3v-7Z" />
      <path d="M2 4.5 8 7.5l6-3M8 7.5v7" />
    </>
  ),
  campaigns: <path d="M13.5 8a5.5 5.5 0 1 1-1.7-4M13.5 1.5V5H10" />,
  broker: (
    <>
      <circle cx="8" cy="8" r="1.6" />
      <path d="M4.8 4.8a4.5 4.5 0 0 0 0 6.4M11.2 4.8a4.5 4.5 0 0 1 0 6.4M2.7 2.7a7.5 7.5 0 0 0 0 10.6M13.3 2.7a7.5 7.5 0 0 1 0 10.6" />
    </>
  ),
  letters: <path d="M2 4h12v8.5H2ZM2 4.5l6 4.5 6-4.5" />,
  audit: <path d="M3 2h10v12H3ZM5.5 5.5h5M5.5 8h5M5.5 10.5h3" />,
  settings: (
    <>
      <circle cx="8" cy="8" r="2" />
      <path d="M8 1.5v2M8 12.5v2M1.5 8h2M12.5 8h2M3.4 3.4l1.4 1.4M11.2 11.2l1.4 1.4M3.4 12.6l1.4-1.4M11.2 4.8l1.4-1.4" />
    </>
  ),
  search: (
    <>
      <circle cx="7" cy="7" r="4.5" />
      <path d="m10.5 10.5 4 4" />
    </>
  ),
  copy: (
    <>
      <rect x="5.5" y="5.5" width="8" height="8" rx="1" />
      <path d="M10.5 5.5v-3h-8v8h3" />
    </>
  ),
  check: <path d="m2.5 8.5 4 4 7-9" />,
  sun: (
    <>
      <circle cx="8" cy="8" r="3" />
      <path d="M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1" />
    </>
  ),
  moon: <path d="M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7Z" />,
  auto: (
    <>
      <circle cx="8" cy="8" r="6" />
      <path d="M8 2v12a6 6 0 0 0 0-12Z" fill="currentColor" />
    </>
  ),
  user: (
    <>
      <circle cx="8" cy="5" r="3" />
      <path d="M2 14.5c.5-3.5 3-5 6-5s5.5 1.5 6 5" />
    </>
  ),
  more: (
    <>
      <circle cx="3" cy="8" r=".8" fill="currentColor" />
      <circle cx="8" cy="8" r=".8" fill="currentColor" />
      <circle cx="13" cy="8" r=".8" fill="currentColor" />
    </>
  ),
  pause: <path d="M5.5 3v10M10.5 3v10" />,
  play: <path d="M4.5 2.500v11l9-5.500Z" />,
  unfold: <path d="m6 3.500 4.5 4.500L6 12.500" />,
  retained: <path d="M4.500 2h7v12L8 11.200 4.500 14Z" fill="currentColor" />,
  close: <path d="m3.5 3.5 9 9M12.5 3.500l-9 9" />,
  anchor: (
    <>
      <circle cx="8" cy="3.5" r="1.750" />
      <path d="M8 5.250V14M4.5 7.500h7M2 9.500c.5 3 3 4.5 6 4.500s5.5-1.5 6-4.5" />
    </>
  ),
};

export function Icon({ name, size = 16 }: { name: string; size?: number }) {
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.4"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      {drawings[name]}
    </svg>
  );
}
