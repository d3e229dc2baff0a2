// Every request the console makes, in one place. Screens call these; nothing else calls the server
// (except session.ts, which logs in). Each gives the answer's body or throws a Problem.
import createClient from "openapi-fetch";
import type { paths } from "./schema";
import { Problem, problemFrom, unreachable } from "./problem";
import { accessToken, refresh } from "./session";
import type {
  Artifact,
  DeviceStatus,
  Json,
  JsonObject,
  JobStatus,
  PayloadTest,
  ProfileBody,
  Role,
  Series,
  Timeouts,
} from "./shapes";

async function authorised(request: Request): Promise<Response> {
  const again = request.clone();
  const send = async (outgoing: Request, token: string | null): Promise<Response> => {
    if (token) outgoing.headers.set("Authorization", `Bearer ${token}`);
    return fetch(outgoing).catch((error: unknown) => {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw unreachable();
    });
  };
  const response = await send(request, await accessToken());
  // The server may have been restarted with another secret, or the user disabled: the cookie decides.
  return response.status === 401 ? send(again, await refresh()) : response;
}

const client = createClient<paths>({ baseUrl: location.origin, fetch: authorised });

type Answer<T> = { data?: T; error?: unknown; response: Response };

async function body<T>(answer: Promise<Answer<T>>): Promise<NonNullable<T>> {
  const { data, error, response } = await answer;
  if (!response.ok) throw problemFrom(response.status, error, response.headers.get("Retry-After"));
  return data as NonNullable<T>;
}

async function done(answer: Promise<Answer<unknown>>): Promise<void> {
  const { error, response } = await answer;
  if (!response.ok) throw problemFrom(response.status, error, response.headers.get("Retry-After"));
}

type DeviceQuery = NonNullable<paths["/api/v1/devices"]["get"]["parameters"]["query"]>;

export interface DeviceFilter {
  q?: string;
  tag?: string;
  status?: DeviceStatus | "";
  firmware?: string;
  sort?: DeviceQuery["sort"] | "";
  cursor?: string;
  limit?: number;
}
export interface Paging {
  cursor?: string;
  limit?: number;
}

/** Leave out what is empty: the server refuses `status=`. */
function given<T extends object>(query: T): { [Name in keyof T]?: Exclude<T[Name], ""> } {
  const result: { [Name in keyof T]?: Exclude<T[Name], ""> } = {};
  for (const name in query) {
    const value = query[name];
    if (isGiven(value)) result[name] = value;
  }
  return result;
}

function isGiven<V>(value: V): value is Exclude<V, ""> {
  return value !== undefined && value !== "";
}

export const getOverview = () => body(client.GET("/api/v1/overview"));

export const listDevices = (filter: DeviceFilter) =>
  body(client.GET("/api/v1/devices", { params: { query: given(filter) } }));
export const getDevice = (id: string) => body(client.GET("/api/v1/devices/{id}", { params: { path: { id } } }));
export const createDevice = (device: { id: string; name?: string; tags?: string[] }) =>
  body(client.POST("/api/v1/devices", { body: device }));
export const updateDevice = (
  id: string,
  change: { name?: string; profile?: string; tags?: string[]; attributes?: JsonObject; disabled?: boolean },
) => body(client.PATCH("/api/v1/devices/{id}", { params: { path: { id } }, body: change }));
export const deleteDevice = (id: string) => done(client.DELETE("/api/v1/devices/{id}", { params: { path: { id } } }));

export const getLatest = (id: string) => body(client.GET("/api/v1/devices/{id}/latest", { params: { path: { id } } }));
export const getTelemetry = async (
  id: string,
  query: { metrics: string; start: string; end: string; buckets?: number; agg?: "mean" | "min" | "max" | "last" },
  signal?: AbortSignal,
): Promise<Record<string, Series>> =>
  (
    await body(
      client.GET("/api/v1/devices/{id}/telemetry", { params: { path: { id }, query }, ...(signal ? { signal } : {}) }),
    )
  ).series;

export const getTwin = (id: string) => body(client.GET("/api/v1/devices/{id}/twin", { params: { path: { id } } }));
/** Change desired values by a merge patch; 412 when the twin is no longer at `version`. */
export const patchTwin = (id: string, desired: JsonObject, version: number) =>
  body(
    client.PATCH("/api/v1/devices/{id}/twin", {
      params: { path: { id }, header: { "If-Match": `"v${version}"` } },
      body: { desired },
    }),
  );

export const listCommands = (id: string, page: Paging = {}) =>
  body(client.GET("/api/v1/devices/{id}/commands", { params: { path: { id }, query: given(page) } }));
export const sendCommand = (id: string, command: { name: string; params?: Json; ttl?: number }) =>
  body(client.POST("/api/v1/devices/{id}/commands", { params: { path: { id } }, body: command }));
export const cancelCommand = (id: string) =>
  body(client.POST("/api/v1/commands/{id}/cancel", { params: { path: { id } } }));

export const listTimeline = (id: string, query: Paging & { kinds?: string }) =>
  body(client.GET("/api/v1/devices/{id}/timeline", { params: { path: { id }, query: given(query) } }));

export const listCredentials = (id: string) =>
  body(client.GET("/api/v1/devices/{id}/credentials", { params: { path: { id } } }));
export const addCredential = (id: string) =>
  body(
    client.POST("/api/v1/devices/{id}/credentials", { params: { path: { id } }, body: { type: "token", name: "" } }),
  );
export const revokeCredential = (id: string, credential: string) =>
  done(client.DELETE("/api/v1/devices/{id}/credentials/{credential}", { params: { path: { id, credential } } }));

export const listProfiles = (page: Paging = {}) =>
  body(client.GET("/api/v1/profiles", { params: { query: given(page) } }));
export const getProfile = (name: string) => body(client.GET("/api/v1/profiles/{name}", { params: { path: { name } } }));
export const createProfile = (name: string, profile: ProfileBody) =>
  body(client.POST("/api/v1/profiles", { body: { ...profile, name } }));
/** Replace the whole profile; 412 when it is no longer at `version`. */
export const replaceProfile = (name: string, profile: ProfileBody, version: number) =>
  body(
    client.PUT("/api/v1/profiles/{name}", {
      params: { path: { name }, header: { "If-Match": `"v${version}"` } },
      body: profile,
    }),
  );
export const deleteProfile = (name: string) =>
  done(client.DELETE("/api/v1/profiles/{name}", { params: { path: { name }, query: { force: true } } }));
/** What a draft makes of a payload; nothing is stored. */
export const testProfile = (test: PayloadTest) => body(client.POST("/api/v1/profiles:test", { body: test }));

export const listArtifacts = (page: Paging = {}) =>
  body(client.GET("/api/v1/artifacts", { params: { query: given(page) } }));
export const deleteArtifact = (id: string) =>
  done(client.DELETE("/api/v1/artifacts/{id}", { params: { path: { id } } }));

/** Upload with progress, which fetch cannot tell. The fields go first: the server reads the form as it comes. */
export async function uploadArtifact(
  fields: { version: string; name?: string; description?: string; sha256?: string },
  file: File,
  onProgress: (share: number) => void,
  signal: AbortSignal,
): Promise<Artifact> {
  const form = new FormData();
  for (const [name, value] of Object.entries(given(fields))) form.append(name, value);
  form.append("file", file);
  const token = await accessToken();
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/api/v1/artifacts");
    request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.responseType = "json";
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve(request.response as Artifact);
      else reject(problemFrom(request.status, request.response));
    };
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(new Problem(0, "The upload was stopped."));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

export const listCampaigns = (page: Paging = {}) =>
  body(client.GET("/api/v1/campaigns", { params: { query: given(page) } }));
export const getCampaign = (id: string) => body(client.GET("/api/v1/campaigns/{id}", { params: { path: { id } } }));
export const createCampaign = (campaign: {
  name: string;
  artifact: string;
  devices: string[];
  timeouts?: Partial<Timeouts>;
  start?: boolean;
}) => body(client.POST("/api/v1/campaigns", { body: campaign }));
export const startCampaign = (id: string) =>
  body(client.POST("/api/v1/campaigns/{id}/start", { params: { path: { id } } }));
export const abortCampaign = (id: string) =>
  body(client.POST("/api/v1/campaigns/{id}/abort", { params: { path: { id } } }));
export const retryCampaign = (id: string) =>
  body(client.POST("/api/v1/campaigns/{id}/retry", { params: { path: { id } } }));
export const listJobs = (id: string, query: Paging & { status?: JobStatus | "" }) =>
  body(client.GET("/api/v1/campaigns/{id}/jobs", { params: { path: { id }, query: given(query) } }));

export const listSessions = (query: Paging & { q?: string }) =>
  body(client.GET("/api/v1/broker/sessions", { params: { query: given(query) } }));
/** All sessions of a device, or the one of `client_id`. */
export const kickSession = (username: string, client_id = "") =>
  body(
    client.DELETE("/api/v1/broker/sessions/{username}", {
      params: { path: { username }, query: given({ client_id }) },
    }),
  );
export const getBroker = () => body(client.GET("/api/v1/broker"));
export const listTopics = (query: { prefix: string; limit: number }) =>
  body(client.GET("/api/v1/broker/topics", { params: { query: given(query) } }));

export const listAudit = (query: Paging & { actor?: string; action?: string; target?: string }) =>
  body(client.GET("/api/v1/audit", { params: { query: given(query) } }));

export const listUsers = () => body(client.GET("/api/v1/users"));
export const createUser = (user: { username: string; password: string; role: Role }) =>
  body(client.POST("/api/v1/users", { body: user }));
export const updateUser = (id: string, change: { role?: Role; password?: string; disabled?: boolean }) =>
  body(client.PATCH("/api/v1/users/{id}", { params: { path: { id } }, body: change }));
export const deleteUser = (id: string) => done(client.DELETE("/api/v1/users/{id}", { params: { path: { id } } }));

/** For who has lost it: they log in with their password alone, and set up another. */
export const resetSecondFactor = (id: string) =>
  done(client.DELETE("/api/v1/users/{id}/second-factor", { params: { path: { id } } }));

export const listOwnSessions = () => body(client.GET("/api/v1/users/me/sessions"));
export const endOwnSession = (id: string) =>
  done(client.DELETE("/api/v1/users/me/sessions/{id}", { params: { path: { id } } }));
export const endOtherSessions = () => body(client.POST("/api/v1/users/me/sessions:end-others"));
export const enrolSecondFactor = (password: string) =>
  body(client.POST("/api/v1/users/me/second-factor", { body: { password } }));
export const confirmSecondFactor = (code: string) =>
  body(client.POST("/api/v1/users/me/second-factor:confirm", { body: { code } }));
export const removeSecondFactor = (password: string) =>
  done(client.POST("/api/v1/users/me/second-factor:remove", { body: { password } }));

export const listApiKeys = (all: boolean) =>
  body(client.GET("/api/v1/api-keys", { params: { query: { all, limit: 500 } } }));
export const createApiKey = (key: { name: string; role: Role; expires_at: string | null }) =>
  body(client.POST("/api/v1/api-keys", { body: key }));
export const revokeApiKey = (id: string) => done(client.DELETE("/api/v1/api-keys/{id}", { params: { path: { id } } }));

export interface LetterFilter {
  device?: string;
  reason?: string;
}
export const listDeadLetters = (query: Paging & LetterFilter) =>
  body(client.GET("/api/v1/dead-letters", { params: { query: given(query) } }));
export const getDeadLetter = (id: number) =>
  body(client.GET("/api/v1/dead-letters/{id}", { params: { path: { id } } }));
export const deleteDeadLetter = (id: number) =>
  done(client.DELETE("/api/v1/dead-letters/{id}", { params: { path: { id } } }));
/** Those of now: what comes later stays. */
export const deleteDeadLetters = (filter: LetterFilter) =>
  body(
    client.DELETE("/api/v1/dead-letters", {
      params: { query: { ...given(filter), until: new Date().toISOString() } },
    }),
  );
export const replayDeadLetters = (which: { ids: number[] } | { filter: LetterFilter }) =>
  body(
    client.POST("/api/v1/dead-letters:replay", {
      body: "ids" in which ? which : { filter: given(which.filter) },
    }),
  );
export const getReplay = (id: string) =>
  body(client.GET("/api/v1/dead-letters/replays/{id}", { params: { path: { id } } }));
