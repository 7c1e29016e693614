/** What enumerations, times and states are called on the screen. */
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { reasonOf, datumOf, datumText, Kind, type Datum, type Display } from "@drey/client";
import { AlarmSeverity, AlarmStatus, ConnectionState, Freshness, type Value } from "../../gen/drey/common/v1/value_pb";

export interface Mark {
  readonly word: string;
  /** A class of the style sheet. */
  readonly look: string;
  /** Graver is greater. */
  readonly rank: number;
}

// each has a shape of its own, so that nobody needs the colours
const NO_CHANNEL: Mark = { word: "", look: "is-plain", rank: -1 };
export const OK: Mark = { word: "ok", look: "is-plain", rank: 0 };
const MINOR: Mark = { word: "▲ minor", look: "is-minor", rank: 1 };
const MAJOR: Mark = { word: "◆ MAJOR", look: "is-major", rank: 2 };
const INVALID: Mark = { word: "✖ INVALID", look: "is-invalid", rank: 3 };
const STALE: Mark = { word: "◌ stale", look: "is-off", rank: 4 };
const DISCONNECTED: Mark = { word: "⊘ disconnected", look: "is-off", rank: 5 };
const NEVER: Mark = { word: "○ never found", look: "is-off", rank: 6 };
const UNSUPPORTED: Mark = { word: "– no protocol", look: "is-off", rank: 7 };

const SEVERITIES: readonly Mark[] = [OK, OK, MINOR, MAJOR, INVALID];

export function channelMark(state: number, freshness: number, severity: number): Mark {
  switch (state) {
    case ConnectionState.UNSPECIFIED:
      return NO_CHANNEL;
    case ConnectionState.NEVER_CONNECTED:
      return NEVER;
    case ConnectionState.DISCONNECTED:
      return DISCONNECTED;
    case ConnectionState.UNSUPPORTED:
      return UNSUPPORTED;
    default:
      return freshness === Freshness.STALE ? STALE : (SEVERITIES[severity] ?? OK);
  }
}

export function graver(first: Mark, second: Mark): Mark {
  return first.rank >= second.rank ? first : second;
}

export function alarmWords(severity: number, status: number): string {
  const grave = (AlarmSeverity[severity] ?? "?").replaceAll("_", " ");
  return severity <= AlarmSeverity.NO_ALARM ? "no alarm" : `${grave}, ${AlarmStatus[status] ?? status}`;
}

/** Data for people: an empty string is something, no data is not. */
export function shownText(datum: Datum, display: Display = {}): string {
  return datum.kind === Kind.None ? "—" : datumText(datum, display) || '""';
}

/** A stored value for people; what is missing is said. */
export function valueText(value: Value | undefined, display: Display = {}): string {
  if (value === undefined) return "—";
  const text = shownText(datumOf(value), display);
  if (value.data.case === undefined)
    return value.state === ConnectionState.NEVER_CONNECTED ? "never found" : "no value";
  return value.state === ConnectionState.DISCONNECTED ? `${text} (disconnected)` : text;
}

const pad = (number: number, width = 2) => String(number).padStart(width, "0");

export function clock(date: Date): string {
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
}

export function day(date: Date): string {
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
}

/** Local time, always in the same form. */
export function timeText(time: Timestamp | undefined): string {
  if (time === undefined) return "—";
  const date = new Date(Number(time.seconds) * 1000);
  return `${day(date)} ${clock(date)}`;
}

/** Local time to the microsecond. */
export function nanosecondsText(ns: bigint): string {
  if (ns === 0n) return "—";
  const date = new Date(Number(ns / 1_000_000n));
  return `${day(date)} ${clock(date)}.${pad(Number((ns / 1000n) % 1_000_000n), 6)}`;
}

export function secondsOf(duration: { seconds: bigint; nanos: number } | undefined): number | undefined {
  return duration === undefined ? undefined : Number(duration.seconds) + duration.nanos / 1e9;
}

/** A length of time in its largest unit. */
export function spanText(seconds: number): string {
  const size = Math.abs(seconds);
  if (size < 1) return `${(seconds * 1000).toFixed(0)} ms`;
  if (size < 120) return `${seconds.toFixed(1)} s`;
  if (size < 7200) return `${(seconds / 60).toFixed(0)} min`;
  return size < 172_800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86_400).toFixed(1)} days`;
}

export const counted = (count: number | bigint) => count.toLocaleString("en");
export const plural = (count: number, word: string) => `${counted(count)} ${word}${count === 1 ? "" : "s"}`;

/** `NEVER_CONNECTED` as `never connected`. */
export const enumWords = (name: string | undefined) => (name ?? "?").toLowerCase().replaceAll("_", " ");

/** What went wrong, with the reason that stands in the reference of errors. */
export function errorText(error: unknown): string {
  const reason = reasonOf(error);
  const text = error instanceof Error && !(error instanceof ConnectError) ? error.message : ConnectError.from(error).rawMessage;
  return reason === "" ? text : `${text} (${reason})`;
}
