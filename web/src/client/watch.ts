/**
 * A watch that lives as long as its reader: it keeps the token, goes on from it after a cut, and
 * notices a gateway that stands still.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { ValueForm } from "../../gen/drey/common/v1/form_pb";
import {
  WatchDriftRequestSchema,
  WatchPvsRequestSchema,
  type DriftSpecSchema,
  type WatchDriftRequest,
  type WatchDriftResponse,
  type WatchPvsRequest,
} from "../../gen/drey/monitor/v1/monitor_service_pb";
import type { Checkpoint, WatchSpecSchema } from "../../gen/drey/monitor/v1/watch_pb";
import { DriftState } from "./drift_state";
import { passes, reasonOf } from "./errors";
import { WatchState } from "./watch_state";
import type { WatchMessage } from "./watch_wire";

export type WatchSpecInit = MessageInitShape<typeof WatchSpecSchema>;
export type DriftSpecInit = MessageInitShape<typeof DriftSpecSchema>;
export type OpenStream<Request, Response> = (request: Request, signal: AbortSignal) => AsyncIterable<Response>;

/** What is folded from the messages of one kind of stream. */
export interface StreamState<Response> {
  /** Names the instant to go on from; empty: from the beginning. */
  readonly token: string;
  beginStream(): void;
  forgetToken(): void;
  apply(response: Response): void;
}

interface AnyResponse {
  readonly part: { readonly case: string | undefined; readonly value?: unknown };
}

/** `live`: the stream is complete. `stalled`: the gateway says that what it sends may be old. */
export type Connection = "connecting" | "live" | "stalled" | "lost" | "ended";

export interface WatchOptions {
  readonly signal?: AbortSignal;
  /** A gateway that says nothing for so long stands still; it says something once a second. */
  readonly silenceMs?: number;
  /** Longest pause before another attempt. */
  readonly longestPauseMs?: number;
}

class Silence extends Error {}

export class StreamWatch<Response extends AnyResponse, State extends StreamState<Response>> {
  readonly state: State;
  connection: Connection = "connecting";
  /** Why it is not live, for people. */
  trouble = "";
  /** Times that it went on after a cut. */
  resumed = 0;
  readonly #open: OpenStream<string, Response>;
  readonly #options: WatchOptions;

  /** `open` takes the token to go on from. */
  constructor(open: OpenStream<string, Response>, state: State, options: WatchOptions = {}) {
    this.#open = open;
    this.state = state;
    this.#options = options;
  }

  /**
   * Yields after each message that the state has taken in, and after each change of `connection`. Ends when
   * the signal says so; raises what no waiting will mend, such as a key that is not known.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<this, void, void> {
    const { signal, longestPauseMs = 5000 } = this.#options;
    let failures = 0;
    while (!signal?.aborted) {
      try {
        for await (const response of this.#read()) {
          this.state.apply(response);
          failures = 0;
          if (response.part.case === "checkpoint") this.connection = (response.part.value as Checkpoint).stalled ? "stalled" : "live";
          else if (response.part.case === "baselineEnd") this.connection = "live";
          if (this.connection === "live") this.trouble = "";
          yield this;
        }
        this.trouble = "the stream ended";
      } catch (error) {
        if (signal?.aborted) break;
        if (reasonOf(error) === "TOKEN_UNKNOWN") this.state.forgetToken();
        else if (!(error instanceof Silence) && !passes(error)) {
          this.connection = "ended";
          this.trouble = ConnectError.from(error).rawMessage;
          throw error;
        }
        this.trouble = error instanceof Silence ? error.message : ConnectError.from(error).rawMessage;
      }
      if (signal?.aborted) break;
      this.connection = "lost";
      this.resumed += 1;
      yield this;
      const pause = Math.min(longestPauseMs, 250 * 2 ** Math.min(failures++, 10)) * (0.5 + Math.random() / 2);
      await sleep(pause, signal);
    }
    this.connection = "ended";
  }

  async *#read(): AsyncGenerator<Response, void, void> {
    const { signal, silenceMs = 5000 } = this.#options;
    const cut = new AbortController();
    const stop = () => cut.abort();
    signal?.addEventListener("abort", stop);
    this.state.beginStream();
    const iterator = this.#open(this.state.token, cut.signal)[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = await withinSilence(iterator.next(), silenceMs);
        if (next.done) return;
        yield next.value;
      }
    } finally {
      signal?.removeEventListener("abort", stop);
      cut.abort();
    }
  }
}

/** The values of PVs. */
export class Watch extends StreamWatch<WatchMessage, WatchState> {
  constructor(open: OpenStream<WatchPvsRequest, WatchMessage>, spec: WatchSpecInit, options: WatchOptions = {}) {
    const whole = { form: ValueForm.COLUMNS, withMetadata: true, ...spec };
    super((token, signal) => open(create(WatchPvsRequestSchema, { spec: whole, token }), signal), new WatchState(), options);
  }
}

/** How the machine differs from a snapshot. */
export class DriftWatch extends StreamWatch<WatchDriftResponse, DriftState> {
  constructor(open: OpenStream<WatchDriftRequest, WatchDriftResponse>, spec: DriftSpecInit, options: WatchOptions = {}) {
    super((token, signal) => open(create(WatchDriftRequestSchema, { spec, token }), signal), new DriftState(), options);
  }
}

/** What comes within the time. A tab that was asleep meanwhile hears nothing: then it is given the time again. */
async function withinSilence<T>(coming: Promise<T>, silenceMs: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = new Promise<never>((_, reject) => {
    const arm = () => {
      const due = Date.now() + silenceMs;
      timer = setTimeout(() => {
        if (Date.now() - due > silenceMs / 2) arm();
        else reject(new Silence(`the server has said nothing for ${silenceMs / 1000} s`));
      }, silenceMs);
    };
    arm();
  });
  coming.catch(() => undefined); // what fails after the silence is told by nobody
  try {
    return await Promise.race([coming, silence]);
  } finally {
    clearTimeout(timer);
  }
}

function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
