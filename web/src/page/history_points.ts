/** One PV through snapshots: of each what the table says and the plot draws, and of no array more than that. */
import { appendPart, datumOf, numberOf } from "@drey/client";
import { channelMark, graver, type Mark } from "./words";
import { Freshness, type Value } from "../../gen/drey/common/v1/value_pb";
import type { GetPvHistoryResponse, HistoryPoint } from "../../gen/drey/snapshot/v1/snapshot_service_pb";

const ROLES = ["setpoint", "readback"] as const;
type RoleName = (typeof ROLES)[number];

interface HistoryValue {
  readonly text: string;
  /** What a plot draws; null where there is nothing to be believed, or no number. */
  readonly number: number | null;
}

export interface HistoryEntry {
  readonly snapshotId: string;
  readonly timeNs: bigint;
  readonly mark: Mark;
  /** Absent: the snapshot does not have this channel. */
  readonly setpoint: HistoryValue | undefined;
  readonly readback: HistoryValue | undefined;
}

export interface History {
  /** Newest first. */
  readonly entries: readonly HistoryEntry[];
  /** There are older ones, which were not asked for. */
  readonly isCut: boolean;
}

/** Texts of values, which know units and labels. */
export type ToText = (value: Value, role: RoleName) => string;

const markOfValue = (value: Value | undefined): Mark =>
  channelMark(value?.state ?? 0, Freshness.FRESH, Math.max(0, value?.severity ?? 0));

function entryOf({ snapshotId, timeNs, row }: HistoryPoint, toText: ToText): HistoryEntry {
  const valueOf = (role: RoleName): HistoryValue | undefined => {
    const value = row?.[role];
    if (value === undefined) return undefined;
    const number = numberOf(datumOf(value));
    const isKnown = markOfValue(value).rank <= 3 && Number.isFinite(number);
    return { text: toText(value, role), number: isKnown ? number : null };
  };
  return {
    snapshotId,
    timeNs,
    mark: graver(markOfValue(row?.setpoint), markOfValue(row?.readback)),
    setpoint: valueOf("setpoint"),
    readback: valueOf("readback"),
  };
}

/** Read at most so many snapshots of a history; values that come in parts are joined. */
export async function readHistory(answers: AsyncIterable<GetPvHistoryResponse>, most: number, toText: ToText): Promise<History> {
  const entries: HistoryEntry[] = [];
  let last: HistoryPoint | undefined;
  for await (const { points } of answers)
    for (const point of points) {
      if (last?.snapshotId === point.snapshotId) {
        for (const role of ROLES) if (last.row?.[role] !== undefined) appendPart(last.row[role], point.row?.[role]);
        continue;
      }
      if (last !== undefined) entries.push(entryOf(last, toText));
      if (entries.length === most) return { entries, isCut: true };
      last = point;
    }
  if (last !== undefined) entries.push(entryOf(last, toText));
  return { entries, isCut: false };
}

/** Seconds, setpoints and readbacks, oldest first; null, that is a gap, wherever the PV was missing. */
export function historyColumns(entries: readonly HistoryEntry[]): [number[], (number | null)[], (number | null)[]] {
  const oldestFirst = entries.toReversed();
  return [
    oldestFirst.map(({ timeNs }) => Number(timeNs / 1_000_000n) / 1000),
    oldestFirst.map(({ setpoint }) => setpoint?.number ?? null),
    oldestFirst.map(({ readback }) => readback?.number ?? null),
  ];
}

/** Whether a snapshot that has the PV has no value of one of its channels. */
export const isMissing = ({ mark }: HistoryEntry) => mark.rank > 3;
