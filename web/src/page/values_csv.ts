/** The values of a snapshot as CSV, for a spreadsheet: numbers with all their digits, labels of enumerations. */
import { ARRAY, datumOf, datumText, elementsOf, numberText } from "@drey/client";
import { AlarmSeverity, ConnectionState, type ChannelMetadata, type PvRow, type Value } from "../../gen/drey/common/v1/value_pb";
import type { PvMetadata } from "../../gen/drey/snapshot/v1/snapshot_service_pb";

const CHANNEL = ["value", "units", "severity", "state", "time_ns", "address"] as const;
const HEAD = ["name", "number", "device", ...["setpoint", "readback"].flatMap((role) => CHANNEL.map((column) => `${role}_${column}`))];

/** A spreadsheet would calculate what IOCs and other people wrote like a formula; behind an apostrophe it is a text. Numbers stay. */
function shown(text: string): string {
  const formula = /^[=+\-@\t\r]/.test(text) && text.split(" ").some((part) => Number.isNaN(Number(part)) && part !== "NaN");
  return formula ? `'${text}` : text;
}

function quoted(cell: string): string {
  const text = shown(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** All of a value; elements of an array are separated by blanks, strings among them in quotes. */
export function wholeText(value: Value, labels: readonly string[] | undefined): string {
  const datum = datumOf(value);
  if (datum.kind < ARRAY) return datumText(datum, { labels });
  return Array.from(elementsOf(datum), (element) => (typeof element === "string" ? JSON.stringify(element) : typeof element === "number" ? numberText(element, undefined) : String(element))).join(" ");
}

function channelCells(value: Value | undefined, metadata: ChannelMetadata | undefined): string[] {
  if (value === undefined) return CHANNEL.map(() => "");
  const { severity, state, sourceTimeNs } = value;
  return [
    wholeText(value, metadata?.enumLabels),
    metadata?.units ?? "",
    severity > 0 ? (AlarmSeverity[severity] ?? String(severity)) : "",
    ConnectionState[state] ?? String(state),
    sourceTimeNs === 0n ? "" : String(sourceTimeNs),
    metadata?.address ?? "",
  ];
}

/** Lines with their ends; the first names the columns. A byte order mark tells spreadsheets that it is UTF-8. */
export function valuesCsv(rows: readonly PvRow[], metadata: ReadonlyMap<string, PvMetadata>): string[] {
  const lines = rows.map((row) => {
    const pv = metadata.get(row.number);
    return [row.name, row.number, pv?.device ?? "", ...channelCells(row.setpoint, pv?.setpoint), ...channelCells(row.readback, pv?.readback)];
  });
  return ["\ufeff", ...[HEAD, ...lines].map((cells) => `${cells.map(quoted).join(",")}\r\n`)];
}
