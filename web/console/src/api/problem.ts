// One error for everything that can go wrong between a screen and the server (application/problem+json).

export interface FieldProblem {
  field: string;
  detail: string;
}

export class Problem extends Error {
  readonly status: number;
  readonly errors: FieldProblem[];
  /** What programs go by, where the status says too little; often empty. */
  readonly code: string;

  constructor(status: number, message: string, errors: FieldProblem[] = [], code = "") {
    super(message);
    this.name = "Problem";
    this.status = status;
    this.errors = errors;
    this.code = code;
  }

  /** What is wrong with one field of a form, if the server said so. */
  of(field: string): string | undefined {
    return this.errors.find((error) => error.field === field || error.field.endsWith(`.${field}`))?.detail;
  }
}

export function unreachable(): Problem {
  return new Problem(0, "The server does not answer. It may be restarting, or the network is down.");
}

/** Read whatever an unsuccessful answer carried; proxies answer with HTML, which is not shown. */
export function problemFrom(status: number, body: unknown, retryAfter?: string | null): Problem {
  const from = (typeof body === "object" && body !== null ? body : {}) as {
    title?: unknown;
    detail?: unknown;
    errors?: unknown;
    code?: unknown;
  };
  const title = typeof from.title === "string" ? from.title : `The server answered ${status}`;
  const detail = typeof from.detail === "string" && from.detail ? from.detail : title;
  const wait = retryAfter && /^\d+$/.test(retryAfter) ? ` Try again in ${retryAfter} s.` : "";
  const errors = Array.isArray(from.errors)
    ? from.errors.flatMap((error: { field?: unknown; detail?: unknown }) =>
        typeof error?.detail === "string" ? [{ field: String(error.field ?? ""), detail: error.detail }] : [],
      )
    : [];
  return new Problem(status, detail + wait, errors, typeof from.code === "string" ? from.code : "");
}

export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  return new Problem(0, error instanceof Error ? error.message : String(error));
}
