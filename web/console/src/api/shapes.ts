// The values the API speaks of, by the names the screens use. They come from the server's own document; schema.d.ts is
// made from it by `npm run types` and is not kept.
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };
export type Value = number | boolean | string | { [key: string]: unknown } | unknown[];

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
  total: number | null;
}

export type Artifact = Schemas["Artifact"];
export type AuditEntry = Schemas["AuditEntry"];
export type BrokerFacts = Schemas["Broker"];
export type BrokerFigure = Schemas["BrokerFigure"];
export type BrokerSession = Schemas["Session"];
export type Campaign = Schemas["Campaign"];
export type Command = Schemas["Command"];
export type Credential = Schemas["Credential"];
export type DeadLetter = Schemas["DeadLetter"];
export type Device = Schemas["Device"];
export type DeviceStatus = Schemas["DeviceStatus"];
export type Job = Schemas["Job"];
export type JobStatus = Schemas["JobState"];
export type Latest = Schemas["LatestValue"];
export type Me = Schemas["Me"];
export type Overview = Schemas["Overview"];
export type PayloadTest = Schemas["DraftTest"];
export type PayloadTested = Schemas["PayloadTested"];
export type Profile = Schemas["ProfileStored"];
export type ProfileBody = Schemas["ProfileBody"];
export type Replay = Schemas["Replay"];
export type Role = Schemas["Role"];
export type Series = Schemas["Series"];
export type Timeouts = { [Step in keyof Schemas["StepTimeouts"]]: number };
export type TimelineEntry = Schemas["TimelineEntry"];
export type TopicLevel = Schemas["TopicLevel"];
export type Tokens = Schemas["Tokens"];
export type Twin = Schemas["Twin"];
export type User = Schemas["User"];
export type OwnSession = Schemas["SessionOut"];
export type ApiKey = Schemas["ApiKeyOut"];
